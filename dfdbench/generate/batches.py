"""How many clips are sampled at once where nobody says it: by their tokens and the free memory.

Used by clips.py. The batch changes no clip but by rounding, see arms.py.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from dfdbench.utils.device import free_memory, memory_in_use, peak_memory, reset_peak

T = TypeVar("T")
MOST = 16
# Matrix products of so many rows keep any GPU busy: more clips take memory and save no time.
ENOUGH_TOKENS = 2**16
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
