"""The toy's image-to-video readings, on real continuations of a suite's pictures."""

import numpy as np
import pytest

from dfdbench.evaluate.metrics import oracle_i2v
from dfdbench.evaluate.metrics.oracle_i2v import compute, group, versus
from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.generate.real import opening, real_continuation
from dfdbench.generate.suites import get_suite
from dfdbench.toy import oracle, world
from dfdbench.utils.video import Clip

PROMPTS = get_suite("toy-i2v").prompts
SEEDS = range(1, 33)


def frames_of(prompt, seed):
    return to_frames(real_continuation(prompt, seed) * 2 - 1)[0]


def picture_of(prompt):
    return to_frames(opening(prompt) * 2 - 1)[0, 0]


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


def test_real_clips_continue_their_picture_in_many_ways(clips):
    readings = [read(clip, picture_of(PROMPTS[0])) for clip in clips]
    assert all(r["sprite_continues"] == 1 for r in readings)
    values = group(readings, {})
    assert values["open_gini_given_image"].n == len(clips)
    assert values["open_gini_given_image"].value > 0.9
    assert values["hue_gini_given_image"].value > 0.8
    assert values["modes_given_image"].value > 20
    declared = {m.name for m in oracle_i2v.FAMILY.metrics}
    beside = versus(readings[:8], readings)
    assert 0.2 < beside["mode_recall_given_image"].value < 0.5
    assert versus(readings, readings[:8])["mode_recall_given_image"].value == 1
    assert set(values) | set(readings[0]) | set(beside) == declared


def test_one_continuation_repeated_has_no_spread(clips):
    values = group([read(clips[0], picture_of(PROMPTS[0]))] * 32, {})
    assert values["open_gini_given_image"].value == 0
    assert values["modes_given_image"].value == 1


def test_clips_of_another_picture_still_and_backward_ones_do_not_continue(clips):
    other = picture_of(PROMPTS[-1])
    readings = [read(clip, other) for clip in clips]
    still = np.repeat(clips[0][-1:], len(clips[0]), 0)
    readings.append(read(still, picture_of(PROMPTS[0])))
    moved = np.roll(clips[0], 8, axis=2)
    readings.append(read(moved, picture_of(PROMPTS[0])))
    assert not any(r["sprite_continues"] for r in readings)
    assert "open_gini_given_image" not in group(readings, {})


def test_without_a_picture_there_is_no_value(clips):
    assert read(clips[0], None) == {}


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_a_prompts_picture_shows_its_shape_and_hides_the_rest(prompt):
    hidden = oracle.read_hidden(picture_of(prompt))
    assert world.SHAPES[hidden.shape] == prompt.attributes["shape"]
