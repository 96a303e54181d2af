"""Flags of every command against values that mean nothing, and outputs that cannot be written."""

import os
from pathlib import Path

import pytest
from clips import random_clip
from judge import refused, state
from score_runs import add_run

from dfdbench.utils.video import write_video

SEEDS = (
    "", " ", ",", "0-", "-", "5-1", "x", "1,,2", "1-1000000000", "1-99999999999999999999", "-1",
    "18446744073709551616", "1.5", "nan", "1e3", "1-8;rm", "1-2-3", "0x10", "1_0", "٣", "1\n2",
)  # fmt: skip
SHARDS = ("", "0/3", "4/3", "1/0", "x", "1/3/2", "-1/3", "1", "/", "1/", "1.5/3", "1/3\n", "1//3")
DEVICES = ("tpu", "", "cuda:x", "cuda:99", "gpu", "cpu:1:2", "CPU ", "mps:9", "cuda:-1", "meta")
NUMBERS = ("nan", "inf", "-inf", "-1", "1e400", "x", "")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A run with scores, a folder of clips, prompts; `tiny`, a model."""
    folder = tmp_path_factory.mktemp("flags")
    add_run(folder / "run", "dmd2", 0)
    for i in range(2):
        write_video(folder / "clips" / f"a-{i}.mp4", random_clip(i, frames=5), fps=8)
        (folder / "clips" / f"a-{i}.txt").write_text("a ball")
    (folder / "prompts.txt").write_text("a ball\n")
    (folder / "file").write_text("a file")
    (folder / "tiny").symlink_to(tiny_checkpoint)
    return folder


def commands(world: Path) -> dict[str, list[str]]:
    """Commands that would do little if they were not refused, without their output."""
    model = ["--model", str(world / "tiny")]
    return {
        "distill": ["distill", "--method", "dmd2", *model, "--set", "data.count=1",
                    "--set", "optim.batch=1", "--set", "schedule.student_updates=1"],
        "generate": ["generate", "--arm", "teacher", *model,
                     "--prompts", str(world / "prompts.txt")],
        "eval": ["eval", str(world / "clips"), "--metrics", "flicker"],
        "data encode": ["data", "encode", str(world / "clips"), *model],
        "report": ["report", str(world / "run")],
        "merge": ["merge", str(world / "run" / "scores.sqlite")],
        "vbench export": ["vbench", "export", str(world / "run")],
        "leaderboard add": ["leaderboard", "add", str(world / "run"), "--board", "toy-t2v"],
        "study": ["study", "toy/quickstart", *model],
        "quickstart": ["quickstart", *model],
        "toy train": ["toy", "train"],
        "bench train": ["bench", "train", "--method", "dmd2", *model,
                        "--steps", "1", "--warmup", "1"],
    }  # fmt: skip


FLAGS = [
    *((command, "--seeds", value, "A9") for command in ("generate", "eval") for value in SEEDS),
    *((command, "--shard", value, "A9")
      for command in ("generate", "eval", "data encode") for value in SHARDS),
    *((command, "--device", value, "C.device")
      for command in ("distill", "generate", "eval", "data encode", "bench train")
      for value in DEVICES),
    *(("generate", "--cfg", value, "A9") for value in NUMBERS),
    *((command, "--batch", value, "A9")
      for command in ("generate", "eval") for value in (*NUMBERS, "0", "1.5")),
    *(("data encode", flag, value, "A9")
      for flag in ("--fps", "--frames", "--height", "--width", "--shard-size")
      for value in NUMBERS),
    *(("study", "--training-seeds", value, "A9") for value in SEEDS),
]  # fmt: skip


@pytest.mark.fault("A9", "C.device", "D.seeds")
@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [item[:3] for item in FLAGS],
    ids=[f"{command} {flag} {value!r}" for command, flag, value, _ in FLAGS],
)
def test_a_value_that_means_nothing_is_refused(
    command: str, flag: str, value: str, world: Path, tmp_path: Path
) -> None:
    before, out = state(world), tmp_path / "out"
    words = [*commands(world)[command], f"{flag}={value}", "--out", str(out)]
    said = refused("flags", f"{command} {flag}={value!r}", words)
    assert flag.lstrip("-") in said or flag in said
    assert state(world) == before and not out.exists()


def outputs(world: Path, tmp_path: Path) -> dict[str, str]:
    """Places that no command can write to, also as root."""
    return {
        "a file": str(world / "file"),
        "below a file": str(world / "file" / "below"),
        "too long a name": str(tmp_path / ("n" * 300)),
        "too long a path": str(tmp_path.joinpath(*["d" * 200] * 25)),
        "a folder that takes nothing": "/proc/dfdbench",
        "a NUL": str(tmp_path / "a\0b"),
        "empty": "",
        "a link in a circle": str(_circle(tmp_path)),
        "a device": "/dev/null",
    }


def _circle(folder: Path) -> Path:
    link = folder / "circle"
    if not link.is_symlink():
        link.symlink_to(link)
    return link


WRITERS = (
    "distill", "generate", "eval", "data encode", "report", "merge", "vbench export",
    "leaderboard add", "study", "quickstart", "toy train", "bench train",
)  # fmt: skip
PLACES = (
    "a file", "below a file", "too long a name", "too long a path", "a folder that takes nothing",
    "a NUL", "empty", "a link in a circle", "a device",
)  # fmt: skip


@pytest.mark.fault("C.output")
@pytest.mark.parametrize(
    ("command", "place"),
    [  # bench writes one file, which replaces what stood there
        (command, place)
        for command in WRITERS
        for place in PLACES
        if command != "bench train" or place not in ("a file", "a link in a circle")
    ],
)
def test_an_output_that_cannot_be_is_one_line(
    command: str, place: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, out = state(world), outputs(world, tmp_path)[place]
    flag = "--folder" if command == "leaderboard add" else "--out"
    refused("outputs", f"{command}: {place}", [*commands(world)[command], flag, out])
    assert state(world) == before
    assert not [p for p in tmp_path.rglob("*") if p.is_file()] or place == "empty"
    assert os.path.exists("/dev/null")
