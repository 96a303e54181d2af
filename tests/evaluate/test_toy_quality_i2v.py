"""Scores of image-to-video clips, on real continuations and on ways to fail."""

import numpy as np
import pytest
import torch

from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.evaluate.toy_quality_i2v import psnr, quality_of, real_samples, teacher_samples
from dfdbench.models.registry import load_family
from dfdbench.toy import oracle, world
from dfdbench.toy.continuation import continuations
from dfdbench.toy.train import held_out

K = 16


@pytest.fixture(scope="module")
def given():
    return world.sample_attributes(4, 31)


@pytest.fixture(scope="module")
def real(given):
    clips = [continuations(given[slice(i, i + 1)], K, i) for i in range(len(given))]
    return np.stack([to_frames(world.render(several, True) * 2 - 1) for several in clips])


def test_psnr_of_a_known_error():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black + np.uint8(51), black) == pytest.approx(20 * np.log10(5))
    assert psnr(black, black) == np.inf


def test_real_continuations_pass(real, given):
    scores = quality_of(real, given)
    assert scores["sprite_continues"] == 1
    assert scores["psnr_min"] > 50 and scores["clips"] == 4 * K and scores["spread_frames"] == 4
    assert scores["open_gini_given_image"] > 0.9
    real_saturation = np.mean([*map(float, world.sample_attributes(2000, 1).saturation)])
    assert scores["sprite_saturation_given_image"] == pytest.approx(real_saturation, abs=0.06)


def test_clips_of_other_pictures_fail(real, given):
    scores = quality_of(real[[1, 2, 3, 0]], given)
    assert scores["psnr"] < 25 and scores["sprite_continues"] < 0.5


def test_one_continuation_repeated_has_no_diversity(real, given):
    scores = quality_of(np.repeat(real[:, :1], K, 1), given)
    assert scores["sprite_continues"] == 1
    assert scores["open_gini_given_image"] == 0


def test_a_still_picture_does_not_continue(real, given):
    scores = quality_of(np.repeat(real[:, :, :1], world.FRAMES, 2), given)
    assert scores["psnr_min"] > 50 and scores["sprite_continues"] == 0
    assert "open_gini_given_image" not in scores and scores["spread_frames"] == 0


def test_wobble_is_the_distance_from_steady_motion():
    clip = world.sample_attributes(1, 3, shape="ball", scene="snow")
    frames = to_frames(world.render(clip) * 2 - 1)[0]
    steady = oracle.read(frames)
    shaken = frames.copy()
    shaken[1::2] = np.roll(frames[1::2], 4, axis=2)
    assert steady.wobble < 0.1
    assert oracle.read(shaken).wobble == pytest.approx(2, abs=0.15)  # ±2 around the middle
    assert oracle.read(frames[::-1]).wobble == pytest.approx(steady.wobble, abs=1e-3)


@torch.no_grad()
def test_samples_keep_the_frame_and_differ_by_noise(tmp_path, given):
    from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v

    teacher = load_family(write_checkpoint_i2v(tmp_path / "tiny", TINY_I2V, seed=0))
    few = given[slice(0, 2)]
    frames = teacher_samples(teacher, few, count=2, cfg=2.0, steps=2, shift=5.0)
    assert frames.shape == (2, 2, 17, 64, 64, 3)
    through = real_samples(teacher, few, 2)
    apart = np.abs(frames[:, :, 0].astype(int) - through[:, :, 0])
    assert apart.max() <= 2, "both show the decoded first latent"
    assert not np.array_equal(frames[0, 0], frames[0, 1])
    unguided = teacher_samples(teacher, few, count=2, cfg=1.0, steps=2, shift=5.0)
    assert not np.array_equal(frames, unguided)


def test_the_shipped_model_keeps_the_frame_and_lets_its_sprite_go_on():
    family, clips = load_family("toy-i2v"), held_out(3, seed=9)
    scores = quality_of(teacher_samples(family, clips, 4, 3.0, 12, 5.0), clips)
    through = quality_of(real_samples(family, clips, 4), clips)
    assert scores["psnr_min"] == pytest.approx(through["psnr_min"], abs=0.05), "the autoencoder's"
    assert scores["sprite_continues"] >= 0.4
