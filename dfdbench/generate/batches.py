"""Clips of a batch, decoded one by one; and how many make a batch where nobody says it.

Used by clips.py. The batch changes no clip but by rounding, see arms.py.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dfdbench.generate.arms import Item, Sample
from dfdbench.generate.speed import Speed
from dfdbench.models.family import ModelFamily
from dfdbench.models.sampling import decode_clips
from dfdbench.utils.device import free_memory, memory_in_use, now, peak_memory, reset_peak
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import to_uint8

T = TypeVar("T")
MOST = 16
# Matrix products of so many rows keep any GPU busy: more clips take memory and save no time.
ENOUGH_TOKENS = 2**16
USELESS = "the weights are of no use; train or copy them again"
ROOM = 0.8  # of the free memory: what is free in pieces does not all count


def batches(
    items: Sequence[T], size: int | None, latents: Sequence[int], device: torch.device
) -> Iterator[Sequence[T]]:
    """The items in order, `size` at a time.

    Without a size as many as ENOUGH_TOKENS takes, at most MOST. On a GPU the first then goes alone,
    and what the caller's work on it takes says how many fit.

    Args:
        latents: (C, T, H, W) of a clip; a token is a patch of 2 x 2.
    """
    start = 0
    if size is None:
        _, frames, height, width = latents
        size = max(1, min(MOST, ENOUGH_TOKENS // (frames * height * width // 4)))
        before = memory_in_use(device)
        if before is not None and size > 1 and len(items) > 1:
            reset_peak(device)
            yield items[:1]
            start, each = 1, max(1, peak_memory(device)["allocated_bytes"] - before)
            size = max(1, min(size, int(ROOM * (free_memory(device) or 0)) // each))
    while start < len(items):
        yield items[start : start + size]
        start += size


def make_clips(
    sample: Sample, family: ModelFamily, batch: Sequence[Item], speed: Speed
) -> list[np.ndarray]:
    """Frames, uint8 (T H W 3), of each clip of a batch; decoded one after the other."""
    start = now(family.device)
    latents = sample(batch)
    middle = now(family.device)
    # map, not a loop, whose variable would keep a clip while the next is decoded
    frames = list(map(finite_frames, decode_clips(family, latents)))
    broken = [item.path for item, own in zip(batch, frames, strict=True) if own is None]
    if broken:
        raise UserError(
            f"{len(broken)} of {len(batch)} clips, such as {broken[0]}, hold NaN: {USELESS}"
        )
    whole = [own for own in frames if own is not None]
    speed.add(len(batch), sum(map(len, whole)), middle - start, now(family.device) - middle)
    return whole


def finite_frames(clip: Tensor) -> np.ndarray | None:
    """A clip (3 T H W) in [-1, 1] as uint8 (T H W 3); None if a value is not finite."""
    return to_uint8(clip) if torch.isfinite(clip).all() else None
