"""Drift on the toy: what the oracle reads in each part of a long clip, from first to last.

Suite ar-toy scores its long clips with it. A clip is cut as drift.py cuts it, the oracle reads each
part as a clip of its own, and the readings over time get the same three numbers. Whether class
attributes stay what they were, and how diverse a prompt's clips are in the first part and in the
last, is said beside them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, Reading, plain
from dfdbench.evaluate.metrics.drift import by_kind, drift, drift_metrics, named, segments
from dfdbench.evaluate.metrics.modes import MIN_CLIPS, OPEN, gini_values
from dfdbench.evaluate.metrics.oracle import values_of
from dfdbench.utils.video import Clip

LEAST = 5  # frames that the oracle reads
PARTS = "oracle_parts"
MOVING = ("sprite_intact", "sprite_saturation", "sprite_area", "sprite_speed")
CLASSES = ("oracle_shape", "oracle_scene", *(f"oracle_{name}" for name in OPEN))
COLUMNS = (*MOVING, *CLASSES)
KEPT = ("shape", "scene", "hue")  # what a clip should not change


def read_parts(frames: np.ndarray, seconds: float) -> np.ndarray:
    """COLUMNS of each part of uint8 frames (T H W 3): float64 (P, 10), NaN where there is none.

    Classes are -1 where they cannot be read. Parts are the segments of drift.py, fewer where they
    would have less than 5 frames.
    """
    few = min(len(segments(frames, seconds)), max(1, len(frames) // LEAST))
    rows = [values_of(part) for part in np.array_split(frames, few)]
    return np.array([[row.get(name, np.nan) for name in COLUMNS] for row in rows], np.float64)


def kept(classes: np.ndarray) -> float:
    """Share of the later parts that read the class of the first: int (P,), -1 where none is read.

    NaN where fewer than two parts can be read.
    """
    read = classes[classes >= 0]
    return float((read[1:] == read[0]).mean()) if len(read) > 1 else np.nan


def compute(clip: Clip) -> dict[str, float | np.ndarray]:
    """All values of the family of a clip."""
    seconds = len(clip.frames) / clip.fps
    parts = read_parts(clip.frames, seconds)
    column = dict(zip(COLUMNS, parts.T, strict=True))
    found: dict[str, float | np.ndarray] = {PARTS: parts.astype(np.float32)}
    for name in MOVING:
        found |= named(f"drift_{name}", drift(column[name], seconds))
    whole = column["sprite_intact"] == 1
    for name in KEPT:
        read = column[f"oracle_{name}"]
        found[f"kept_{name}"] = kept(read if name == "scene" else np.where(whole, read, -1))
    return found


def spread_over_time(clips: Sequence[np.ndarray]) -> dict[str, list[GroupValue | None]]:
    """Attribute → Gini–Simpson index over a prompt's clips (P, 10) in each part, of those whole
    there; None of fewer than MIN_CLIPS."""
    found: dict[str, list[GroupValue | None]] = {name: [] for name in OPEN}
    for rows in np.stack(clips, 1) if clips else ():  # of a part: (clips, 10)
        read = {name: rows[:, COLUMNS.index(f"oracle_{name}")] for name in OPEN}
        ginis = gini_values(
            {name: own[(rows[:, 0] == 1) & (own >= 0)].astype(int) for name, own in read.items()}
        )
        for name in OPEN:
            found[name].append(ginis.get(name))
    return found


def group(readings: Sequence[Reading], attributes: Mapping[str, str]) -> dict[str, GroupValue]:
    """Gini–Simpson indices of the first part and the last, over the clips of one prompt."""
    clips = [own for r in readings if isinstance(own := r[PARTS], np.ndarray)]
    if len({clip.shape for clip in clips}) != 1:
        return {}
    values: dict[str, GroupValue] = {}
    for name, over_time in spread_over_time(clips).items():
        ends = {f"{name}_gini_first": over_time[0], f"{name}_gini_last": over_time[-1]}
        values |= {key: value for key, value in ends.items() if value}
    return values


def _kept(name: str) -> Metric:
    return Metric(
        f"kept_{name}", "higher", "", (0.0, 1.0),
        f"toy oracle: share of later parts with the {name} of the first part",
        f"How well a long clip keeps its {name}: share of its later parts in which the oracle "
        "reads the class of the first one.",
    )  # fmt: skip


def _gini(name: str, end: str) -> Metric:
    return Metric(
        f"{name}_gini_{end}", "higher", "", (0.0, 2.0),
        f"Gini–Simpson index, unbiased, in the {end} part, over clips whole there",
        f"How often two of the clips of one prompt differ in {name} in the {end} tenth of a long "
        f"clip, as {name}_gini says it of whole clips. Needs {MIN_CLIPS} that are whole there.",
        level="prompt",
    )  # fmt: skip


SOURCE = "toy oracle, each segment read as a clip"
FAMILY = MetricFamily(
    "oracle_drift",
    policy="all",
    metrics=(
        *by_kind(
            [
                drift_metrics(
                    "drift_sprite_intact", "the share of segments with a whole sprite", "", 1,
                    SOURCE,
                ),
                drift_metrics(
                    "drift_sprite_saturation", "the sprite's saturation where it is whole", "", 1,
                    SOURCE,
                ),
                drift_metrics(
                    "drift_sprite_area", "the sprite's area where it is whole", "pixels", 4096,
                    SOURCE,
                ),
                drift_metrics(
                    "drift_sprite_speed", "the sprite's speed where it is whole", "pixels/frame",
                    64, SOURCE,
                ),
            ]
        ),
        *(_kept(name) for name in KEPT),
        *(_gini(name, end) for name in OPEN for end in ("first", "last")),
        Metric(
            PARTS, "nearest_reference", "", (-1, 4096), SOURCE,
            f"What the oracle reads in each segment of a clip: {', '.join(COLUMNS)}.",
            kind="array",
        ),
    ),
    load=plain(compute),
    group=group,
    least=MIN_CLIPS,
    min_frames=LEAST,
)  # fmt: skip
