"""Clips of suites of streams: who makes which, again what is missing only, scored and drawn."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from self_forcing_files import finished_run, loud_checkpoint
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.engine import score
from dfdbench.evaluate.store import Store
from dfdbench.generate.clips import reference_run
from dfdbench.generate.missing import complete, make
from dfdbench.generate.stream import Rollout, course_of
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Length
from dfdbench.models.causal import Layout
from dfdbench.models.registry import load_family
from dfdbench.report.page import report
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run
from dfdbench.utils.shards import Shard

TOY = get_suite("ar-toy")
SHORT, LONG = TOY.prompts[0], TOY.prompts[16]
TWO = replace(TOY, prompts=(SHORT, replace(LONG, length=Length(times=4))), seeds=(1, 2))
FRAMES = {"ball-desert": 17, "ball-desert-8x": 77}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny Wan whose output is far from zero."""
    return loud_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def family(checkpoint):
    return load_family(checkpoint)


@pytest.fixture
def causal(tmp_path, family, checkpoint):
    """A finished run of a causal student of blocks of one latent frame."""
    return finished_run(tmp_path / "causal", family, checkpoint, block_frames=1)


@pytest.fixture
def reference(tmp_path, checkpoint):
    """The run of an arm that is not trained."""
    info = {"arm": "real", "method": "real", "model": str(checkpoint), "status": "finished"}
    return lambda arm: Run.create(tmp_path / arm, {**info, "arm": arm, "method": arm})


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_prompt_has_its_length_and_long_clips_a_window(causal, family):
    made = make(causal, TWO, family=family)
    assert made.parent.name == "ar-toy", "the folder is called like the suite, as eval looks for it"
    clips = rows(made)
    assert [(r["prompt_id"], r["seed"]) for r in clips] == [(p, s) for p in FRAMES for s in (1, 2)]
    assert all(row["frames"] == FRAMES[row["prompt_id"]] for row in clips)
    assert {row["blocks"] for row in clips} == {"1+4"}
    assert clips[0]["settings"]["window_frames"] == 5 and clips[0]["settings"]["frames"] == [17, 77]


def test_what_is_there_is_not_made_again_and_shards_share_the_rest(causal, family):
    parts = [make(causal, TWO, family=family, shard=Shard(i, 2)) for i in (1, 2)]
    clips = {path: path.stat().st_mtime_ns for path in parts[0].parent.rglob("*.mp4")}
    assert len(clips) == 4 and len(rows(parts[1])) == 4
    spoilt = parts[0].parent / "ball-desert-8x" / "2.mp4"
    spoilt.write_bytes(b"half a file")
    make(causal, TWO, family=family)
    changed = [path for path, time in clips.items() if path.stat().st_mtime_ns != time]
    assert changed == [spoilt]


def test_a_clip_of_another_text_is_made_again(causal, family):
    suite = replace(TWO, prompts=(SHORT,), seeds=(1,))
    before = rows(make(causal, suite, family=family))[0]
    long = replace(suite, prompts=(replace(SHORT, long_text="a red ball over snowy hills"),))
    after = rows(make(causal, long, family=family))[0]
    assert after["sha256"] != before["sha256"] and "generated_from" not in before
    assert (after["prompt"], after["generated_from"]) == (SHORT.text, "a red ball over snowy hills")
    other = replace(suite, prompts=(replace(SHORT, text="a red ball over snowy hills"),))
    again = rows(make(causal, other, family=family))[0]
    assert again["sha256"] == after["sha256"] and "generated_from" not in again


def test_reference_arms_make_what_they_can(reference, family):
    real = rows(make(reference("real"), TWO, family=family))
    assert [(r["prompt_id"], r["frames"]) for r in real] == [("ball-desert", 17)] * 2
    long = replace(TWO, prompts=TWO.prompts[1:])
    with pytest.raises(UserError, match=r"arm teacher have 17 frames, and none .*leave .* out"):
        make(reference("teacher"), long, family=family)


def test_a_teacher_of_its_own_guidance_and_name_is_no_causal_student(tmp_path, checkpoint, family):
    named = reference_run("teacher", tmp_path / "t", str(checkpoint), 3.0, name="teacher_cfg3")
    (first, second) = rows(make(named, TWO, family=family))
    assert first["method"] == "teacher_cfg3" and first["frames"] == second["frames"] == 17
    with pytest.raises(UserError, match=r"--frames 25: .* has no causal student"):
        make(named, TWO, family=family, rollout=Rollout(frames=25))


def test_a_bidirectional_student_is_one_line(tmp_path, family, checkpoint):
    run = finished_run(tmp_path / "plain", family, checkpoint, block_frames=0)
    for name in ("ar-toy", "ar-5s", "toy-t2v-41f-w5"):
        with pytest.raises(UserError) as caught:
            make(run, get_suite(name), family=family)
        text = str(caught.value)
        assert text.startswith(f"suite {name}: ") and "no causal student" in text
        assert "take another suite" in text and "\n" not in text
    assert not list(run.videos.rglob("*.mp4"))


@pytest.mark.parametrize(
    ("name", "rollout", "words"),
    [
        ("ar-5s", {"frames": 41}, "--frames 41: suite ar-5s says how long its clips are"),
        ("ar-5s", {"window": 2}, "--window 2: .*set window_frames to 3 or more"),
        ("ar-5s", {"window": 0}, "--window 0: .*without a window.*give --window, 5"),
        ("ar-5s-w2", {}, "suite ar-5s-w2: .*set window_frames to 3 or more"),
        ("toy-t2v-18f-w5", {}, r"18 frames .* 1 \+ a multiple of 4"),
        ("toy-t2v-5f-w5", {}, "suite toy-t2v-5f-w5: .*2 latent frames does not fill a block of 3"),
        ("ar-5s-w4-s2", {}, "suite ar-5s-w4-s2: .*set window_frames to 5 or more"),
    ],
)
def test_a_suite_that_does_not_fit_the_student_is_one_line(
    tmp_path, family, checkpoint, name, rollout, words
):
    run = finished_run(tmp_path / "run", family, checkpoint, block_frames=3)
    with pytest.raises(UserError, match=words) as caught:
        course_of(run, family, get_suite(name), Rollout(**rollout))
    assert "\n" not in str(caught.value)


def test_a_window_that_is_asked_for_has_a_folder_of_its_own(causal, family):
    plain = course_of(causal, family, get_suite("ar-5s"))
    assert plain.suite.name == "ar-5s" and plain.layout == Layout(1, 5)
    assert set(plain.frames.values()) == {41}
    asked = course_of(causal, family, get_suite("ar-5s"), Rollout(window=7))
    named = course_of(causal, family, get_suite("ar-5s-w7"))
    assert asked.suite == named.suite and asked.layout == named.layout == Layout(1, 7)


def test_scoring_of_a_part_wants_all_clips_first(causal, checkpoint):
    with pytest.raises(UserError, match=r"lacks 4 clips of suite ar-toy; make them first: .*1/2"):
        complete([causal.path], TWO, None, None, "cpu", Shard(1, 2))


@pytest.mark.slow
def test_streams_are_scored_by_their_prompts_families_and_drawn(
    causal, reference, family, tmp_path
):
    runs = [causal, reference("real")]
    complete([run.path for run in runs], TWO, None, None, "cpu")
    summary = score([run.path for run in runs], TWO)
    assert not summary.failures and summary.scored == 6
    with Store.reading(causal.path / "scores.sqlite") as store:
        table = store.table("ar-toy")
    prompts = table.groupby("metric")["prompt_id"].unique().map(sorted)
    assert prompts["saturation_mean"] == prompts["sprite_intact"] == ["ball-desert"]
    assert prompts["drift_luma"] == prompts["drift_sprite_intact"] == ["ball-desert-8x"]
    assert prompts["seam_ratio"] == ["ball-desert", "ball-desert-8x"]
    assert prompts["prompt_accuracy"] == ["ball-desert"], "long clips are not read as short ones"
    again = score([run.path for run in runs], TWO)
    assert again.scored == 0 and again.reused == 6
    page = report([run.path for run in runs], tmp_path / "report")
    names = {path.name for path in (page.parent / "figures").glob("*.png")}
    assert {"over-time.png", "frames-over-time.png"} <= names
    assert "drift_luma" in (page.parent / "table.csv").read_text()


def test_other_blocks_of_the_same_bytes_are_scored_anew(causal, family):
    suite = replace(TWO, prompts=(SHORT,), seeds=(1,))
    made = make(causal, suite, family=family)
    score([causal.path], suite, families=["seams"])

    def ratio() -> list[float]:
        with Store.reading(causal.path / "scores.sqlite") as store:
            table = store.table("ar-toy")
        return table[table["metric"] == "seam_ratio"]["value"].tolist()

    first = ratio()
    made.write_text(made.read_text().replace('"blocks": "1+4"', '"blocks": "9+4"'))
    score([causal.path], suite, families=["seams"])
    second = ratio()
    assert len(first) == len(second) == 1 and first != second
    made.write_text(made.read_text().replace('"blocks": "9+4"', '"blocks": "0+4"'))
    with pytest.raises(UserError, match=r"samples\.jsonl:1: blocks"):
        score([causal.path], suite, families=["seams"])


def test_the_command_makes_and_scores_streams(causal, tmp_path):
    prompts = tmp_path / "two.txt"
    prompts.write_text("a ball moving over the desert\n")
    options = ["--suite", "ar-5s", "--prompts", str(prompts), "--seeds", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, ["generate", str(causal.path), *options])
    assert done.exit_code == 0 and "ar-5s-two" in done.output, done.output
    scored = CliRunner().invoke(
        app, ["eval", str(causal.path), *options, "--metrics", "drift,seams"]
    )
    assert scored.exit_code == 0 and "1 scored" in scored.output, scored.output
    folder = causal.videos / "ar-5s-two"
    alone = ["eval", str(folder), "--metrics", "drift,seams", "--out", str(tmp_path / "alone")]
    done = CliRunner().invoke(app, alone)
    assert done.exit_code == 0 and "seam_ratio" in done.output, done.output
