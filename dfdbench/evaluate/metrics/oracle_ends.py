"""Diversity of the toy's clips in their first frame and in their last, each read as a still.

Suite ar-toy scores its clips of the trained length with it. The first latent frame is one frame and
the first block of a causal student with blocks of one, so what differs between the openings of a
caption's clips was settled in that block, and what differs between their endings after the last.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, plain
from dfdbench.evaluate.metrics.modes import MIN_CLIPS, OPEN, gini_values, labels_of, mean_gini
from dfdbench.evaluate.metrics.oracle import reading_metric, values_of
from dfdbench.evaluate.metrics.oracle_drift import LEAST
from dfdbench.utils.video import Clip

ENDS = {"opening": 0, "ending": -1}  # prefix of the metrics' names -> frame
STILL = ("hue", "size")  # of what captions leave open, what a still shows


def compute(clip: Clip) -> dict[str, float]:
    """Classes of STILL in the first frame and the last, and whether the sprite is whole there."""
    found: dict[str, float] = {}
    for end, frame in ENDS.items():
        # The oracle looks for movement: of a still it finds none, and reads the rest.
        values = values_of(np.repeat(clip.frames[frame][None], LEAST, 0))
        found |= {f"{end}_{name}": values[f"oracle_{name}"] for name in STILL}
        found[f"{end}_intact"] = values["sprite_intact"]
    return found


def group(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Gini–Simpson indices of what a caption leaves open, over its clips that are whole there."""
    values: dict[str, GroupValue] = {}
    names = [name for name in STILL if name not in attributes]
    for end in ENDS:
        labels = labels_of(readings, names, end, f"{end}_intact")
        if ginis := gini_values(labels):
            values |= {f"{end}_{name}_gini": gini for name, gini in ginis.items()}
            values[f"{end}_gini"] = mean_gini(ginis)
    return values


def _gini(end: str, name: str, what: str) -> Metric:
    return Metric(
        f"{end}_{name}gini", "higher", "", (0.0, 2.0),
        f"Gini–Simpson index, unbiased, in the {end} frame, over clips whole there",
        f"How often two clips of one prompt differ in {what} in their {end} frame, over uniform "
        f"draws. Needs {MIN_CLIPS} that are whole there.",
        level="prompt",
    )  # fmt: skip


def _of_end(end: str) -> list[Metric]:
    return [
        *(reading_metric(name, OPEN[name], end, f"its {end} frame") for name in STILL),
        Metric(
            f"{end}_intact",
            "higher",
            "",
            (0.0, 1.0),
            "one sprite of known outline",
            f"1 if a clip's {end} frame shows one whole sprite of a known outline, else 0.",
        ),
        *(_gini(end, f"{name}_", name) for name in STILL),
        _gini(end, "", "hue and size, on average"),
    ]


FAMILY = MetricFamily(
    "oracle_ends",
    policy="all",
    metrics=tuple(metric for end in ENDS for metric in _of_end(end)),
    load=plain(compute),
    group=group,
    least=MIN_CLIPS,
)
