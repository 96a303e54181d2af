"""Names of clips and folders: each is scored or named with the reason, none becomes another."""

import os
from pathlib import Path

import pytest
from eval_calls import clip, evaluate, left_out, notes, refused, rows

from dfdbench.evaluate.store import Store
from dfdbench.utils.manifest import LARGEST_SEED, VIDEO_SUFFIXES


@pytest.mark.fault("A7")
def test_every_suffix_of_a_video_in_any_case_is_scored(tmp_path: Path) -> None:
    for i, suffix in enumerate(VIDEO_SUFFIXES):
        shown = suffix.upper() if i % 2 else suffix
        clip(tmp_path / "clips" / f"p{i}-0{shown}", i)
    code, lines = evaluate(tmp_path / "clips", "--out", tmp_path / "out")
    assert (code, left_out(lines)) == (0, [])
    assert len(rows(tmp_path / "out")) == len(VIDEO_SUFFIXES)


@pytest.mark.fault("A7")
@pytest.mark.parametrize("name", [".7.k2.mp4", "._x.mp4", ".hidden-1.mp4", ".x.MP4", ".mp4"])
def test_hidden_files_are_no_clips(tmp_path: Path, name: str) -> None:
    clip(tmp_path / "clips" / "a-0.mp4")
    clip(tmp_path / "clips" / name, 1)
    code, lines = evaluate(tmp_path / "clips", "--out", tmp_path / "out")
    assert code == 0 and list(rows(tmp_path / "out")) == ["a-0.mp4"] and name not in "".join(lines)


@pytest.mark.fault("A7")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: f.with_name("b-0.mp4.part").write_bytes(b"x"), "an unfinished copy"),
        (lambda f: f.with_name("b-0.webm.crdownload").write_bytes(b"x"), "an unfinished copy"),
        (lambda f: f.with_name("b-0.m4v").mkdir(), "no regular file"),
        (lambda f: os.mkfifo(f.with_name("b-0.mp4")), "no regular file"),
        (lambda f: f.with_name("b-0.mp4").symlink_to("/dev/zero"), "no regular file"),
        (lambda f: f.with_name("b-0.mkv").symlink_to(f.with_name("nowhere")), "No such file"),
        (lambda f: f.with_name("b-0.ts").write_text("const a = 1"), "not a readable video"),
        (lambda f: os.rename(f, os.fsencode(f.parent) + b"/b\xe9-0.mp4"), "not in UTF-8"),
        (lambda f: f.rename(f.with_name("b--3.mp4")), "ends in 3 or in -3"),
        (lambda f: f.rename(f.with_name(f"b-{LARGEST_SEED + 1}.mp4")), "seed: "),
        (lambda f: f.rename(f.with_name(f"b-{2**64}.mp4")), "seed: "),
        (lambda f: f.rename(f.with_name(f"b-{'9' * 200}.mp4")), "seed: "),
    ],
)  # fmt: skip
@pytest.mark.fault("A14", "D.fifo")
def test_what_cannot_be_a_clip_is_named_and_the_rest_is_scored(tmp_path, make, says) -> None:
    folder = tmp_path / "clips"
    clip(folder / "a-0.mp4")
    make(clip(folder / "spare-0.mp4", 1))
    code, lines = evaluate(folder, "--out", tmp_path / "out")
    (line,) = left_out(lines)
    assert code == 1 and says in line and "b" in line
    assert "a-0.mp4" in rows(tmp_path / "out")


@pytest.mark.fault("A14")
@pytest.mark.parametrize("seed", [0, 2**31, 2**32 + 1, LARGEST_SEED])
def test_seeds_up_to_the_largest_are_kept_as_they_are(tmp_path: Path, seed: int) -> None:
    clip(tmp_path / "clips" / f"a-{seed}.mp4")
    assert evaluate(tmp_path / "clips", "--out", tmp_path / "out")[0] == 0
    assert rows(tmp_path / "out")[f"a-{seed}.mp4"] == ("a", "a", seed, "clips")


@pytest.mark.fault("A8", "E.names")
@pytest.mark.parametrize(
    "prompt",
    ["x\ny", "<img src=x onerror=alert(1)>".replace("/", ""), "=1+1", "\x1b[31mred", "a\u2028b"],
)
def test_a_prompt_in_a_name_keeps_its_characters_and_its_seed(tmp_path, prompt: str) -> None:
    clip(tmp_path / "clips" / f"{prompt}-3.mp4")
    code, lines = evaluate(tmp_path / "clips", "--out", tmp_path / "out")
    assert code == 0 and rows(tmp_path / "out")[f"{prompt}-3.mp4"][1:3] == (prompt, 3)
    assert "\x1b" not in "".join(lines)


@pytest.mark.fault("A12")
@pytest.mark.parametrize(
    ("listed", "name", "expected"),
    [
        (["Falcon-9", "Falcon-10"], "Falcon-9.mp4", ("Falcon-9", None)),
        (["Falcon-9", "Falcon-10"], "Falcon-10-4.mp4", ("Falcon-10", 4)),
        (["Falcon-9", "Falcon"], "Falcon-9.mp4", ("Falcon-9", None)),
        (["Falcon"], "Falcon-9.mp4", ("Falcon", 9)),
        (["area-51 at night"], "area-51 at night-0.mp4", ("area-51 at night", 0)),
    ],
)
def test_of_a_name_the_whole_is_looked_for_first(tmp_path, listed, name, expected) -> None:
    clip(tmp_path / "clips" / name)
    (tmp_path / "p.txt").write_text("\n".join(listed), encoding="utf-8")
    arguments = (tmp_path / "clips", "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")
    code, lines = evaluate(*arguments)
    assert code == 0 and rows(tmp_path / "out")[name][1:3] == expected
    assert ("without it" in notes(lines)) == ({"Falcon", "Falcon-9"} == set(listed))


@pytest.mark.fault("A12")
def test_names_whose_number_may_be_the_prompts_are_said_aloud(tmp_path: Path) -> None:
    for i, name in enumerate(["Falcon-9", "Falcon-10", "a cat-0", "a cat-1"]):
        clip(tmp_path / "clips" / f"{name}.mp4", i)
    said = notes(evaluate(tmp_path / "clips", "--out", tmp_path / "out")[1])
    assert "2 names end in a number" in said and "Falcon-10.mp4, Falcon-9.mp4" in said
    assert "a cat" not in said


LONG = "A long prompt of words, " * 12
ALSO = LONG[:120] + "that goes another way, " * 8


@pytest.mark.fault("A12")
@pytest.mark.parametrize("length", [100, 180])
def test_prompts_that_names_cut_are_matched(tmp_path: Path, length: int) -> None:
    clip(tmp_path / "clips" / f"{LONG[:length]}-2.mp4")
    (tmp_path / "p.txt").write_text(f"{LONG.strip()}\na cat\n", encoding="utf-8")
    arguments = (tmp_path / "clips", "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")
    assert evaluate(*arguments)[0] == 0
    assert rows(tmp_path / "out")[f"{LONG[:length]}-2.mp4"][1:3] == (LONG.strip(), 2)
    said = notes(evaluate(tmp_path / "clips", "--out", tmp_path / "other")[1])
    assert "1 prompts may be cut in the files' names" in said


@pytest.mark.fault("A12")
def test_names_that_several_or_no_prompts_begin_with_are_left_out_one_by_one(tmp_path) -> None:
    names = [LONG[:100], LONG[:180], ALSO[:180], LONG[:60], "a dog"]
    for i, name in enumerate(names):
        clip(tmp_path / "clips" / f"{name}-0.mp4", i)
    (tmp_path / "p.txt").write_text(f"{LONG.strip()}\n{ALSO.strip()}\n", encoding="utf-8")
    arguments = (tmp_path / "clips", "--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")
    code, lines = evaluate(*arguments)
    assert code == 1 and len(rows(tmp_path / "out")) == 2
    ambiguous, *unknown = sorted(left_out(lines), key=lambda line: "begin like" not in line)
    assert "2 prompts of suite p begin like" in ambiguous and len(unknown) == 2
    assert all("unknown prompt id of suite p" in line for line in unknown)


@pytest.mark.fault("A12")
def test_two_folders_of_one_name_are_not_one_method(tmp_path: Path) -> None:
    for i, (model, seed) in enumerate([("x", 0), ("y", 0), ("y", 1)]):
        clip(tmp_path / model / "videos" / f"a-{seed}.mp4", i)
    x, y, out = tmp_path / "x" / "videos", tmp_path / "y" / "videos", tmp_path / "out"
    assert "would both be method videos; name each input with --arm" in refused(x, y, "--out", out)
    assert not out.exists()
    assert evaluate(x, "--out", out)[0] == 0
    assert "name this input with --arm" in refused(y, "--out", out), "nor in two calls"
    (y / "a-0.mp4").unlink()
    assert "as method videos, not of" in refused(y, "--out", out), "also of other seeds"
    assert evaluate(y, "--arm", "y", "--out", out)[0] == 0
    assert {row[3] for row in rows(out).values()} == {"videos", "y"}
    assert evaluate(x, y, "--arm", "x", "--arm", "y", "--out", tmp_path / "both")[0] == 0
    assert evaluate(x, x, "--out", tmp_path / "twice")[0] == 2


@pytest.mark.fault("A12")
def test_clips_that_are_gone_leave_scores_and_groups_with_a_line(tmp_path: Path) -> None:
    folder, out = tmp_path / "clips", tmp_path / "out"
    for seed in range(3):
        clip(folder / f"a-{seed}.mp4", seed)
    (folder / "broken-0.mp4").touch()
    other = clip(tmp_path / "other" / "a-0.mp4", 9).parent
    assert evaluate(folder, other, "--out", out)[0] == 1
    (folder / "a-2.mp4").unlink()
    (folder / "broken-0.mp4").unlink()
    code, lines = evaluate(folder, "--out", out)
    assert code == 0 and "1 clips are gone and count no longer" in notes(lines)
    assert sorted(rows(out)) == ["a-0.mp4", "a-1.mp4"]
    with Store(out / "scores.sqlite") as store:
        assert store.failures().empty
        assert set(store.samples()["method"]) == {"clips", "other"}, "other inputs stay"
    assert notes(evaluate(folder, "--out", out)[1]) == ""


@pytest.mark.fault("A7")
def test_clips_in_folders_below_are_named(tmp_path: Path) -> None:
    clip(tmp_path / "clips" / "below" / "b-0.mp4")
    assert "names no videos, but there are in below/ (1)" in refused(tmp_path / "clips")
    clip(tmp_path / "clips" / "a-0.mp4")
    said = notes(evaluate(tmp_path / "clips", "--out", tmp_path / "out")[1])
    assert "not those in below/ (1)" in said


@pytest.mark.fault("A2")
def test_a_folder_given_as_reference_keeps_its_name_and_is_tagged(tmp_path: Path) -> None:
    for i, name in enumerate(["dfd", "teacher"]):
        for seed in range(2):
            clip(tmp_path / name / f"a-{seed}.mp4", 2 * i + seed)
    out = tmp_path / "out"
    code, _ = evaluate(tmp_path / "dfd", "--reference", tmp_path / "teacher", "--out", out)
    assert code == 0
    with Store(out / "scores.sqlite") as store:
        assert store.samples()["method"].value_counts().to_dict() == {"dfd": 2, "teacher": 2}
        assert store.meta()["reference clips"] == "teacher"
        assert set(store.pooled()["reference"]) == {"teacher"}
    clip(tmp_path / "other" / "dfd" / "a-0.mp4", 9)
    same = ("--reference", tmp_path / "other" / "dfd", "--out", tmp_path / "no")
    assert "is method dfd, as one of the inputs is" in refused(tmp_path / "dfd", *same)


@pytest.mark.fault("A9")
@pytest.mark.parametrize("option", ["--reference", "--suite", "--arm", "--shard", "--seeds"])
def test_an_option_that_says_nothing_is_refused(tmp_path: Path, option: str) -> None:
    clip(tmp_path / "clips" / "a-0.mp4")
    error = refused(tmp_path / "clips", "--out", tmp_path / "out", option, "")
    assert option.strip("-") in error and not (tmp_path / "out").exists()
