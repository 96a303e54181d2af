"""Diversity and fidelity on the toy, where what a caption leaves open can be read from the pixels.

The suites of toy text to video are scored with it. Per clip it stores what dfdbench.toy.oracle
reads; per prompt it turns the readings into the spread of what the caption leaves open
(metrics/modes.py) and the accuracy of what it fixes.
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
from dfdbench.utils.video import Clip

READ = {"shape": 4, "scene": 4} | OPEN  # classes of what is read
FIXABLE = ("shape", "scene", "hue", "direction")  # what captions may name
VERSION = 2


def open_labels(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Attribute → class index of each whole clip, int (n,), of what the caption leaves open."""
    names = [name for name in OPEN if name not in attributes]
    return labels_of(readings, names, "oracle", "sprite_intact")


def group(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Values over the clips of one prompt.

    Args:
        readings: one mapping a clip, with the family's names of level "video".
        attributes: what the caption fixes, such as {"shape": "ball", "scene": "city"}; {} leaves
            the accuracies out.
    """
    values = diversity_values(open_labels(readings, attributes), len(readings))
    return values | _accuracies(readings, attributes)


def _accuracies(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Shares of all clips, whole or not, in which the oracle reads what the caption says."""
    fixed = [name for name in FIXABLE if name in attributes]
    if not readings or not fixed:
        return {}
    from dfdbench.toy import world

    names = {
        "shape": world.SHAPES, "scene": world.SCENES,
        "hue": world.HUE_NAMES, "direction": world.DIRECTION_NAMES,
    }  # fmt: skip
    right = {
        name: np.array([r[f"oracle_{name}"] for r in readings])
        == names[name].index(attributes[name])
        for name in fixed
    }
    right["prompt"] = np.all(list(right.values()), axis=0)
    return {f"{k}_accuracy": GroupValue(float(v.mean()), len(v)) for k, v in right.items()}


def versus(
    readings: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]]
) -> dict[str, GroupValue]:
    """Recall of the modes that a reference's whole clips of the same prompt show."""
    return recall(open_labels(readings, {}), open_labels(reference, {}), len(readings))


def values_of(frames: np.ndarray) -> dict[str, float]:
    """What the oracle reads in uint8 frames (T H W 3); a broken sprite's figures are left out."""
    from dfdbench.toy import oracle

    reading = oracle.read(frames)
    values = {f"oracle_{name}": float(getattr(reading, name)) for name in READ}
    values["sprite_intact"] = float(reading.intact)
    if reading.intact:
        values["sprite_saturation"] = float(reading.saturation)
        values["sprite_area"] = float(reading.area)
        values["sprite_speed"] = float(reading.speed)
    return values


def compute(clip: Clip) -> dict[str, float]:
    """`values_of` a decoded clip."""
    return values_of(clip.frames)


def reading_metric(
    name: str, classes: int, prefix: str = "oracle", where: str = "the clip"
) -> Metric:
    """The declaration of a class index that the oracle reads."""
    return Metric(
        f"{prefix}_{name}", "nearest_reference", "class", (-1, classes - 1),
        "toy oracle: class index, -1 where it cannot be read",
        f"Number of the {name}'s class that the oracle reads in {where}; −1 where it cannot.",
        VERSION, kind="reading",
    )  # fmt: skip


def _sprite(name: str, unit: str, high: float, source: str, definition: str) -> Metric:
    limits = (0.0, high)
    return Metric(f"sprite_{name}", "nearest_reference", unit, limits, source, definition, VERSION)


def _accuracy(name: str, what: str) -> Metric:
    return Metric(
        f"{name}_accuracy", "higher", "", (0.0, 1.0),
        f"share of a prompt's clips in which the oracle reads what the caption fixes: {name}",
        f"Share of a prompt's clips, whole or not, that show the caption's {what}.",
        VERSION, level="prompt",
    )  # fmt: skip


FAMILY = MetricFamily(
    "oracle",
    policy="all",
    metrics=(
        *(reading_metric(name, classes) for name, classes in READ.items()),
        Metric(
            "sprite_intact", "higher", "", (0.0, 1.0), "one sprite of known outline",
            "1 if at least 80 % of a clip's frames show one whole sprite of a known outline, else "
            "0; its mean is the share of clips that came out whole.", VERSION,
        ),
        _sprite(
            "saturation", "", 1, "median HSV saturation inside an intact sprite",
            "Median HSV saturation of the sprite's pixels, in clips whose sprite is whole.",
        ),
        _sprite(
            "area", "pixels", 4096, "mean area of an intact sprite",
            "Mean number of pixels of the sprite, in clips whose sprite is whole.",
        ),
        _sprite(
            "speed", "pixels/frame", 64, "speed of an intact sprite's centre",
            "How far the sprite's centre moves a frame, in clips whose sprite is whole.",
        ),
        *diversity_metrics("whole clips"),
        recall_metric("whole clips"),
        *(_accuracy(name, name) for name in FIXABLE),
        _accuracy("prompt", "shape and scene, and hue and direction where it names them"),
    ),
    load=plain(compute),
    group=group,
    least=MIN_CLIPS,
    versus=versus,
    min_frames=5,
)  # fmt: skip
