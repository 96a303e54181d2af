"""Seams where blocks of a causal student meet: change across a border over change inside blocks.

A student that is sampled block after block may jump where a block begins. The manifest says where
that is (column `blocks`, written by `generate`).
"""

import numpy as np

from dfdbench.evaluate.metrics.base import Metric, MetricFamily, plain
from dfdbench.evaluate.metrics.flicker import changes
from dfdbench.utils.video import Clip


def borders(blocks: str, frames: int) -> np.ndarray:
    """First frame of each later block of a clip: int (K,).

    blocks: "9+12" for a first block of 9 frames and later ones of 12.
    """
    first, each = map(int, blocks.split("+"))
    return np.arange(first, frames, each)


def compute(clip: Clip) -> dict[str, float]:
    """The ratio; nothing for a clip of one block, or one that stands still inside its blocks."""
    across = np.zeros(len(clip.frames) - 1, bool)
    across[borders(clip.blocks, len(clip.frames)) - 1] = True
    change = changes(clip.frames)
    if not across.any() or across.all() or not change[~across].any():
        return {}
    return {"seam_ratio": float(change[across].mean() / change[~across].mean())}


FAMILY = MetricFamily(
    "seams",
    policy="all",
    metrics=(
        Metric(
            "seam_ratio", "lower", "", (0.0, 1e9),
            "mean |F_t − F_{t−1}| where a block begins / the same inside blocks",
            "How visible it is where the blocks of a causal student meet: mean absolute change "
            "from the last frame of a block to the first of the next, over that between frames "
            "inside blocks. 1 if no seam is to be seen.",
        ),
    ),
    load=plain(compute),
    needs=("blocks",),
    dtype="uint8",
)  # fmt: skip
