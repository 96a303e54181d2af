"""The registry of metrics: what each is called, means and needs. One file a family.

Used by scoring (computes), scores (keys) and report (names, directions, units). A family turns one
clip into named values, the readings of one prompt's clips into group values, and all clips of a
method beside those of a reference into pooled values. To add a family, write a file like flicker.py
and name it in FAMILY_NAMES. Importing a family's file must stay cheap: torch, cv2 and weights are
loaded by `load`, which runs only when a clip needs them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from dfdbench.utils.errors import unknown_name
from dfdbench.utils.video import Clip

FAMILY_NAMES = (
    "colour",
    "flicker",
    "oracle",
    "camera",
    "vipe",
    "effnet_lite2",
    "rife39",
    "dis_flow",
    "brisque",
    "lpips_alex",
    "clip_vit_l14",
    "clip_vit_l14_cls",
    "dinov2_l",
    "dinov3_l",
    "vbench_subject_consistency",
    "vbench_background_consistency",
    "vbench_aesthetic_quality",
    "vbench_appearance_style",
    "vbench_i2v_subject",
    "vbench_i2v_background",
    "vbench_viclip",
    "vbench_human_action",
    "vbench_motion_smoothness",
    "vbench_dynamic_degree",
    "vbench_static_filter",
    "vbench_imaging_quality",
    "vbench_camera_motion",
    "vbench_bridge",
    "first_frame",
    "oracle_i2v",
)

Direction = Literal["higher", "lower", "nearest_reference"]
Kind = Literal["score", "reading", "array"]
Level = Literal["video", "prompt", "pooled"]
Values = Mapping[str, float | np.ndarray]
Reading = Mapping[str, Any]  # metric name -> float, or array; NaN or None where the clip has none
Compute = Callable[[Clip], Values]


@dataclass(frozen=True)
class Metric:
    """One named number.

    direction: what is better; "nearest_reference" means closest to the teacher or to real clips.
    kind: "score" goes into tables, "reading" (such as a class index) feeds group metrics only,
    "array" is a float array of any shape per clip. level: per clip, per prompt over its clips, or
    "pooled": all clips of a method against those of a reference.
    version: raised whenever the same clip would get another value.
    """

    name: str
    direction: Direction
    unit: str
    range: tuple[float, float]
    source: str
    family: str
    version: int = 1
    kind: Kind = "score"
    level: Level = "video"


class GroupValue(NamedTuple):
    """A value over some clips and the number of clips that it counts."""

    value: float
    n: int


@dataclass(frozen=True)
class Setting:
    """What families may need to know to load: the device of models, a folder of pose files."""

    device: str = "cpu"
    poses: Path | None = None


@dataclass(frozen=True)
class MetricFamily:
    """Metrics that one function computes from one decoded clip.

    policy: which frames it is shown (utils/video.py). load: gives `compute`, Clip -> one value per
    metric of level "video"; a missing name means that the clip has no such value. It is called at
    most once a run, before the first clip that needs it; a fault of the weights is a UserError.
    find: sha256 of the weights that `load` will use, cheap, raises MissingWeights; None: no
    weights. group: readings of the clips of one prompt, the prompt's attributes -> values of level
    "prompt"; versus: those of a method, those of the reference, of one prompt -> the same.
    pool: readings of all clips of a method, those of the reference -> values of level "pooled".
    model: it runs a network, on the device of `Setting`. needs: what of a clip's condition goes
    into its values ("prompt", "image"); a clip without it has none.
    """

    name: str
    policy: str
    metrics: tuple[Metric, ...]
    load: Callable[[Setting], Compute]
    find: Callable[[Setting], str] | None = None
    group: Callable[[Sequence[Reading], Mapping[str, str]], dict[str, GroupValue]] | None = None
    versus: Callable[[Sequence[Reading], Sequence[Reading]], dict[str, GroupValue]] | None = None
    pool: Callable[[Iterable[Reading], Iterable[Reading]], dict[str, GroupValue]] | None = None
    model: bool = False
    needs: tuple[Literal["prompt", "image"], ...] = ()
    dtype: str = "float32"
    min_frames: int = 2

    def at(self, level: Level) -> tuple[Metric, ...]:
        """The metrics of one level."""
        return tuple(metric for metric in self.metrics if metric.level == level)


def plain(compute: Compute) -> Callable[[Setting], Compute]:
    """`load` of a family that needs no model: it gives `compute` itself."""
    return lambda setting: compute


@cache
def get_family(name: str) -> MetricFamily:
    """The family called `name`; its module is imported now."""
    if name not in FAMILY_NAMES:
        raise unknown_name("metric family", name, FAMILY_NAMES)
    module = f"vbench.{name.removeprefix('vbench_')}" if name.startswith("vbench_") else name
    family: MetricFamily = import_module(f"dfdbench.evaluate.metrics.{module}").FAMILY
    return family


def all_metrics() -> dict[str, Metric]:
    """Every metric by name, in the order of the families."""
    return {m.name: m for family in FAMILY_NAMES for m in get_family(family).metrics}


def get_metric(name: str) -> Metric:
    """The metric called `name`; an unknown name is refused with near ones."""
    known = all_metrics()
    if name not in known:
        raise unknown_name("metric", name, known)
    return known[name]
