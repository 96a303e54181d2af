"""What every family of VBench's dimensions shares: the form of its score, VBench's weights.

A dimension's file (subject_consistency.py is the shortest) says what its network sees and how its
outputs become the score. Frames, weights and thresholds are VBench's.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.nets.weights import Checkpoint, digest_of


def dimension(
    name: str, source: str, definition: str, low: float = 0.0, high: float = 1.0
) -> Metric:
    """The score of a dimension of VBench, low to high, of which more is better."""
    return Metric(name, "higher", "", (low, high), source, definition)


def frames_of(name: str) -> Metric:
    """The reading `<name>_frames`, which `frame_weighted` needs beside the dimension `name`."""
    what = f"frames that {name} is the mean of"
    return Metric(
        f"{name}_frames", "nearest_reference", "frames", (1.0, np.inf), what,
        f"Number of {what}: VBench weighs clips by it.", kind="reading",
    )  # fmt: skip


def dimension_family(
    name: str,
    *metrics: Metric,
    load: Callable[[Setting], Compute],
    weights: tuple[Checkpoint, ...],
    code: Callable[[], object] | None = None,
    policy: str = "all",
    needs: tuple[Literal["prompt", "image"], ...] = (),
    min_frames: int = 2,
    cuts: Callable[[str], bool] | None = None,
) -> MetricFamily:
    """The family `name` of one or more dimensions that one look at a clip gives.

    Args:
        load, policy, needs, min_frames, cuts: as of MetricFamily.
        weights: the files that `load` reads; their digest is part of a score's key.
        code: raises MissingWeights where the network's definition, which no dependency holds, is
            not here.
    """

    def find(setting: Setting) -> str:
        if code:
            code()
        return digest_of(weights)

    return MetricFamily(
        name,
        policy=policy,
        metrics=metrics,
        load=load,
        find=find,
        model=True,
        needs=needs,
        min_frames=min_frames,
        cuts=cuts,
    )
