"""Outputs that cannot be written, in every command: one line that names the path, exit code 2."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from calls import SMALL, invoke, refused, sets

STUDY = f'seeds = 1\nset = {list(SMALL)}\n[arms.dmd2]\nrecipe = "toy/dmd2"\n'
LONG = "a" * 300
COMMANDS = {
    "distill": ("distill", "--method", "dmd2", "--model", "{model}", *sets(SMALL), "--out"),
    "generate": ("generate", "--arm", "real", "--model", "{model}", "--seeds", "1", "--out"),
    "eval": ("eval", "{clips}", "--metrics", "colour", "--out"),
    "report": ("report", "{scores}", "--out"),
    "merge": ("merge", "{scores}/scores.sqlite", "--out"),
    "data encode": ("data", "encode", "{clips}", "--model", "{model}", "--out"),
    "bench train": ("bench", "train", "--recipe", "toy/dmd2", "--model", "{model}", "--steps", "1",
                    "--warmup", "1", "--out"),
    "toy train": ("toy", "train", "--t2v", "{model}", "--out"),
    "leaderboard add": ("leaderboard", "add", "{scores}", "--board", "mine", "--folder"),
    "study": ("study", "{study}", "--model", "{model}", "--processes", "1", "--out"),
    "check update": ("check", "update", "--quick", "--repeats", "2", "--bands"),
}  # fmt: skip
HOURS = ("toy train",)  # which must be refused at once
FILES = ("bench train", "check update")  # which write one file


@pytest.fixture
def call(tiny_checkpoint, clips, scores, tmp_path, monkeypatch):
    """The line with which a command with this output is refused."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY.replace("'", '"'))

    def call(command: str, out: object) -> str:
        places = {
            "model": tiny_checkpoint, "clips": clips, "scores": scores,
            "study": tmp_path / "study.toml",
        }  # fmt: skip
        return refused(*(word.format(**places) for word in COMMANDS[command]), out)

    return call


@pytest.mark.fault("C.output")
@pytest.mark.parametrize("out", ["file", "file/below", LONG, "/proc/nowhere/x", f"{LONG}/x"])
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in HOURS])
def test_an_output_that_cannot_be_is_named_in_one_line(command, out, call, tmp_path):
    if command in FILES and out == "file":
        pytest.skip("the file is its output, and is replaced")
    (tmp_path / "file").write_text("mine")
    line = call(command, out)
    assert out.split("/")[0][:60] in line and "; " in line
    assert (tmp_path / "file").read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.fault("C.output")
@pytest.mark.parametrize("out", ["file", "file/below", LONG])
def test_training_of_hours_finds_that_out_at_once(out, call, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert out.split("/")[0][:60] in call("toy train", out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few kilobytes and files, where the machine lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=16k,nr_inodes=12", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(options, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.fault("C.disk-full")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in (*HOURS, *FILES, "eval")])
def test_a_full_disk_is_named_in_one_line(command, call, small_disk):
    fill(small_disk)
    line = call(command, small_disk / "out")
    assert str(small_disk) in line
    assert "space left on" in line or "disk" in line


def fill(folder: Path) -> None:
    """Write until nothing more can be written."""
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while file.write(bytes(1000)):
            pass


@pytest.fixture
def read_only(small_disk):
    """The same disk, as one can only read it."""
    if subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    return small_disk


@pytest.mark.fault("C.read-only")
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_disk_that_can_only_be_read_is_named_in_one_line(command, call, read_only):
    line = call(command, read_only / "out")
    assert str(read_only) in line
    assert command in ("eval", "merge") or "read-only file system; name a place that can" in line


@pytest.mark.fault("C.names")
@pytest.mark.parametrize("name", [b"n\xff\xfe", "Größe 猫\n".encode(), b"\x1b[31mred"])
def test_names_of_any_bytes_are_written_and_printed_harmlessly(
    name, finished, tiny_checkpoint, tmp_path
):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    made = invoke("generate", "--arm", "real", "--model", tiny_checkpoint, "--seeds", "1",
                  "--out", out)  # fmt: skip
    assert made.exit_code == 0, made.output
    assert "\x1b" not in made.output
    copy = shutil.copytree(finished, Path(out) / "run")
    if b"\xff" in name:
        assert refused("generate", copy).endswith("reads no path that is not UTF-8; rename it")
        return
    assert "not JSON" in refused("distill", "--method", "dfd", "--model", tiny_checkpoint,
                                 *sets(SMALL), "--init", broken(Path(out)))  # fmt: skip


def broken(folder: Path) -> Path:
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text("{")
    return folder / "torn"


@pytest.mark.fault("C.environment")
def test_what_was_finished_stays_when_the_disk_is_full(tiny_checkpoint, tmp_path, small_disk):
    subprocess.run(["mount", "-o", "remount,size=2m,nr_inodes=400", str(small_disk)], check=False)
    words = ("generate", "--arm", "real", "--model", tiny_checkpoint, "--out", small_disk / "real")
    assert invoke(*words, "--seeds", "1").exit_code == 0
    before = {p: p.read_bytes() for p in (small_disk / "real").rglob("*.mp4")}
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(b"x" * max(0, free - 2**16))
    assert str(small_disk) in refused(*words, "--seeds", "1-3")
    assert before.items() <= {p: p.read_bytes() for p in small_disk.rglob("*.mp4")}.items()
    assert not list(small_disk.rglob(".*.part*"))
