"""Suites of streams: lengths, names, prompts of a user's own, and what cannot be one."""

import json
from collections import Counter

import pytest

from dfdbench.generate.schedule import read_schedule
from dfdbench.generate.suites import choose_suite, get_suite, is_suite
from dfdbench.generate.suites.base import Length
from dfdbench.generate.suites.streams import SECONDS, parse_name, streamed
from dfdbench.utils.errors import UserError

WAN = {"trained": 81, "per_latent": 4, "fps": 16, "block": 3}
TOY = {"trained": 17, "per_latent": 4, "fps": 8, "block": 1}
CATEGORIES = {"people", "animals", "nature", "city", "travel", "making", "fantasy"}


@pytest.mark.parametrize(
    ("length", "model", "frames"),
    [
        (Length(seconds=5), WAN, 81),  # 7 blocks of 3: Self Forcing's own clip
        (Length(seconds=30), WAN, 477),  # 120 latent frames
        (Length(seconds=60), WAN, 957),  # 240
        (Length(seconds=5), TOY, 41),
        (Length(seconds=0.1), WAN, 9),  # one block at least
        (Length(times=8), TOY, 157),  # 40 latent frames
        (Length(times=1), TOY, 17),
        (Length(frames=33), WAN, 33),
    ],
)
def test_a_length_is_whole_blocks(length, model, frames):
    assert length.frames_for(**model) == frames


@pytest.mark.parametrize("name", SECONDS)
def test_each_suite_has_70_long_prompts_and_its_seconds(name):
    suite = get_suite(name)
    assert len(suite.prompts) == 70 and suite.is_streamed
    assert Counter(p.attributes["category"] for p in suite.prompts) == dict.fromkeys(CATEGORIES, 10)
    assert all(35 <= len(p.text.split()) <= 60 for p in suite.prompts)
    assert {p.length for p in suite.prompts} == {Length(seconds=SECONDS[name])}
    assert {"drift", "seams"} <= {*suite.metrics}


def test_the_toys_suite_has_every_caption_short_and_each_shape_and_scene_eight_times_as_long():
    suite, plain = get_suite("ar-toy"), get_suite("toy-t2v")
    short, long = suite.prompts[:16], suite.prompts[16:]
    assert [p.id for p in short] == [p.id for p in plain.prompts]
    assert {f"{p.id}-8x": p.text for p in plain.prompts}.items() >= {
        p.id: p.text for p in long
    }.items()
    for what in ("shape", "scene"):
        assert len({p.attributes[what] for p in long}) == len(long) == 4
    assert {p.length.frames_for(**TOY) for p in short} == {17}
    assert {p.length.frames_for(**TOY) for p in long} == {157}
    assert {"oracle", "colour", "seams", "oracle_ends"} <= {*short[0].metrics}
    assert "drift" not in short[0].metrics
    assert {*long[0].metrics} == {"drift", "oracle_drift", "seams"}
    assert {*short[0].metrics, *long[0].metrics} == {*suite.metrics}


def test_a_suites_name_may_end_in_length_and_window():
    suite = get_suite("toy-t2v-157f-w5-s1")
    assert suite.name == "toy-t2v-157f-w5-s1" and (suite.window, suite.sinks) == (5, 1)
    assert {p.length for p in suite.prompts} == {Length(frames=157)}
    assert {"oracle", "drift", "seams", "oracle_drift"} <= {*suite.metrics}
    wide = get_suite("ar-30s-w9")
    assert wide.window == 9 and wide.sinks is None
    assert wide.prompts == get_suite("ar-30s").prompts
    for name in ("toy-t2v-157f-w5-s1", "ar-30s-w9", "ar-30s", "toy-t2v"):
        base, *asked = parse_name(name)
        known = get_suite(base)
        again = streamed(known, *asked) if name != base else known
        assert again.name == name and is_suite(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy-t2v-w5", "toy-t2v is none of streams; say how many frames"),
        ("ar-30s-41f", "ar-30s says how long its clips are; leave -41f out"),
        ("clips-41f", "clips has no prompts of its own"),
        ("toy-i2v-41f", "takes first frames"),
        ("toy-t2v-0f", "at least 1 frame"),
        ("ar-90s", "unknown suite 'ar-90s'"),
        ("toy-t2w-41f-w3", "unknown suite"),
    ],
)
def test_a_name_that_is_no_suite_is_one_line(name, words):
    with pytest.raises(UserError, match=words) as caught:
        get_suite(name)
    assert "\n" not in str(caught.value)


def test_prompts_of_a_users_own_get_the_suites_length_and_both_names(tmp_path):
    file = tmp_path / "moviegen.txt"
    file.write_text("A red fox trots through snow\nA potter shapes a vase\n")
    suite = choose_suite("ar-30s", file)
    assert suite.name == "ar-30s-moviegen" and len(suite.prompts) == 2
    assert {p.length for p in suite.prompts} == {Length(seconds=30)}
    assert choose_suite("ar-30s-w9", file).name == "ar-30s-moviegen-w9"
    long = choose_suite("toy-t2v-41f-w3", file)
    assert long.name == "moviegen-41f-w3" and long.prompts[0].length == Length(frames=41)
    with pytest.raises(UserError, match=r"suite ar-toy has the toy's captions; take"):
        choose_suite("ar-toy", file)
    plain = choose_suite("toy-t2v", file)
    assert plain.name == "moviegen" and not plain.is_streamed
    taken = file.rename(tmp_path / "ar-5s-w9.txt")
    with pytest.raises(UserError, match=r"a suite is called ar-5s-w9; rename the file"):
        choose_suite("ar-30s", taken)


def test_vbenchs_extended_texts_are_prompts_too(tmp_path):
    entries = [
        {"prompt_en": "a fox", "dimension": ["scene"], "aug_prompt_en": "A red fox in deep snow."},
        {"prompt_en": "a cup", "dimension": ["color"], "aug_prompt_en": "A blue cup on a table."},
    ]
    file = tmp_path / "long.json"
    file.write_text(json.dumps(entries))
    suite = choose_suite("ar-5s", file)
    assert [(p.id, p.text, p.source_text) for p in suite.prompts] == [
        ("a-fox", "a fox", "A red fox in deep snow."),
        ("a-cup", "a cup", "A blue cup on a table."),
    ]
    assert suite.find("A red fox in deep snow.").id == "a-fox"
    file.write_text(json.dumps([{k: v for k, v in entries[0].items() if k != "aug_prompt_en"}]))
    assert choose_suite("ar-5s", file).prompts[0].source_text == "a fox"
    file.write_text(json.dumps([entries[0], {"prompt_en": " ", "dimension": ["scene"]}]))
    with pytest.raises(UserError, match=r"long\.json: 1\.prompt_en"):
        choose_suite("ar-5s", file)


def test_a_file_of_times_called_like_a_suite_is_refused(tmp_path):
    file = tmp_path / "toy-t2v-157f.txt"
    file.write_text("0 | a cat\n")
    with pytest.raises(UserError, match="a suite is called toy-t2v-157f; rename the file"):
        read_schedule(file).suite()
