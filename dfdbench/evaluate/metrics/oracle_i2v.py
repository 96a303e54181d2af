"""Fidelity and diversity of image to video on the toy: does the picture's sprite go on, and how?

Suite toy-i2v is scored with it, where all clips of a prompt are given one picture. It shows shape,
scene and where a sprite starts, still white and small; hue, size, direction and pan stay open. A
clip continues its picture if it then shows one whole sprite of the picture's shape that comes from
there in steady motion (dfdbench.toy.oracle.continues). Only such clips count in the spread of what
is open (metrics/modes.py).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, plain
from dfdbench.evaluate.metrics.modes import (
    MIN_CLIPS,
    OPEN,
    diversity_metrics,
    diversity_values,
    labels_of,
    recall,
    recall_metric,
)
from dfdbench.evaluate.metrics.oracle import VERSION, reading_metric
from dfdbench.utils.video import Clip

SUFFIX = "_given_image"


def compute(clip: Clip) -> dict[str, float]:
    """What the oracle reads in a clip beside its picture; nothing without a picture."""
    from dfdbench.toy import oracle, world

    if clip.image is None:
        return {}
    reading = oracle.read(clip.frames[world.REVEALED :])
    values = {f"i2v_{name}": float(getattr(reading, name)) for name in OPEN}
    goes_on = oracle.continues(reading, oracle.read_hidden(clip.image))
    values["sprite_continues"] = float(goes_on)
    if goes_on:
        values[f"sprite_saturation{SUFFIX}"] = float(reading.saturation)
    return values


def _labels(readings: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Attribute → class index of each clip that continues its picture, int (n,)."""
    return labels_of(readings, list(OPEN), "i2v", "sprite_continues")


def group(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Spread of what is open over the clips of one picture that continue it."""
    return diversity_values(_labels(readings), len(readings), SUFFIX)


def versus(
    readings: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]]
) -> dict[str, GroupValue]:
    """Recall of the modes in which a reference's clips continue the same picture."""
    return recall(_labels(readings), _labels(reference), len(readings), SUFFIX)


FAMILY = MetricFamily(
    "oracle_i2v",
    policy="all",
    metrics=(
        *(reading_metric(name, classes, "i2v") for name, classes in OPEN.items()),
        Metric(
            "sprite_continues", "higher", "", (0.0, 1.0),
            "one whole sprite of the picture's shape, from its place, moving steadily",
            "1 if the sprite of the given picture goes on through the clip, whole, of its shape, "
            "from its place and in steady motion, else 0; its mean is the share of such clips.",
            VERSION,
        ),
        Metric(
            f"sprite_saturation{SUFFIX}", "nearest_reference", "", (0.0, 1.0),
            "median HSV saturation inside a sprite that continues the picture",
            "Median HSV saturation of the sprite's pixels once it has its own colour, in clips that"
            " continue their picture.",
        ),
        *diversity_metrics("clips that continue the picture", SUFFIX),
        recall_metric("clips that continue the picture", SUFFIX),
    ),
    load=plain(compute),
    group=group,
    least=MIN_CLIPS,
    versus=versus,
    needs=("image",),
    min_frames=13,
)  # fmt: skip
