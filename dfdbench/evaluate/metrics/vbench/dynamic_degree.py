"""Dynamic degree as VBench defines it: whether a clip's fastest pixels move far enough, by RAFT.

Huang et al., "VBench", CVPR 2024, dynamic_degree. Every max(1, round(fps / 8))-th frame is taken,
N of them; m_k is the mean length of the largest 5 % of flow vectors between neighbours. The clip
moves if at least round(4 N / 16) of the m_k exceed 6 pixels at a short side of 256. Its score is 1
or 0, VBench's total their mean. Flow is computed only until that is settled.
"""

from collections.abc import Iterator
from itertools import pairwise

from dfdbench.evaluate.metrics.base import Compute, Setting, is_shared
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.weights import RAFT_THINGS
from dfdbench.evaluate.metrics.vbench.verdict import exceed
from dfdbench.utils.video import Clip

RATE = 8  # sampled frames per second
SHARE = 0.05  # of the pixels, the fastest
THRESHOLD = 6 / 256  # parts of the short side, between two sampled frames


def sampled(total: int, fps: float) -> list[int]:
    """Numbers of the frames that are looked at; Python's rounding, half to even, as in VBench."""
    return list(range(0, total, max(1, round(fps / RATE))))


def moves(magnitudes: Iterator[float], frames: int, side: int) -> bool:
    """VBench's verdict on a clip; reads no more magnitudes than settle it.

    VBench counts frames, not pairs: of two frames none has to move, of one it is never asked.

    Args:
        magnitudes: m_k in pixels, one for each of the frames − 1 pairs.
        frames: sampled frames. side: pixels of the short side.
    """
    pairs, needed = frames - 1, round(4 * frames / 16)
    return pairs > 0 and exceed(magnitudes, pairs, THRESHOLD * side, needed)


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    from dfdbench.evaluate.metrics.vbench.nets import pairs, raft

    device = setting.device
    magnitudes = raft.Magnitudes(raft.load_raft(device), SHARE, is_shared(device))

    def compute(clip: Clip) -> dict[str, float]:
        height, width = clip.frames.shape[1:3]
        chosen = sampled(len(clip.frames), clip.fps)
        if not pairs.is_large_enough(height, width, raft.MULTIPLE):
            return {}  # VBench's flow is NaN there, which it takes for a clip that does not move
        moved = magnitudes(clip.frames, list(pairwise(chosen)))
        return {"dynamic_degree": float(moves(moved, len(chosen), min(height, width)))}

    return compute


FAMILY = dimension_family(
    "vbench_dynamic_degree",
    dimension(
        "dynamic_degree",
        "VBench (CVPR 2024), dynamic_degree; RAFT; none below 121 pixels a side",
        "1 if the fastest 5 % of a clip's pixels move far enough in a quarter of its frames (8 a "
        "second; 6 pixels at a short side of 256), else 0; its mean is the share of moving clips.",
    ),
    load=load,
    weights=(RAFT_THINGS,),
)
