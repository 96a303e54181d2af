"""What a metric and a family of metrics are: the types that every file of this folder uses.

A family turns one clip into named values, the readings of one prompt's clips into group values, and
all clips of a method beside those of a reference into pooled values. flicker.py is the smallest
example; registry.py says how a family gets its name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from dfdbench.utils.video import Clip

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
    range: least and largest value. source: paper, network and preprocessing in a line.
    definition: what the number says, in one or two sentences for pages, with a short formula.
    version: raised whenever the same clip would get another value.
    kind: "score" goes into tables, "reading" (such as a class index) feeds group metrics only,
    "array" is a float array of any shape per clip. level: per clip, per prompt over its clips, or
    "pooled": all clips of a method against those of a reference. family: its family sets it.
    """

    name: str
    direction: Direction
    unit: str
    range: tuple[float, float]
    source: str
    definition: str
    version: int = 1
    kind: Kind = "score"
    level: Level = "video"
    family: str = ""


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
    most once a run, before the first clip that needs it; weights that are not here raise
    MissingWeights, any other fault of them UserError.
    find: sha256 of the weights that `load` will use, cheap, raises MissingWeights; None: no
    weights. group: readings of the clips of one prompt, the prompt's attributes -> values of level
    "prompt"; versus: those of a method, those of the reference, of one prompt -> the same.
    pool: readings of all clips of a method, those of the reference -> values of level "pooled".
    model: it runs a network, on the device of `Setting`. needs: what of a clip's condition goes
    into its values ("prompt", "image", "blocks"); a clip without it has none. default: it is one of
    the general families, which suites of any clips are scored with. cuts: whether it reads only the
    beginning of a prompt. least: clips of a prompt that `group` needs.
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
    needs: tuple[Literal["prompt", "image", "blocks"], ...] = ()
    dtype: str = "float32"
    min_frames: int = 2
    default: bool = False
    cuts: Callable[[str], bool] | None = None
    least: int = 2

    def __post_init__(self) -> None:
        own = tuple(replace(metric, family=self.name) for metric in self.metrics)
        object.__setattr__(self, "metrics", own)  # frozen for everyone else

    def at(self, level: Level) -> tuple[Metric, ...]:
        """The metrics of one level."""
        return tuple(metric for metric in self.metrics if metric.level == level)


def is_shared(device: str) -> bool:
    """Whether the clips of several threads share the passes of a network there (joint.py)."""
    return device.startswith("cuda")


def plain(compute: Compute) -> Callable[[Setting], Compute]:
    """`load` of a family that needs no model: it gives `compute` itself."""
    return lambda setting: compute
