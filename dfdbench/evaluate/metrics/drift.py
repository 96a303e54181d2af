"""Drift of saturation, luma, contrast and sharpness in the course of a clip.

Practice for rollouts of autoregressive students (Self Forcing, 2506.08009, and those after it): the
last 5 s against the first 5 s, spread over segments of 2 s, slope. Both lengths are a share of a
clip that is too short for them: a quarter and a tenth. All is computed from every frame, decoded
once; oracle_drift.py does the same with what the toy's oracle reads.
"""

from typing import NamedTuple

import numpy as np

from dfdbench.evaluate.metrics.base import Direction, Metric, MetricFamily, plain
from dfdbench.evaluate.metrics.colour import CHUNK_PIXELS, saturation
from dfdbench.utils.video import LUMA, Clip

WINDOW, SEGMENT = 5.0, 2.0  # seconds at both ends, and of a segment
SHARE, SEGMENTS = 0.25, 10  # of a short clip: share at both ends, and number of segments
SERIES = "drift_series"
QUANTITIES = ("saturation", "luma", "contrast", "sharpness")


class Drift(NamedTuple):
    """How a quantity moves in the course of a clip; NaN where that cannot be said.

    change: mean of the last 5 s minus that of the first 5 s. spread: standard deviation of the
    means of segments. slope: a minute, by least squares.
    """

    change: float
    spread: float
    slope: float


def segments(values: np.ndarray, seconds: float) -> list[np.ndarray]:
    """`values`, whose first axis is time, in equal segments: as many as there are 2 s, at least 10.

    Of fewer values as many segments as values. Segments differ by one value at most.
    """
    count = max(SEGMENTS, round(seconds / SEGMENT))
    return np.array_split(values, min(count, len(values)))


def drift(values: np.ndarray, seconds: float) -> Drift:
    """The drift of a quantity.

    Args:
        values: float (N,), each of one of N equal parts of the clip, such as its frames; NaN where
            there is none.
        seconds: of the whole clip.
    """
    times = (np.arange(len(values)) + 0.5) * (seconds / len(values))
    window = min(WINDOW, SHARE * seconds)
    change = _mean(values[times >= seconds - window]) - _mean(values[times <= window])
    means = np.array([_mean(part) for part in segments(values, seconds)])
    means = means[np.isfinite(means)]
    there = np.isfinite(values)
    enough = there.sum() > 1
    slope = 60 * float(np.polyfit(times[there], values[there], 1)[0]) if enough else np.nan
    return Drift(change, float(means.std()) if len(means) > 1 else np.nan, slope)


def _mean(values: np.ndarray) -> float:
    """Of those that are numbers; NaN of none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else np.nan


def sharpness(luma_THW: np.ndarray) -> np.ndarray:
    """Root mean square gradient of luma (T H W), central differences inside the edges: (T,).

    The square root of Tenenbaum's gradient energy (Tenengrad; Krotkov 1987).
    """
    x = (luma_THW[:, 1:-1, 2:] - luma_THW[:, 1:-1, :-2]) / 2
    y = (luma_THW[:, 2:, 1:-1] - luma_THW[:, :-2, 1:-1]) / 2
    return np.sqrt(np.square(x).mean((1, 2), dtype=np.float64) + np.square(y).mean((1, 2)))


def per_frame(frames_THWC: np.ndarray) -> np.ndarray:
    """QUANTITIES of each frame of uint8 RGB (T H W 3): float64 (T, 4).

    Luma and contrast in units of 1, sharpness in 8-bit levels a pixel.
    """
    luma = frames_THWC @ (LUMA / 255)
    return np.stack(
        [
            saturation(frames_THWC).mean((1, 2), dtype=np.float64),
            luma.mean((1, 2), dtype=np.float64),
            luma.std((1, 2), dtype=np.float64),
            255 * sharpness(luma) if min(luma.shape[1:]) > 2 else np.full(len(luma), np.nan),
        ],
        axis=1,
    )


def compute(clip: Clip) -> dict[str, float | np.ndarray]:
    """All values of the family, of every frame of a clip."""
    frames = clip.frames
    size = max(1, CHUNK_PIXELS // (frames.shape[1] * frames.shape[2]))
    values = np.concatenate([per_frame(frames[i : i + size]) for i in range(0, len(frames), size)])
    seconds = len(frames) / clip.fps
    found: dict[str, float | np.ndarray] = {}
    for name, own in zip(QUANTITIES, values.T, strict=True):
        found |= named(f"drift_{name}", drift(own, seconds))
    means = [part.mean(0) for part in segments(values, seconds)]
    return found | {SERIES: np.stack(means).astype(np.float32)}


def named(name: str, found: Drift) -> dict[str, float]:
    """The values of a `Drift` by the names of `drift_metrics`."""
    return {name: found.change, f"{name}_spread": found.spread, f"{name}_slope": found.slope}


def drift_metrics(name: str, what: str, unit: str, high: float, source: str) -> list[Metric]:
    """The three metrics of a quantity: change, spread and slope.

    Args:
        what: the quantity in words, such as "mean luma". high: the most that it can be.
    """

    def metric(end: str, unit: str, least: float, most: float, text: str) -> Metric:
        direction: Direction = "lower" if end == "_spread" else "nearest_reference"
        return Metric(f"{name}{end}", direction, unit, (least, most), f"{source}; {what}", text)

    a_minute = f"{unit}/min" if unit else "1/min"
    return [
        metric(
            "", unit, -high, high,
            f"Change of {what} in the course of a clip: mean of the last 5 s minus mean of the "
            "first 5 s (a quarter of the clip, where that is less). 0 is no drift.",
        ),
        metric(
            "_spread", unit, 0, high,
            f"How unsteady {what} is: standard deviation of its means in segments of 2 s (a tenth "
            "of the clip, where that is less).",
        ),
        metric(
            "_slope", a_minute, -1e5 * high, 1e5 * high,
            f"Change of {what} a minute, by least squares over the clip. 0 is no drift.",
        ),
    ]  # fmt: skip


def by_kind(metrics: list[list[Metric]]) -> tuple[Metric, ...]:
    """Changes of all quantities first, then spreads, then slopes."""
    return tuple(metric for kind in zip(*metrics, strict=True) for metric in kind)


PRACTICE = "long rollouts of autoregressive students: last minus first 5 s, 2-s segments, slope"
FAMILY = MetricFamily(
    "drift",
    policy="all",
    metrics=(
        *by_kind(
            [
                drift_metrics("drift_saturation", "mean HSV saturation", "", 1, PRACTICE),
                drift_metrics("drift_luma", "mean luma (Rec. 709, 0 to 1)", "", 1, PRACTICE),
                drift_metrics(
                    "drift_contrast", "contrast (standard deviation of luma)", "", 0.5, PRACTICE
                ),
                drift_metrics(
                    "drift_sharpness", "sharpness (root mean square gradient of luma, 0 to 255)",
                    "levels/pixel", 181, PRACTICE,
                ),
            ]
        ),
        Metric(
            SERIES, "nearest_reference", "", (0.0, 181.0), PRACTICE,
            "Mean saturation, luma, contrast and sharpness of each segment of a clip.",
            kind="array",
        ),
    ),
    load=plain(compute),
)  # fmt: skip
