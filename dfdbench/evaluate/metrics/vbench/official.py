"""What the official package vbench computes, from its result files (`eval --official-results`).

Huang et al., "VBench" (2311.17982), vbench 0.1.5. Five dimensions have no other implementation
here; those of its other dimensions have columns of their own, official_<dimension>, beside ours.
No clip goes through `load`: evaluate/vbench/official.py stores the values, named here.
"""

from typing import NoReturn

from dfdbench.evaluate.metrics.base import Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, frames_of
from dfdbench.generate.suites.dimensions import DIMENSIONS, T2V
from dfdbench.utils.errors import MissingWeights

NAME = "vbench_bridge"  # as stores and suites have it
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
        f"{', '.join(BRIDGED)} are computed by the official package only; run vbench {VERSION} on "
        "the clips and name its NAME_eval_results.json with --official-results"
    )


_DEFINITIONS = {
    "object_class": "Share of 16 frames in which GRiT detects the object that the prompt names.",
    "multiple_objects": "Share of 16 frames in which GRiT detects both objects of the prompt.",
    "color": "Among the frames in which GRiT gives the object a colour, the share in which it is "
    "the prompt's.",
    "spatial_relationship": "Whether the two detected objects lie beside or above each other as "
    "the prompt says: 1 for boxes of IoU below 0.1, else 0.1 / IoU; mean over 16 frames.",
    "scene": "Share of 16 frames whose Tag2Text caption holds every word of the prompt's scene.",
}


def _metric(name: str) -> Metric:
    text = f"VBench's {name} as the official package computes it: beside ours, in no total."
    return dimension(
        official(name),
        f"official vbench {VERSION}, {name}",
        _DEFINITIONS.get(name, text),
        low=-1.0 if name in COSINES else 0.0,
    )


FAMILY = MetricFamily(
    NAME,
    policy="all",
    metrics=(
        *map(_metric, (*BRIDGED, *NATIVE)),
        *(frames_of(official(name)) for name in COUNTED),
    ),
    load=refuse,
    find=refuse,
    model=True,
    dtype="official",
)
