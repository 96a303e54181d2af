"""Colour against scikit-image, OpenCV and SciPy, and against swapped channels."""

import cv2
import numpy as np
import pytest
from clips import random_clip, released_videos
from scipy.stats import wasserstein_distance
from skimage.color import rgb2hsv, rgb2lab

from dfdbench.evaluate.metrics import colour
from dfdbench.utils.video import Clip, read_video

EXTREMES = np.array(
    [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [1, 0, 0], [7, 200, 199]],
    np.uint8,
)


def pixels() -> np.ndarray:
    """Uint8 (1, n, 3): extremes and random ones."""
    drawn = np.random.default_rng(0).integers(0, 256, (5000, 3), dtype=np.uint8)
    return np.concatenate([EXTREMES, drawn])[None]


def clip_of(frames: np.ndarray, fps: float = 8) -> Clip:
    return Clip(frames, fps, "test", np.arange(len(frames)))


def values_of(frames: np.ndarray) -> dict[str, float]:
    values = colour.compute(clip_of(frames))
    return {name: value for name, value in values.items() if isinstance(value, float)}


def test_saturation_equals_scikit_image() -> None:
    expected = rgb2hsv(pixels() / 255.0)[..., 1]
    np.testing.assert_allclose(colour.saturation(pixels()), expected, atol=1e-6)


def test_saturation_equals_opencv_on_the_released_clips() -> None:
    frames = read_video(released_videos() / "t2v" / "vipe_umbrella_dmd.mp4", "even16").frames[:2]
    for frame in frames:
        hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        # OpenCV adds an epsilon to the divisor, which shows in dark pixels
        np.testing.assert_allclose(colour.saturation(frame), hsv[..., 1], atol=1e-4)


def test_chroma_equals_scikit_image() -> None:
    lab = rgb2lab(pixels() / 255.0)
    expected = np.hypot(lab[..., 1], lab[..., 2])
    # float32 against float64: chroma reaches 134, so 1e-6 of the scale
    np.testing.assert_allclose(colour.chroma(pixels()), expected, atol=1.5e-4)
    assert abs(colour.chroma(pixels()).mean() - expected.mean()) < 1e-5 * expected.mean()


def test_mean_chroma_equals_both_libraries_on_a_released_clip() -> None:
    frame = read_video(released_videos() / "t2v" / "vipe_turtle_dfd.mp4", "even16").frames[7]
    by_skimage = rgb2lab(frame / 255.0)
    expected = np.hypot(by_skimage[..., 1], by_skimage[..., 2]).mean()
    assert colour.chroma(frame).mean(dtype=float) == pytest.approx(expected, rel=1e-5)
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    by_opencv = np.hypot(lab[..., 1], lab[..., 2]).mean()
    # OpenCV interpolates the gamma curve and the cube root from tables: .03 off on this frame
    assert colour.chroma(frame).mean() == pytest.approx(by_opencv, abs=0.06)


def test_colourfulness_equals_its_formula_written_by_hand() -> None:
    frame = pixels()[0].astype(float)
    rg = [r - g for r, g, _ in frame]
    yb = [0.5 * (r + g) - b for r, g, b in frame]
    spread = (np.var(rg) + np.var(yb)) ** 0.5
    shift = (np.mean(rg) ** 2 + np.mean(yb) ** 2) ** 0.5
    np.testing.assert_allclose(colour.colourfulness(pixels()), [spread + 0.3 * shift], rtol=1e-6)


def test_every_value_equals_a_plain_loop_over_frames() -> None:
    frames = random_clip(3)
    expected: dict[str, list[float]] = {}
    for frame in frames:
        hsv = rgb2hsv(frame)
        s, v = hsv[..., 1], hsv[..., 2]
        gray = cv2.transform(frame.astype(np.float64) / 255, np.array([[0.2126, 0.7152, 0.0722]]))
        for name, value in {
            "saturation_mean": s.mean(),
            "saturation_p95": np.percentile(s, 95),
            "saturation_share_09": (s > 0.9).mean(),
            "sv_mean": (s * v).mean(),
            "clipped_low": (frame.min(2) <= 1).mean(),
            "clipped_high": (frame.max(2) >= 254).mean(),
            "contrast_rms": gray.std(),
        }.items():
            expected.setdefault(name, []).append(value)
    measured = values_of(frames)
    for name, per_frame in expected.items():
        assert measured[name] == pytest.approx(np.mean(per_frame), abs=1e-6), name


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2)])
def test_swapped_channels_change_what_depends_on_their_order(order: tuple[int, ...]) -> None:
    frames = random_clip(4)
    right, swapped = values_of(frames), values_of(frames[..., order])
    # M3 cannot tell red from green: rg only changes its sign and yb stays
    m3 = ("colourfulness_m3",) if order == (2, 1, 0) else ()
    for name in ("chroma_mean", "contrast_rms", *m3):
        assert abs(right[name] - swapped[name]) > 1e-4, name
    assert right["saturation_mean"] == pytest.approx(swapped["saturation_mean"], abs=1e-9)


def test_blue_red_and_green_have_the_chroma_of_the_colour_tables() -> None:
    # CIELAB C* of the sRGB primaries (Lindbloom's tables): red 104.6, green 119.8, blue 133.8
    primaries = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_allclose(colour.chroma(primaries), [104.55, 119.78, 133.81], atol=0.05)


def test_clipping_tells_dark_from_bright() -> None:
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    frames[:, :2, :, 0] = 1
    frames[:, 7:, :, 2] = 254
    values = values_of(frames)
    assert values["clipped_low"] == 0.25 and values["clipped_high"] == 0.125


def test_drift_is_positive_when_colours_grow_and_per_second() -> None:
    frames = np.full((17, 8, 8, 3), 200, np.uint8)
    frames[..., 1] = (200 - 5 * np.arange(17))[:, None, None]  # S grows by 5/200 a frame
    grows = colour.compute(clip_of(frames, fps=8))["saturation_drift"]
    assert grows == pytest.approx(8 * 5 / 200, abs=1e-6)
    assert colour.compute(clip_of(frames[::-1]))["saturation_drift"] == pytest.approx(-grows)


def test_histogram_distance_equals_scipy_within_a_bin() -> None:
    a, b = random_clip(5), random_clip(6) // 2 + 60
    s_a, s_b = (colour.saturation(frames.reshape(1, -1, 3)) for frames in (a, b))
    measured = colour.wasserstein(
        colour.saturation_histogram(s_a)[0], colour.saturation_histogram(s_b)[0]
    )
    expected = wasserstein_distance(s_a.ravel(), s_b.ravel())
    assert expected > 0.05
    assert abs(measured - expected) < 1 / colour.HISTOGRAM_BINS


def test_histogram_of_a_clip_sums_to_one_and_has_its_mean() -> None:
    values = colour.compute(clip_of(random_clip(7)))
    histogram = values["saturation_histogram"]
    assert isinstance(histogram, np.ndarray) and histogram.shape == (256,)
    assert histogram.sum() == pytest.approx(1)
    centres = (np.arange(256) + 0.5) / 256
    assert histogram @ centres == pytest.approx(values["saturation_mean"], abs=1 / 256)


def test_grey_black_and_white_have_no_saturation() -> None:
    frames = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (0, 128, 255)])
    values = values_of(frames)
    assert values["saturation_mean"] == values["saturation_share_09"] == values["sv_mean"] == 0
    assert values["chroma_mean"] < 0.02


def test_frames_worked_on_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = random_clip(8)
    whole = values_of(frames)
    monkeypatch.setattr(colour, "CHUNK_PIXELS", 3 * 32 * 48)
    parts = values_of(frames)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, abs=1e-9), name
