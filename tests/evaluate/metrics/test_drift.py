"""Drift and seams against closed forms, on clips that are made for them."""

import numpy as np
import pytest

from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.metrics.drift import QUANTITIES, SERIES, compute, drift, per_frame, segments
from dfdbench.evaluate.metrics.oracle_drift import PARTS, group, kept
from dfdbench.evaluate.metrics.oracle_drift import compute as oracle_drift
from dfdbench.evaluate.metrics.seams import borders
from dfdbench.evaluate.metrics.seams import compute as seams
from dfdbench.toy import world
from dfdbench.utils.video import Clip, to_uint8


def clip(frames: np.ndarray, fps: float = 8, blocks: str = "") -> Clip:
    """Frames as if they came from a file."""
    return Clip(frames, fps, "test", np.arange(len(frames)), blocks=blocks)


def grey(levels: np.ndarray, size: int = 8) -> np.ndarray:
    """A frame of one grey a level: uint8 (T size size 3)."""
    plain = np.ones((1, size, size, 3))
    return (levels[:, None, None, None] * plain).astype(np.uint8)


# --- drift


def test_a_constant_clip_does_not_drift():
    frames = np.broadcast_to(
        np.random.default_rng(0).integers(0, 256, (16, 16, 3)), (80, 16, 16, 3)
    )
    values = compute(clip(frames.astype(np.uint8)))
    assert len(values) == 13 and values[SERIES].shape == (10, 4)
    assert values[SERIES].min() > 0
    for name, value in values.items():
        if name != SERIES:
            assert value == pytest.approx(0, abs=1e-7), name


def test_a_ramp_of_luma_has_its_own_slope_and_change():
    levels = np.arange(200)  # one of 255 a frame, 40 s at 5 a second
    values = compute(clip(grey(levels), fps=5))
    assert values["drift_luma_slope"] == pytest.approx(60 * 5 / 255, rel=1e-6)
    # The middles of the first and last 5 s are 35 s apart.
    assert values["drift_luma"] == pytest.approx(35 * 5 / 255, rel=1e-6)
    # 20 segments of 2 s: an arithmetic progression of 20 with steps of 10 levels.
    assert values["drift_luma_spread"] == pytest.approx(10 / 255 * np.sqrt((20**2 - 1) / 12))
    for name in ("saturation", "contrast", "sharpness"):
        assert values[f"drift_{name}"] == pytest.approx(0, abs=1e-6)


def test_a_short_clip_is_cut_by_shares():
    levels = np.arange(40)  # 5 s at 8 a second: a quarter is 10 frames, a tenth 4
    values = compute(clip(grey(levels)))
    assert values["drift_luma"] == pytest.approx(30 / 255, rel=1e-6)
    assert values["drift_luma_spread"] == pytest.approx(4 / 255 * np.sqrt((10**2 - 1) / 12))
    assert values["drift_luma_slope"] == pytest.approx(60 * 8 / 255, rel=1e-6)
    assert [len(part) for part in segments(levels, 5)] == [4] * 10


@pytest.mark.parametrize(("frames", "parts"), [(2, 2), (3, 3), (9, 9), (17, 10)])
def test_clips_of_few_frames_have_values_too(frames, parts):
    values = compute(clip(grey(10 * np.arange(frames))))
    assert values[SERIES].shape == (parts, 4)
    assert values["drift_luma"] > 0 and values["drift_luma_slope"] == pytest.approx(60 * 80 / 255)


def test_values_that_are_not_there_do_not_count():
    ramp = np.arange(40.0)
    ramp[[3, 17, 38]] = np.nan
    found = drift(ramp, 40)
    assert found.slope == pytest.approx(60)
    assert found.change == pytest.approx(np.mean([35, 36, 37, 39]) - np.mean([0, 1, 2, 4]))
    assert np.isnan(drift(np.array([1.0, *[np.nan] * 9]), 10)).all()
    half = np.array([*[1.0] * 5, *[np.nan] * 5])
    assert np.isnan(drift(half, 10).change) and drift(half, 10).slope == pytest.approx(0)


def test_quantities_of_a_frame_are_what_they_are_called():
    ramp = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[:, None], (64, 64))
    red = np.stack([np.full((64, 64), 200), *[np.full((64, 64), 50)] * 2], -1)
    frames = np.stack([np.stack([ramp] * 3, -1), red]).astype(np.uint8)
    of_ramp, of_red = (dict(zip(QUANTITIES, row, strict=True)) for row in per_frame(frames))
    assert of_ramp["sharpness"] == pytest.approx(2, rel=1e-5)
    assert of_ramp["contrast"] == pytest.approx(np.std(np.arange(0, 128, 2)) / 255, rel=1e-5)
    assert of_ramp["luma"] == pytest.approx(63 / 255, rel=1e-5) and of_ramp["saturation"] == 0
    assert of_red["saturation"] == pytest.approx(0.75)
    assert of_red["luma"] == pytest.approx((0.2126 * 200 + 0.7874 * 50) / 255, rel=1e-5)
    assert of_red["contrast"] == pytest.approx(0, abs=1e-6) and of_red["sharpness"] < 1e-3


def test_each_drift_is_its_own_alone():
    rng, time = np.random.default_rng(1), np.linspace(0, 1, 100)[:, None, None, None]
    noise = rng.integers(-40, 41, (1, 16, 16, 1)) * np.ones((1, 1, 1, 3))
    growing = (128 + noise * (0.5 + time)).astype(np.uint8)
    values = compute(clip(growing))
    assert values["drift_contrast"] > 0.02 and values["drift_sharpness"] > 5
    assert abs(values["drift_luma"]) < 0.01 and values["drift_saturation"] == 0
    red = np.ones((100, 16, 16, 3)) * np.array([200.0, 150, 150])
    red[..., 1:] -= 100 * time
    values = compute(clip(red.astype(np.uint8)))
    assert values["drift_saturation"] == pytest.approx(0.5 * 75 / 99, abs=0.01)
    assert values["drift_luma"] < 0 and values["drift_contrast"] == pytest.approx(0, abs=1e-6)


# --- seams


def test_borders_are_where_later_blocks_begin():
    assert borders("9+12", 45).tolist() == [9, 21, 33] and borders("17+4", 17).tolist() == []


def stepped(jump_at: list[int], jump: int, count: int = 33) -> np.ndarray:
    """A grey that grows by 1 a frame, and by `jump` at some."""
    steps = np.ones(count, int)
    steps[jump_at] = jump
    return grey(np.cumsum(steps))


def test_a_jump_at_the_borders_is_the_ratio():
    assert seams(clip(stepped([9, 21], 7), blocks="9+12")) == {"seam_ratio": 7.0}
    assert seams(clip(stepped([9], 7), blocks="9+12")) == {"seam_ratio": 4.0}, "mean of 7 and 1"


def test_a_jump_elsewhere_is_no_seam():
    inside = seams(clip(stepped([8, 20], 7), blocks="9+12"))["seam_ratio"]
    assert inside == pytest.approx(1 / ((28 + 2 * 7) / 30))
    assert seams(clip(stepped([], 7), blocks="9+12")) == {"seam_ratio": 1.0}


@pytest.mark.parametrize("blocks", ["33+4", "40+4"])
def test_a_clip_of_one_block_has_no_seam(blocks):
    assert seams(clip(stepped([9], 7), blocks=blocks)) == {}


def test_a_clip_that_stands_still_has_no_ratio():
    assert seams(clip(grey(np.full(33, 9)), blocks="9+12")) == {}


# --- the toy's attributes


def toy_clip(times: int, grow: float = 0.0, seed: int = 3) -> np.ndarray:
    """A rendered clip, repeated forward and back so that it can be of any length."""
    attributes = world.sample_attributes(1, seed, "ball", "desert")
    frames = to_uint8(world.render(attributes)[0] * 2 - 1)
    return np.concatenate([frames if i % 2 == 0 else frames[::-1] for i in range(times)])


def test_a_sprite_that_stays_does_not_drift_and_one_that_goes_does():
    whole = toy_clip(10)
    values = oracle_drift(clip(whole))
    assert values[PARTS].shape == (11, 10), "21.25 s"
    assert values["drift_sprite_intact"] == 0 and abs(values["drift_sprite_intact_slope"]) < 1e-9
    assert abs(values["drift_sprite_saturation"]) < 0.02 and values["kept_hue"] == 1
    assert values["kept_shape"] == values["kept_scene"] == 1
    gone = whole.copy()
    gone[85:] = whole[0, :1, :1]  # a plain picture
    values = oracle_drift(clip(gone))
    assert values["drift_sprite_intact"] == -1 and values["drift_sprite_intact_slope"] < 0
    assert np.isnan(values["drift_sprite_area"]), "none is whole at the end"


def test_a_hue_that_turns_is_not_kept():
    frames = toy_clip(10)
    frames[85:] = frames[85:, :, :, [1, 2, 0]]
    values = oracle_drift(clip(frames))
    assert values["kept_hue"] == pytest.approx(0.5, abs=0.1) and values["kept_shape"] == 1


def test_kept_is_the_share_of_later_parts():
    assert kept(np.array([2, 2, -1, 1, 2])) == pytest.approx(2 / 3)
    assert kept(np.array([-1, 4, 4])) == 1 and np.isnan(kept(np.array([-1, 3, -1])))


def test_diversity_of_the_first_part_and_the_last_are_apart():
    parts = np.zeros((10, 10, 10), np.float32)  # clips, parts, columns: all of one class
    parts[:, :, 0] = 1
    parts[:, 0, 6] = np.arange(10) % 6  # hues differ at first
    parts[:2, -1, 0] = 0  # two are broken at the end
    values = group([{PARTS: own} for own in parts], {})
    assert values["hue_gini_first"].value > 0.9 and values["hue_gini_first"].n == 10
    assert values["hue_gini_last"].value == 0 and values["hue_gini_last"].n == 8
    assert group([{PARTS: parts[0]}, {PARTS: parts[1, :5]}], {}) == {}
    assert group([{PARTS: None}], {}) == {}


def test_every_number_of_the_families_is_declared():
    frames = toy_clip(6)
    for name, found in (
        ("drift", compute(clip(frames))),
        ("oracle_drift", oracle_drift(clip(frames))),
        ("seams", seams(clip(frames, blocks="17+4"))),
    ):
        assert set(found) == {metric.name for metric in get_family(name).at("video")}
