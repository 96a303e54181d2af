"""Temporal flickering as VBench defines it: 1 minus the mean change between adjacent frames.

Huang et al., "VBench", CVPR 2024, temporal_flickering: (255 − mean_t mean|F_{t+1} − F_t|) / 255
over all pixels and channels. VBench means it for static videos: motion lowers it too.
"""

from itertools import pairwise

import numpy as np

from dfdbench.evaluate.metrics.base import Metric, MetricFamily, plain
from dfdbench.utils.video import Clip


def changes(frames_THWC: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame to the one before it, of uint8: float64 (T − 1,)."""
    return np.array(
        [
            # uint8 differences wrap around: larger minus smaller stays inside the type
            (np.maximum(a, b) - np.minimum(a, b)).mean(dtype=np.float64)
            for a, b in pairwise(frames_THWC)
        ]
    )


def temporal_flickering(frames_THWC: np.ndarray) -> float:
    """Score in [0, 1], 1 for a still clip; uint8 frames (T, H, W, 3), T at least 2."""
    return float((255 - np.mean(changes(frames_THWC))) / 255)


def compute(clip: Clip) -> dict[str, float]:
    """The family's one value of a clip."""
    return {"temporal_flickering": temporal_flickering(clip.frames)}


FAMILY = MetricFamily(
    "flicker",
    policy="all",
    metrics=(
        Metric(
            "temporal_flickering", "higher", "", (0.0, 1.0),
            "VBench (CVPR 2024), temporal_flickering, without its static filter",
            "How little adjacent frames differ: (255 − mean |F_{t+1} − F_t|) / 255. A still clip "
            "has 1; motion lowers it as flicker does.",
        ),
    ),
    load=plain(compute),
    dtype="uint8",
    default=True,
)  # fmt: skip
