"""Colour and saturation of a clip, and distances between saturation histograms.

`wasserstein` also serves the figures of report. RGB is taken as sRGB in
[0, 1]; every value is computed per frame and averaged over frames. Over-saturation is the fault
that Data-Forcing Distillation reports of DMD2; neither more nor less is better by itself,
so the direction is nearest_reference.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import GroupValue, Level, Metric, MetricFamily, Reading, plain
from dfdbench.utils.video import LUMA, Clip

HISTOGRAM_BINS = 256
CHUNK_PIXELS = 1 << 19  # pixels worked on at once: bounds memory, changes no value
# Linear sRGB -> CIE XYZ (IEC 61966-2-1), rows divided by the D65 white (0.95047, 1, 1.08883).
RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


def _linear_of_byte() -> np.ndarray:
    """Linear light of the 256 sRGB codes, float32 in [0, 1]."""
    code = np.arange(256) / 255
    linear = np.where(code > 0.04045, ((code + 0.055) / 1.055) ** 2.4, code / 12.92)
    return linear.astype(np.float32)


LINEAR = _linear_of_byte()


def _extremes(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and smallest channel; ten times as fast as max(-1) on an axis of three."""
    r, g, b = np.moveaxis(frames, -1, 0)
    return np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)


def saturation(frames: np.ndarray) -> np.ndarray:
    """HSV saturation (max − min) / max, 0 where max is 0: uint8 (…, 3) -> float32 (…) in [0, 1]."""
    high, low = _extremes(frames)
    return (high - low).astype(np.float32) / np.maximum(high, 1)


def chroma(frames: np.ndarray) -> np.ndarray:
    """CIELAB C* = √(a² + b²), D65, 2° observer: uint8 sRGB (…, 3) -> float32 (…)."""
    xyz = LINEAR[frames] @ RGB_TO_XYZ.astype(np.float32).T
    # CIE 1976: cube root, and its tangent below (6/29)³
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + np.float32(16 / 116))
    a, b = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    return np.hypot(a, b)


def colourfulness(frames_TP3: np.ndarray) -> np.ndarray:
    """Hasler & Süsstrunk 2003, M3, 8-bit scale: uint8 (T, pixels, 3) -> float64 (T,).

    rg = R − G, yb = (R + G)/2 − B, both signed; √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²).
    """
    r, g, b = np.moveaxis(frames_TP3.astype(np.float32), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    spread = np.hypot(rg.std(1, dtype=np.float64), yb.std(1, dtype=np.float64))
    return spread + 0.3 * np.hypot(rg.mean(1, dtype=np.float64), yb.mean(1, dtype=np.float64))


def saturation_histogram(saturation_TP: np.ndarray) -> np.ndarray:
    """Share of pixels in 256 equal bins over [0, 1], per frame: (T, pixels) -> float64 (T, 256)."""
    bins = np.minimum((saturation_TP * HISTOGRAM_BINS).astype(np.intp), HISTOGRAM_BINS - 1)
    counts = np.stack([np.bincount(row, minlength=HISTOGRAM_BINS) for row in bins])
    return counts / counts.sum(1, keepdims=True)


def wasserstein(p: np.ndarray, q: np.ndarray) -> float:
    """1-D Wasserstein distance of two histograms over [0, 1] with equal bins: ∫|F_p − F_q|.

    Exact for mass at bin centres; against the pixels themselves at most one bin width off. It can
    also be the difference of a method's and the teacher's histograms, averaged over clips first.
    """
    p, q = p / p.sum(), q / q.sum()
    return float(np.abs(np.cumsum(p - q)).sum() / len(p))


def _per_frame(frames_THWC: np.ndarray) -> dict[str, np.ndarray]:
    """Every per-frame figure of uint8 (T, H, W, 3): float64 (T,), the histogram (T, 256)."""
    pixels = frames_THWC.reshape(len(frames_THWC), -1, 3)
    s = saturation(pixels)
    high, low = _extremes(pixels)
    value = high.astype(np.float32) / 255
    return {
        "saturation_mean": s.mean(1, dtype=np.float64),
        "saturation_p95": np.percentile(s, 95, axis=1).astype(np.float64),
        "saturation_share_09": (s > 0.9).mean(1),
        "sv_mean": (s * value).mean(1, dtype=np.float64),
        "chroma_mean": chroma(pixels).mean(1, dtype=np.float64),
        "colourfulness_m3": colourfulness(pixels),
        "clipped_low": (low <= 1).mean(1),
        "clipped_high": (high >= 254).mean(1),
        "contrast_rms": (pixels @ LUMA / 255).std(1, dtype=np.float64),
        "saturation_histogram": saturation_histogram(s),
    }


def compute(clip: Clip) -> dict[str, float | np.ndarray]:
    """All values of the family; `saturation_drift` is per second, by least squares over frames."""
    size = max(1, CHUNK_PIXELS // (clip.frames.shape[1] * clip.frames.shape[2]))
    chunks = [_per_frame(clip.frames[i : i + size]) for i in range(0, len(clip.frames), size)]
    frame_values = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
    values: dict[str, float | np.ndarray] = {}
    for name, per_frame in frame_values.items():
        values[name] = float(per_frame.mean()) if per_frame.ndim == 1 else per_frame.mean(0)
    seconds = clip.indices / clip.fps
    values["saturation_drift"] = float(np.polyfit(seconds, frame_values["saturation_mean"], 1)[0])
    return values


def _mean_histogram(readings: Iterable[Reading]) -> np.ndarray:
    return np.mean([reading["saturation_histogram"] for reading in readings], axis=0)


def versus(readings: Sequence[Reading], reference: Sequence[Reading]) -> dict[str, GroupValue]:
    """Wasserstein distance of one prompt's mean saturation histogram to the reference's."""
    distance = wasserstein(_mean_histogram(readings), _mean_histogram(reference))
    return {"saturation_wasserstein": GroupValue(distance, len(readings))}


def pool(readings: Iterable[Reading], reference: Iterable[Reading]) -> dict[str, GroupValue]:
    """The same over all clips, whatever their prompts."""
    clips = list(readings)
    distance = wasserstein(_mean_histogram(clips), _mean_histogram(reference))
    return {"saturation_wasserstein_pooled": GroupValue(distance, len(clips))}


def _metric(name: str, unit: str, high: float, source: str, what: str, low: float = 0.0) -> Metric:
    definition = f"{what}; mean over 16 frames."
    return Metric(name, "nearest_reference", unit, (low, high), source, definition)


def _distance(name: str, whose: str, level: Level) -> Metric:
    source = f"1-D Wasserstein distance of the mean saturation histogram {whose}"
    definition = (
        f"Distance of the distribution of saturation over the pixels {whose}, in units of "
        "saturation: ∫ |F − F_reference|. 0 if they are the same."
    )
    return Metric(name, "lower", "", (0.0, 1.0), source, definition, level=level)


HSV = "HSV saturation S = (max − min)/max"
OF_PIXELS = f"{HSV} over a pixel's channels (0 grey, 1 pure colour)"
FAMILY = MetricFamily(
    "colour",
    policy="even16",
    metrics=(
        _metric("saturation_mean", "", 1, f"{HSV}, mean", f"Mean {OF_PIXELS}"),
        _metric(
            "saturation_p95", "", 1, f"{HSV}, 95th percentile",
            f"The value that 95 % of a frame's pixels stay below in {OF_PIXELS}",
        ),
        _metric(
            "saturation_share_09", "", 1, f"{HSV}, share of pixels above 0.9",
            "Share of pixels that are all but pure colours, with HSV saturation above 0.9",
        ),
        _metric(
            "sv_mean", "", 1, f"{HSV} times V, mean",
            "Mean HSV saturation times value, which is max − min of a pixel's channels: unlike "
            "saturation alone it does not count colour that is too dark to see",
        ),
        _metric(
            "chroma_mean", "C*", 134, "CIELAB chroma, D65, 2° observer, mean",
            "Mean CIELAB chroma C* = √(a² + b²), how colourful people see a pixel",
        ),
        _metric(
            "colourfulness_m3", "", 250, "Hasler & Süsstrunk 2003, M3, 8-bit scale",
            "Colourfulness of the picture, √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²) with "
            "rg = R − G and yb = (R + G)/2 − B",
        ),
        _metric(
            "clipped_low", "", 1, "share of pixels with a channel at most 1/255",
            "Share of pixels with a channel at its lowest (at most 1 of 255)",
        ),
        _metric(
            "clipped_high", "", 1, "share of pixels with a channel at least 254/255",
            "Share of pixels with a channel at its highest (at least 254 of 255)",
        ),
        _metric(
            "contrast_rms", "", 1, "standard deviation of Rec. 709 luma, gamma-coded",
            "Contrast: standard deviation of luma over the pixels of a frame",
        ),
        Metric(
            "saturation_drift", "nearest_reference", "1/s", (-8, 8),
            "slope of a frame's mean saturation over time",
            "How fast colours become stronger (above 0) or paler in the course of a clip: slope of "
            "a frame's mean saturation over time, by least squares.",
        ),
        Metric(
            "saturation_histogram", "nearest_reference", "share of pixels per bin", (0.0, 1.0),
            f"{HSV}, 256 bins over [0, 1]",
            "Share of pixels in each of 256 equal bins of saturation, mean over 16 frames.",
            kind="array",
        ),
        _distance("saturation_wasserstein", "of a prompt's clips to the reference's", "prompt"),
        _distance("saturation_wasserstein_pooled", "of all clips to the reference's", "pooled"),
    ),
    load=plain(compute),
    versus=versus,
    pool=pool,
    default=True,
)  # fmt: skip
