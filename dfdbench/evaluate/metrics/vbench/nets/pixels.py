"""Frames as VBench's networks see them: torchvision's resize and crop, then a mean and a deviation.

Used by dino.py, clip.py and dreamsim.py. VBench resizes float32 frames of 0 to 255 and clamps
nothing: bicubic overshoot stays. Its T2V code resizes without antialiasing, its I2V code with.
"""

from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BITS = 22  # of Pillow's weights, after the point
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def resized(
    frames: np.ndarray,
    size: int | tuple[int, int],
    mode: Literal["bilinear", "bicubic"],
    antialias: bool,
    crop: int | None = None,
    device: str = "cpu",
) -> "Tensor":
    """Frames scaled to `size`, then the centre square cut out.

    Args:
        frames: uint8 (T H W 3).
        size: length of the shorter side (the longer is rounded down), or (height, width).
        crop: side of the square; None: the whole frame.
        device: where this is done.

    Returns:
        float32 (T 3 h w), 0 to 255 and, for bicubic, somewhat beyond.
    """
    import torch
    from torchvision.transforms import InterpolationMode, functional

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()
    sides = [size] if isinstance(size, int) else list(size)
    scaled = functional.resize(pixels, sides, InterpolationMode(mode), antialias=antialias)
    return scaled if crop is None else functional.center_crop(scaled, [crop, crop])


def resized_by_pillow(
    frames: np.ndarray,
    size: int | tuple[int, int],
    crop: int | None = None,
    device: str = "cpu",
) -> "Tensor":
    """The same for what VBench reads as images: Pillow's bicubic, antialiased, rounded to uint8.

    On a CPU by Pillow, on a GPU by `as_pillow`, which gives the same numbers.

    Returns:
        float32 (T 3 h w), whole numbers from 0 to 255.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode, functional

    if device != "cpu":
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2)
        scaled = as_pillow(pixels, _sides(pixels.shape[-2:], size))
        return scaled if crop is None else functional.center_crop(scaled, [crop, crop])
    sides = [size] if isinstance(size, int) else list(size)
    images = []
    for frame in frames:
        image = functional.resize(Image.fromarray(frame), sides, InterpolationMode.BICUBIC)
        image = image if crop is None else functional.center_crop(image, [crop, crop])
        images.append(functional.pil_to_tensor(image))
    return torch.stack(images).float()


def _sides(shape: "Sequence[int]", size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width that torchvision scales an image of `shape` to."""
    if not isinstance(size, int):
        return size
    short = min(shape)
    height, width = (size if side == short else int(size * side / short) for side in shape)
    return height, width


def as_pillow(pixels: "Tensor", size: tuple[int, int]) -> "Tensor":
    """What Pillow's bicubic resize makes of uint8 pixels, number by number, on any device.

    Pillow (Resample.c) filters rows, then columns, by weights of 22 bits, and rounds after each.
    Sums of such products are whole numbers below 2^53, so float64 holds them in any order.

    Args:
        pixels: uint8 (T 3 H W). size: height and width.

    Returns:
        float32 (T 3 height width), whole numbers from 0 to 255.
    """
    x = pixels.double()
    for axis, side in ((-1, size[1]), (-2, size[0])):
        if x.shape[axis] != side:
            weights = _weights(x.shape[axis], side).to(x.device)
            x = x @ weights.T if axis == -1 else weights @ x
            x = ((x + 2 ** (BITS - 1)) / 2**BITS).floor().clamp(0, 255)
    return x.float()


@cache
def _weights(before: int, after: int) -> "Tensor":
    """Pillow's weights of `before` pixels for each of `after`, (after, before), whole numbers."""
    import torch

    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    rows = np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(before, int(centre + support + 0.5))
        weights = _bicubic((np.arange(first, last) - centre + 0.5) / stretch)
        weights = weights / weights.sum() * 2**BITS
        rows[i, first:last] = np.trunc(weights + np.copysign(0.5, weights))
    return torch.from_numpy(rows)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = −1/2."""
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def normalised(pixels: "Tensor", statistics: Statistics) -> "Tensor":
    """(x / 255 − mean) / deviation for each channel of (T 3 H W)."""
    from torchvision.transforms import functional

    return functional.normalize(pixels / 255, *map(list, statistics))
