"""Dynamic degree by OpenCV's DIS optical flow, which needs no weights; not to be read as VBench's.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, with the rule of VBench's
dynamic_degree around it: every max(1, round(fps / 8))-th of the clip's frames, N of them; m_k is
the mean of the largest 5 % of |flow| between neighbours; the clip is dynamic if at least
round(4 N / 16) of the m_k exceed 6 pixels at a short side of 256. VBench's flow is RAFT, on frames
of full size; here frames are reduced (pixel areas) to a short side of at most 256, and magnitudes
are given as parts of the short side.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from dfdbench.evaluate.metrics.base import Metric, MetricFamily, plain
from dfdbench.utils.video import Clip, reduced

SIDE = 256  # pixels of the short side, at most
RATE = 8  # sampled frames per second
TOP = 0.05  # share of pixels, the fastest
THRESHOLD = 6 / 256  # parts of the short side, between two sampled frames


def stride(fps: float) -> int:
    """VBench's step between frames; Python's rounding, half to even, as there."""
    return max(1, round(fps / RATE))


def is_dynamic(magnitudes: np.ndarray) -> bool:
    """VBench's rule for the N − 1 magnitudes, in parts of the short side, of N frames.

    At least one must exceed the threshold; for N = 2 VBench's own rule would ask for none.
    """
    needed = max(1, round(4 * (len(magnitudes) + 1) / 16))
    return bool((magnitudes > THRESHOLD).sum() >= needed)


def magnitudes(frames: np.ndarray) -> np.ndarray:
    """Mean of the largest 5 % of |flow| between neighbours, in parts of the short side.

    uint8 (N, H, W, 3), N at least 2 -> float64 (N − 1,).
    """
    import cv2

    # It keeps pyramids between calls, so it cannot be shared by threads.
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = (reduced(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), SIDE) for frame in frames)
    lengths = []
    for before, after in pairwise(grey):
        length = np.hypot(*np.moveaxis(flow.calc(before, after, None), -1, 0)).ravel()
        top = max(1, int(TOP * length.size))
        largest = np.partition(length, -top)[-top:]
        lengths.append(largest.mean(dtype=np.float64) / min(before.shape))
    return np.array(lengths)


def compute(clip: Clip) -> dict[str, float]:
    """Both values of a clip; neither where it is too short for two sampled frames."""
    step = stride(clip.fps)
    sampled = clip.frames[::step]
    if len(sampled) < 2:
        return {}
    lengths = magnitudes(sampled)
    return {
        "dis_flow_dynamic": float(is_dynamic(lengths)),
        "dis_flow_magnitude": float(lengths.mean() * clip.fps / step),
    }


SOURCE = "DIS flow (ECCV 2016, OpenCV, medium preset) at a short side of 256"

FAMILY = MetricFamily(
    "dis_flow",
    policy="all",
    metrics=(
        Metric(
            "dis_flow_dynamic", "higher", "", (0.0, 1.0),
            f"{SOURCE}; VBench's rule of dynamic_degree; its mean is the share of moving clips",
            "1 if the fastest 5 % of a clip's pixels move far enough in a quarter of its frames (8 "
            "a second; 6 pixels at a short side of 256), else 0. VBench's own uses RAFT.",
        ),
        Metric(
            "dis_flow_magnitude", "nearest_reference", "short sides/s", (0.0, np.inf),
            f"{SOURCE}; mean over frames of the fastest 5 % of pixels",
            "How fast the fastest 5 % of pixels move, camera motion included: mean |flow| in short "
            "sides of the frame per second.",
        ),
    ),
    load=plain(compute),
    default=True,
)  # fmt: skip
