"""What the official package vbench computes (`eval --vbench-python`, `--official-results`).

Huang et al., "VBench" (2311.17982), vbench 0.1.5. Five dimensions have no other implementation
here; those of its other dimensions have columns of their own, official_<dimension>, beside ours.
No clip goes through `load`: vbench/bridge.py stores the values. Here they get name and meaning.
"""

from typing import NoReturn

from dfdbench.evaluate.metrics import Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.consistency import frames_reading
from dfdbench.generate.suites.dimensions import DIMENSIONS, T2V
from dfdbench.utils.errors import MissingWeights

NAME = "vbench_bridge"
VERSION = "0.1.5"
BRIDGED = ("object_class", "multiple_objects", "color", "spatial_relationship", "scene")
"""Dimensions that only the package computes."""
NATIVE = tuple(name for name in T2V if name not in BRIDGED)
"""Dimensions of the package that dfdbench computes too."""
COUNTED = tuple(name for name in NATIVE if DIMENSIONS[name].by_frame)
"""Those whose score is the mean over frames."""
COSINES = ("temporal_style", "overall_consistency")  # from −1


def official(dimension: str) -> str:
    """The metric that holds the package's value of a dimension."""
    return dimension if dimension in BRIDGED else f"official_{dimension}"


def refuse(setting: Setting) -> NoReturn:
    """The family's `find` and `load`: a MissingWeights that says what must be given."""
    raise MissingWeights(
        f"{', '.join(BRIDGED)} are computed by the official package only; name the python that "
        f"has vbench {VERSION} with --vbench-python, or its result files with --official-results"
    )


def _metric(dimension: str) -> Metric:
    name = official(dimension)
    return Metric(
        name, "higher", "", (-1.0 if dimension in COSINES else 0.0, 1.0),
        f"official vbench {VERSION}, {dimension}", NAME,
    )  # fmt: skip


FAMILY = MetricFamily(
    NAME,
    policy="all",
    metrics=(
        *map(_metric, (*BRIDGED, *NATIVE)),
        *(frames_reading(official(name), NAME) for name in COUNTED),
    ),
    load=refuse,
    find=refuse,
    model=True,
    dtype="official",
)
