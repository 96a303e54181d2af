"""Frames for networks that look at two of them at once: tensors, borders, how many pairs fit.

Used by the families of motion_smoothness (AMT-S) and dynamic_degree and the static filter (RAFT).
On a GPU the pairs of several clips share a pass (joint.py), which may take a share of what is free.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dfdbench.utils.device import free_memory

# Both networks correlate every 8th pixel with every 8th pixel, in float32, and keep about four
# such volumes: at 832 × 480 these are 0.6 GB a pair. One pair is the least, whatever it takes.
VOLUMES, BUDGET = 4, {"cpu": 2**27, "cuda": 2**32}  # bytes
SHARE = 0.25  # of a GPU's free memory, where that is more than the budget
MOST = 8  # of a clip; more would be computed in vain where a few pairs settle it
COARSEST = 16  # least side of the feature maps: their pyramid ends at 1/8 of it, 2 × 2


def on_device(frames: np.ndarray, device: str) -> Tensor:
    """uint8 frames (B H W 3) as a tensor there."""
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device)


def floats(frames: Tensor) -> Tensor:
    """uint8 (B H W 3) as float32 (B 3 H W), 0 to 255."""
    return frames.permute(0, 3, 1, 2).float()


def pixels(frames: np.ndarray, device: str) -> Tensor:
    """uint8 (B H W 3) as float32 (B 3 H W), 0 to 255."""
    return floats(on_device(frames, device))


def margins(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Left, right, top and bottom borders that make both sides divisible, the smaller halves first.

    Those of VBench, with which RAFT's (`sintel`) and AMT's code agree.
    """
    x, y = -width % multiple, -height % multiple
    return x // 2, x - x // 2, y // 2, y - y // 2


def padded(images: Tensor, multiple: int) -> Tensor:
    """(B 3 H W) with its outermost rows and columns repeated until both sides are divisible."""
    height, width = images.shape[-2:]
    return torch.nn.functional.pad(images, margins(height, width, multiple), mode="replicate")


def cropped(images: Tensor, height: int, width: int, multiple: int) -> Tensor:
    """The part (B C height width) that `padded` enlarged."""
    left, _, top, _ = margins(height, width, multiple)
    return images[..., top : top + height, left : left + width]


def is_large_enough(height: int, width: int, multiple: int) -> bool:
    """Whether the networks give numbers at all: below 128 padded pixels a side they give NaN."""
    return all(-(-side // multiple) * multiple >= 8 * COARSEST for side in (height, width))


def batches(
    pairs: Sequence[tuple[int, int]], height: int, width: int, device: str
) -> Iterator[Sequence[tuple[int, int]]]:
    """The pairs in order, as many at once as the device's budget of memory allows."""
    size = min(MOST, fitting(height, width, BUDGET[device.split(":")[0]]))
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def fitting(height: int, width: int, budget: float) -> int:
    """How many pairs of frames of this size the budget in bytes allows, at least one."""
    return max(1, int(budget / (VOLUMES * 4 * (height * width / 64) ** 2)))


def fit_together(sides: Sequence[int], device: torch.device) -> int:
    """How many pairs of all clips, of frames of this height and width, a pass may hold."""
    (height, width), free = sides, free_memory(device)
    budget = BUDGET[device.type]
    return fitting(height, width, budget if free is None else max(budget, SHARE * free))
