"""The toy's image-to-video readings, on real continuations of a suite's pictures."""

import numpy as np
import pytest
import torch

from dfdbench.evaluate.metrics.oracle_i2v import compute, group
from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.generate.real import opening, real_continuation
from dfdbench.generate.suites import get_suite
from dfdbench.toy import world
from dfdbench.toy.continuation import direction_probabilities
from dfdbench.utils.video import Clip

PROMPTS = get_suite("toy-i2v").prompts
SEEDS = range(1, 9)


def frames_of(prompt, seed):
    return to_frames(real_continuation(prompt, seed) * 2 - 1)[0]


def picture_of(prompt):
    return to_frames(world.render(opening(prompt)) * 2 - 1)[0, 0]


def read(frames, image):
    return compute(Clip(frames, 8.0, "none", np.arange(len(frames)), image=image))


@pytest.fixture(scope="module")
def clips():
    return [frames_of(PROMPTS[0], seed) for seed in SEEDS]


def test_real_clips_of_a_prompt_share_its_picture_and_differ_after_it(clips):
    picture = picture_of(PROMPTS[0]).astype(int)
    assert all(np.abs(clip[0] - picture).max() <= 1 for clip in clips)
    assert len({clip[-1].tobytes() for clip in clips}) == len(clips)
    assert np.array_equal(clips[2], frames_of(PROMPTS[0], 3))


def test_real_clips_continue_their_picture_in_several_ways(clips):
    readings = [read(clip, picture_of(PROMPTS[0])) for clip in clips]
    assert all(r["sprite_continues"] == 1 for r in readings)
    values = group(readings, {})
    assert values["direction_entropy_given_image"].n == len(clips)
    assert values["direction_entropy_given_image"].value > 0.5
    assert values["pan_entropy_given_image"].value > 0.5


def test_one_continuation_repeated_has_no_entropy(clips):
    values = group([read(clips[0], picture_of(PROMPTS[0]))] * 8, {})
    assert values["direction_entropy_given_image"].value == 0
    assert values["pan_entropy_given_image"].value == 0


def test_clips_of_another_picture_and_still_ones_do_not_continue(clips):
    other = picture_of(PROMPTS[-1])
    readings = [read(clip, other) for clip in clips]
    still = np.repeat(clips[0][:1], len(clips[0]), 0)
    readings.append(read(still, picture_of(PROMPTS[0])))
    assert not any(r["sprite_continues"] for r in readings) and group(readings, {}) == {}


def test_without_a_picture_there_is_no_value(clips):
    assert read(clips[0], None) == {}


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_a_prompts_picture_leaves_the_direction_open_and_shows_the_sprite(prompt):
    chosen = opening(prompt)
    entropy = torch.special.entr(direction_probabilities(chosen)).sum() / np.log(8)
    assert entropy > 0.9 and float(chosen.saturation) > 0.55 and int(chosen.hue_mode) != 1
    assert world.SHAPES[int(chosen.shape)] == prompt.attributes["shape"]
