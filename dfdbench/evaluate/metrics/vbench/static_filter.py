"""VBench's filter for temporal_flickering, which is meant for static clips only: is this one?

Huang et al., "VBench", CVPR 2024, command static_filter. m is the mean length of the largest 2 % of
RAFT's flow vectors between two frames, θ is 3 pixels at a short side of 256, n = round(2 T / 16)
for T frames. A clip is static if at most n of its T − 1 neighbours have m > θ, and m ≤ 2 n θ from
the first frame to the last and from the last to the first. Unlike VBench, which stops at five
static clips a prompt, this judges every clip; the suite chooses.
"""

from collections.abc import Iterator
from itertools import pairwise

from dfdbench.evaluate.metrics.base import Compute, Metric, Setting, is_shared
from dfdbench.evaluate.metrics.vbench.family import dimension_family
from dfdbench.evaluate.metrics.vbench.nets.weights import RAFT_THINGS
from dfdbench.evaluate.metrics.vbench.verdict import exceed
from dfdbench.utils.video import Clip

SHARE = 0.02  # of the pixels, the fastest
THRESHOLD = 3 / 256  # parts of the short side


def is_static(ends: Iterator[float], steps: Iterator[float], frames: int, side: int) -> bool:
    """VBench's verdict on a clip; reads no more magnitudes than settle it.

    The two ends come first, for most clips that move are settled by them.

    Args:
        ends: m in pixels from the first frame to the last and back.
        steps: m in pixels of the frames − 1 pairs of neighbours.
        frames: of the clip. side: pixels of the short side.
    """
    threshold, allowed = THRESHOLD * side, round(2 * frames / 16)
    if exceed(ends, 2, 2 * allowed * threshold, 1):
        return False
    return not exceed(steps, frames - 1, threshold, allowed + 1)


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    from dfdbench.evaluate.metrics.vbench.nets import pairs, raft

    device = setting.device
    magnitudes = raft.Magnitudes(raft.load_raft(device), SHARE, is_shared(device))

    def compute(clip: Clip) -> dict[str, float]:
        total, height, width = clip.frames.shape[:3]
        if not pairs.is_large_enough(height, width, raft.MULTIPLE):
            return {}  # VBench's flow is NaN there, which it takes for a static clip
        ends, steps = (
            magnitudes(clip.frames, chosen)
            for chosen in ([(0, total - 1), (total - 1, 0)], list(pairwise(range(total))))
        )
        return {"static": float(is_static(ends, steps, total, min(height, width)))}

    return compute


FAMILY = dimension_family(
    "vbench_static_filter",
    Metric(
        "static", "nearest_reference", "", (0.0, 1.0),
        "VBench (CVPR 2024), static_filter; RAFT; 1 for a static clip; none below 121 pixels "
        "a side",
        "1 for a clip that VBench takes for static, else 0: in seven eighths of its frames the "
        "fastest 2 % of pixels move at most 3 pixels (at a short side of 256), and the last frame "
        "is near the first. Only such clips count for temporal_flickering.",
        kind="reading",
    ),
    load=load,
    weights=(RAFT_THINGS,),
)  # fmt: skip
