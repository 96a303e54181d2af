"""Diversity and fidelity on the toy, where the free attributes can be read from the pixels.

Suite toy-t2v is scored with it. Per clip it stores what dfdbench.toy.oracle reads; per prompt it
turns the readings into entropies of the free attributes (hue, direction, pan), joint coverage and
accuracy of what the caption fixes (shape, scene). Entropies and coverage count intact sprites only
(n says how many); with fewer than 2 they are missing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, plain
from dfdbench.utils.video import Clip

FREE = {"hue": 6, "direction": 8, "pan": 3}  # classes of each free attribute
CELLS = int(np.prod(list(FREE.values())))
FIXED = ("shape", "scene")
MIN_CLIPS = 2


def miller_madow(counts: np.ndarray) -> float:
    """Entropy in nats, corrected for the number of draws: −Σ p̂ log p̂ + (m − 1)/(2n).

    m: classes seen, n: draws. Miller 1955; the plain estimate is too small by about (K − 1)/(2n).
    counts: int (K,), at least one above 0.
    """
    seen = counts[counts > 0]
    n = seen.sum()
    p = seen / n
    return float(-(p * np.log(p)).sum() + (len(seen) - 1) / (2 * n))


def normalised_entropy(labels: np.ndarray, classes: int) -> float:
    """Miller–Madow entropy of int `labels` (n,) in units of log `classes`.

    0: always the same class; 1: uniform. Not clipped at 1: the correction makes the mean over
    prompts right, and clipping would push it down again. Mean of 3,000 uniform draws for 6, 8 and
    3 classes: .98 .97 1.00 at n = 16, but .92 .88 .97 at n = 8, so compare arms at like n.
    """
    return miller_madow(np.bincount(labels, minlength=classes)) / float(np.log(classes))


def expected_cells(n: int, probabilities: np.ndarray) -> float:
    """Distinct cells that n independent draws show in expectation: Σ 1 − (1 − p_i)ⁿ."""
    return float((1 - (1 - probabilities) ** n).sum())


def rarefied_cells(n: int, counts: np.ndarray) -> float:
    """Distinct cells expected in n of the N = Σ counts clips of a reference, without replacement.

    Hurlbert 1971: Σ 1 − C(N − N_i, n) / C(N, n). Needs n at most N.
    """
    total = int(counts.sum())
    if n > total:
        raise ValueError(f"{n} clips cannot be drawn from a reference of {total}")
    drawn = np.arange(n)
    # Each factor is the chance that one more draw misses cell i; at 0 or below it cannot miss.
    factors = (total - counts[:, None] - drawn) / (total - drawn)
    return float((1 - np.clip(factors, 0, None).prod(1)).sum())


def joint_cells(readings: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Cell (hue, direction, pan) of each intact clip: int (n,) in [0, 144)."""
    labels = _intact_labels(readings)
    return np.ravel_multi_index(tuple(labels[name] for name in FREE), tuple(FREE.values()))


def _intact_labels(readings: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Class indices of the free attributes over clips with an intact, fully read sprite."""
    rows = [[r[f"oracle_{name}"] for name in FREE] for r in readings if r["sprite_intact"] == 1]
    table = np.array([row for row in rows if min(row) >= 0], dtype=int).reshape(-1, len(FREE))
    return {name: table[:, i] for i, name in enumerate(FREE)}


def group(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Values over the clips of one prompt.

    Args:
        readings: one mapping a clip, with the family's names of level "video".
        attributes: what the caption fixes, such as {"shape": "ball", "scene": "city"}; {} leaves
            the accuracies out.
    """
    values: dict[str, GroupValue] = {}
    labels = _intact_labels(readings)
    n = len(labels["hue"])
    if n >= MIN_CLIPS:
        for name, classes in FREE.items():
            values[f"{name}_entropy"] = GroupValue(normalised_entropy(labels[name], classes), n)
        distinct = len(np.unique(joint_cells(readings)))
        uniform = expected_cells(n, np.full(CELLS, 1 / CELLS))
        values["joint_cells"] = GroupValue(float(distinct), n)
        values["joint_coverage"] = GroupValue(distinct / uniform, n)
    return values | _accuracies(readings, attributes)


def _accuracies(
    readings: Sequence[Mapping[str, float]], attributes: Mapping[str, str]
) -> dict[str, GroupValue]:
    """Shares of all clips, intact or not, in which the oracle reads what the caption says."""
    if not readings or any(name not in attributes for name in FIXED):
        return {}
    from dfdbench.toy import world

    classes = {"shape": world.SHAPES, "scene": world.SCENES}
    right = {
        name: np.array([r[f"oracle_{name}"] for r in readings])
        == classes[name].index(attributes[name])
        for name in FIXED
    }
    right["prompt"] = right["shape"] & right["scene"]
    return {f"{k}_accuracy": GroupValue(float(v.mean()), len(v)) for k, v in right.items()}


def values_of(frames: np.ndarray) -> dict[str, float]:
    """What the oracle reads in uint8 frames (T H W 3); a broken sprite's figures are left out."""
    from dfdbench.toy import oracle

    reading = oracle.read(frames)
    values = {f"oracle_{name}": float(getattr(reading, name)) for name in (*FIXED, *FREE)}
    values["sprite_intact"] = float(reading.intact)
    if reading.intact:
        values["sprite_saturation"] = float(reading.saturation)
        values["sprite_area"] = float(reading.area)
        values["sprite_speed"] = float(reading.speed)
    return values


def compute(clip: Clip) -> dict[str, float]:
    """`values_of` a decoded clip."""
    return values_of(clip.frames)


def _reading(name: str, classes: int) -> Metric:
    return Metric(
        f"oracle_{name}", "nearest_reference", "class", (-1, classes - 1),
        "toy oracle: class index, -1 where it cannot be read",
        f"Number of the {name}'s class that the oracle reads in the clip; −1 where it cannot.",
        kind="reading",
    )  # fmt: skip


def _sprite(name: str, unit: str, high: float, source: str, definition: str) -> Metric:
    return Metric(f"sprite_{name}", "nearest_reference", unit, (0.0, high), source, definition)


def _group(name: str, high: float, source: str, definition: str, unit: str = "") -> Metric:
    return Metric(name, "higher", unit, (0.0, high), source, definition, level="prompt")


def _accuracy(name: str, what: str) -> Metric:
    source = f"share of a prompt's clips in which the oracle reads what the caption fixes: {name}"
    definition = f"Share of a prompt's clips, whole or not, that show the caption's {what}."
    return _group(f"{name}_accuracy", 1, source, definition)


ENTROPY = "Miller–Madow entropy over intact clips of one prompt / log of the classes; not clipped"
FAMILY = MetricFamily(
    "oracle",
    policy="all",
    metrics=(
        _reading("shape", 4),
        _reading("scene", 3),
        *(_reading(name, classes) for name, classes in FREE.items()),
        Metric(
            "sprite_intact", "higher", "", (0.0, 1.0), "one sprite of known outline",
            "1 if at least 80 % of a clip's frames show one whole sprite of a known outline, else "
            "0; its mean is the share of clips that came out whole.",
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
        *(
            _group(
                f"{name}_entropy", 1.5, ENTROPY,
                f"How evenly the whole clips of one prompt spread over the {classes} classes of "
                f"{name}, which the caption leaves open: entropy (Miller–Madow) / log {classes}. "
                "0 if always the same, about 1 if uniform.",
            )
            for name, classes in FREE.items()
        ),
        _group(
            "joint_cells", CELLS, "distinct (hue, direction, pan) cells of a prompt",
            f"Number of distinct (hue, direction, pan) cells, of {CELLS}, among the whole clips of "
            "one prompt. It grows with the number of clips.", "cells",
        ),
        _group(
            "joint_coverage", CELLS,
            "distinct (hue, direction, pan) cells / as many uniform draws show in expectation",
            "Distinct (hue, direction, pan) cells among the n whole clips of one prompt over those "
            "that n uniform draws show in expectation, Σ 1 − (1 − 1/cells)ⁿ.",
        ),
        _accuracy("shape", "shape"),
        _accuracy("scene", "scene"),
        _accuracy("prompt", "shape and scene"),
    ),
    load=plain(compute),
    group=group,
    min_frames=5,
)  # fmt: skip
