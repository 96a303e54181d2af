"""What the official package vbench computes, in its own interpreter (`eval --vbench-python`).

Huang et al., "VBench" (2311.17982), vbench 0.1.5. Five dimensions have no other implementation
here; its other text-to-video dimensions can be asked for with `--official` and then have columns of
their own, official_<dimension>, beside ours. No clip goes through `load`: vbench/bridge.py runs the
package after the other families and stores its values. Here they get a name and a meaning.
"""

from typing import NoReturn

from dfdbench.evaluate.metrics.base import MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, frames_of
from dfdbench.utils.errors import MissingWeights

NAME = "vbench_bridge"
VERSION = "0.1.5"
BRIDGED = ("object_class", "multiple_objects", "color", "spatial_relationship", "scene")
"""Dimensions that only the package computes."""
COUNTED = ("subject_consistency", "background_consistency", "appearance_style")
"""Dimensions whose score is the mean over frames."""
NATIVE = (
    *COUNTED,
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "human_action",
    "temporal_style",
    "overall_consistency",
)
"""Dimensions of the package that dfdbench computes too."""


def official(dimension: str) -> str:
    """The metric that holds the package's value of a dimension."""
    return dimension if dimension in BRIDGED else f"official_{dimension}"


def refuse(setting: Setting) -> NoReturn:
    """The family's `find` and `load`: it can only say what must be given.

    Raises:
        MissingWeights: always.
    """
    raise MissingWeights(
        f"{', '.join(BRIDGED)} are computed by the official package only; name the python that "
        f"has vbench {VERSION} with --vbench-python"
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


def _definition(name: str) -> str:
    text = f"VBench's {name} as the official package computes it: beside ours, in no total."
    return _DEFINITIONS.get(name, text)


FAMILY = MetricFamily(
    NAME,
    policy="all",
    metrics=(
        *(
            dimension(
                official(name),
                f"official vbench {VERSION}, {name}",
                _definition(name),
                low=-1.0 if name in NATIVE[-2:] else 0.0,
            )
            for name in (*BRIDGED, *NATIVE)
        ),
        *(frames_of(official(name)) for name in COUNTED),
    ),
    load=refuse,
    find=refuse,
    model=True,
    dtype="official",
)
