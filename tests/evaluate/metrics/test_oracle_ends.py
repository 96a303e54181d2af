"""What the oracle reads in the first frame and the last, and how diverse clips are there."""

import numpy as np
import pytest

from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.metrics.oracle import values_of
from dfdbench.evaluate.metrics.oracle_ends import compute, group
from dfdbench.toy import world
from dfdbench.utils.video import Clip, to_uint8


def clip(frames: np.ndarray) -> Clip:
    return Clip(frames, 8.0, "test", np.arange(len(frames)))


@pytest.fixture(scope="module")
def clips():
    attributes = world.sample_attributes(24, 5, "cross", "meadow")
    return [to_uint8(video * 2 - 1) for video in world.render(attributes)]


def test_a_still_shows_the_hue_and_size_of_the_clip(clips):
    for frames in clips:
        whole, ends = values_of(frames), compute(clip(frames))
        assert set(ends) == {metric.name for metric in get_family("oracle_ends").at("video")}
        for end in ("opening", "ending"):
            assert ends[f"{end}_intact"] == 1
            assert ends[f"{end}_hue"] == whole["oracle_hue"]
            assert ends[f"{end}_size"] == whole["oracle_size"]


def test_each_end_is_read_in_its_own_frame(clips):
    frames = clips[0].copy()
    frames[-1] = frames[-1][:, :, [1, 2, 0]]
    ends = compute(clip(frames))
    assert ends["opening_hue"] == values_of(clips[0])["oracle_hue"] != ends["ending_hue"]
    frames[0] = frames[0, :1, :1]  # a plain picture
    ends = compute(clip(frames))
    assert (ends["opening_intact"], ends["ending_intact"]) == (0, 1)


def readings(opening: list[int], ending: list[int], whole: int = 1) -> list[dict[str, float]]:
    """Of clips with these hues, all small."""
    return [
        {"opening_hue": a, "opening_size": 0, "opening_intact": whole,
         "ending_hue": b, "ending_size": 0, "ending_intact": 1}
        for a, b in zip(opening, ending, strict=True)
    ]  # fmt: skip


def test_diversity_lost_at_the_start_is_told_from_that_lost_later():
    hues = [i % 6 for i in range(12)]
    values = group(readings(hues, [2] * 12), {})
    # 6 hues, two clips each: 1 - 6 * 2 / (12 * 11) of pairs differ, over 5/6 of uniform draws.
    assert values["opening_hue_gini"].value == pytest.approx((1 - 12 / 132) * 6 / 5)
    assert values["ending_hue_gini"].value == 0 and values["ending_hue_gini"].n == 12
    assert values["opening_size_gini"].value == 0
    assert values["opening_gini"].value == pytest.approx(values["opening_hue_gini"].value / 2)
    assert set(values) == {m.name for m in get_family("oracle_ends").at("prompt")}


def test_what_a_caption_names_and_what_too_few_clips_show_is_left_out():
    hues = [i % 6 for i in range(12)]
    assert set(group(readings(hues, hues), {"hue": "red"})) == {
        "opening_size_gini", "opening_gini", "ending_size_gini", "ending_gini",
    }  # fmt: skip
    assert all(name.startswith("ending") for name in group(readings(hues, hues, whole=0), {}))
    assert group(readings(hues[:7], hues[:7]), {}) == {}
