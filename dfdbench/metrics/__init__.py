"""The registry of metrics: what each is called, means and needs. One file a family.

Used by scoring (computes), scores (keys) and report (names, directions, units). A family turns one
clip into named values; `oracle` also turns the readings of one prompt's clips into group values.
To add a family, write a file like flicker.py and name it in FAMILY_NAMES.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal, NamedTuple

import numpy as np

from dfdbench.errors import unknown_name
from dfdbench.video import Clip

FAMILY_NAMES = ("colour", "flicker", "oracle")

Direction = Literal["higher", "lower", "nearest_reference"]
Kind = Literal["score", "reading", "array"]
Level = Literal["video", "prompt"]
Values = Mapping[str, float | np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One named number.

    direction: what is better; "nearest_reference" means closest to the teacher or to real clips.
    kind: "score" goes into tables, "reading" (such as a class index) feeds group metrics only,
    "array" is a 1-D float array per clip. level: per clip, or per prompt over its clips.
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
    """A value over the clips of one prompt and the number of clips that it counts."""

    value: float
    n: int


@dataclass(frozen=True)
class Family:
    """Metrics that one function computes from one decoded clip.

    policy: which frames it is shown (dfdbench.video). compute: Clip -> one value per metric of
    level "video"; a missing name means that the clip has no such value. group: readings of the
    clips of one prompt (name -> value), the prompt's attributes -> values of level "prompt".
    weights: sha256 of the model's weights, "" for none.
    """

    name: str
    policy: str
    metrics: tuple[Metric, ...]
    compute: Callable[[Clip], Values]
    group: (
        Callable[[Sequence[Mapping[str, float]], Mapping[str, str]], dict[str, GroupValue]] | None
    ) = None
    weights: str = ""
    dtype: str = "float32"
    min_frames: int = 2

    def at(self, level: Level) -> tuple[Metric, ...]:
        """The metrics of one level."""
        return tuple(metric for metric in self.metrics if metric.level == level)


@cache
def get_family(name: str) -> Family:
    """The family called `name`; its module is imported now."""
    if name not in FAMILY_NAMES:
        raise unknown_name("metric family", name, FAMILY_NAMES)
    family: Family = import_module(f"dfdbench.metrics.{name}").FAMILY
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
