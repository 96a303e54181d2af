"""Atomic writes: whose temporaries are swept, which mode files get, what faults of the disk say."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfdbench.utils.errors import UserError
from dfdbench.utils.files import (
    atomic_path,
    disk_faults,
    reserve,
    sha256_cached,
    sha256_file,
    sweep,
    trim_jsonl,
    write_json,
    write_text,
)
from dfdbench.utils.folders import atomic_folder
from dfdbench.utils.video import write_video

DEAD = """
import os, sys
from pathlib import Path
from dfdbench.utils.files import reserve
temporary, held = reserve(Path(sys.argv[1]), folder=sys.argv[2] == "folder")
print(temporary, flush=True)
os.kill(os.getpid(), 9)
"""


def killed_write(path: Path, kind: str = "file") -> Path:
    """The temporary of a process that was killed while it wrote `path`."""
    done = subprocess.run(
        [sys.executable, "-c", DEAD, str(path), kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    return Path(done.stdout.strip())


@pytest.mark.fault("B.sweep")
@pytest.mark.parametrize("name", ["run.json", "7.mp4", "seed-grid.png", "no suffix", "ä" * 60])
def test_the_next_write_takes_a_killed_ones_temporary_away(tmp_path, name):
    left = killed_write(tmp_path / name)
    assert left.exists() and left.name.startswith(".")
    assert left.suffix == (Path(name).suffix or ".part")
    write_text(tmp_path / name, "whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.fault("B.sweep")
@pytest.mark.parametrize("name", ["student", "critic", "step-3"])
def test_a_killed_ones_folder_is_taken_away_too(tmp_path, name):
    left = killed_write(tmp_path / name, "folder")
    (left / "weights").write_text("half")
    with atomic_folder(tmp_path / name) as temporary:
        (temporary / "weights").write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.fault("B.sweep")
def test_only_ours_only_of_the_dead_and_only_of_the_target_are_swept(tmp_path):
    target = tmp_path / "a.txt"
    living, held = reserve(target)
    other = killed_write(tmp_path / "b.txt")
    foreign = [".a.txt", ".a.1a2b3c4d.txt", ".a.1A2B3C4D.part.txt", "a.1a2b3c4d.part.txt", ".git"]
    for name in foreign:
        (tmp_path / name).write_text("not ours")
    (tmp_path / ".a.00000000.part.txt").symlink_to(tmp_path / ".git")
    write_text(target, "x")
    kept = {living.name, other.name, target.name, ".a.00000000.part.txt", *foreign}
    assert {p.name for p in tmp_path.iterdir()} == kept
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == kept - {other.name}
    os.close(held)
    sweep(tmp_path)
    assert living.name not in {p.name for p in tmp_path.iterdir()}


@pytest.mark.fault("E.umask")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_files_and_folders_get_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", 1)
        write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8)
        with atomic_path(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(2)}, temporary)
        with atomic_folder(tmp_path / "folder") as temporary:
            save_file({"x": torch.zeros(2)}, temporary / "x.safetensors")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes.pop("folder") == 0o777 & ~mask
    assert set(modes.values()) == {0o666 & ~mask}, modes


def torch_save(path: Path) -> None:
    torch.save({"x": torch.zeros(2**19)}, path)


def safetensors_save(path: Path) -> None:
    save_file({"x": torch.zeros(2**19)}, path)


def plain(path: Path) -> None:
    path.write_bytes(bytes(2**21))


def picture(path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    Image.fromarray(noise).save(path)


def video(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (9, 512, 512, 3), np.uint8)
    write_video(path, noise, 8)


WRITERS = {
    "a.pt": torch_save,
    "a.safetensors": safetensors_save,
    "a.bin": plain,
    "a.png": picture,
    "a.mp4": video,
}
FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_files
from dfdbench.utils.files import atomic_path
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    with atomic_path(path) as temporary:
        test_files.WRITERS[path.name](temporary)
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.fault("C.disk-full")
@pytest.mark.parametrize("name", WRITERS)
def test_what_a_library_says_of_a_full_disk_names_the_file(tmp_path, name):
    """The limit of a file's size stands for the disk's: both fail in the middle of a write."""
    path = tmp_path / name
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(Path(__file__).parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    number, _, named = done.stdout.strip().partition(" ")
    assert int(number) in (errno.EFBIG, errno.ENOSPC, errno.EIO), done.stderr
    assert named == str(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.fault("C.disk-full")
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space" })'), 28),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 28),
        (OSError(errno.EROFS, "Read-only file system", ".a.1a2b3c4d.part.txt"), 30),
    ],
)
def test_a_fault_of_the_disk_in_other_words_is_one(tmp_path, error, number):
    if isinstance(error, OSError) and error.filename:
        error.filename = str(tmp_path / error.filename)
    with pytest.raises(OSError) as caught, disk_faults(tmp_path / "a.txt"):
        raise error
    assert caught.value.errno == number and caught.value.filename == str(tmp_path / "a.txt")


def test_other_errors_pass_as_they_are(tmp_path):
    for error in (ValueError("x"), UserError("y"), FileNotFoundError(2, "no", "/elsewhere")):
        with pytest.raises(type(error)) as caught, disk_faults(tmp_path / "a.txt"):
            raise error
        assert caught.value is error


@pytest.mark.fault("C.output")
def test_a_pipe_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a device or pipe"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.fault("C.names")
def test_bytes_of_a_name_that_are_no_text_come_back_from_json(tmp_path):
    from dfdbench.utils.reading import read_json

    name = os.fsdecode(b"clip-\xff\xfe")
    write_json(tmp_path / "a.json", {"path": name})
    assert read_json(tmp_path / "a.json", dict[str, str], "") == {"path": name}


@pytest.mark.fault("C.read-back")
@pytest.mark.parametrize("content", ["[]", "null", "3", "{", "", '{"a": 1}', "[" * 100_000, "\0"])
def test_a_memory_of_hashes_that_is_none_is_as_if_not_there(tmp_path, monkeypatch, content):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path))
    (tmp_path / "hashes.json").write_text(content)
    (tmp_path / "file").write_text("x")
    assert sha256_cached([tmp_path / "file"]) == sha256_file(tmp_path / "file")
    assert sha256_cached([tmp_path / "file"]) == sha256_file(tmp_path / "file")


@pytest.mark.fault("C.read-back")
@pytest.mark.parametrize("line", ["{", "[]", '{"other": 1}', '{"update": "x"}', "\xff"])
def test_a_broken_line_within_a_log_is_named_and_stays(tmp_path, line):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b'{"update": 1}\n' + line.encode("latin-1") + b'\n{"update": 2}\n')
    before = log.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a line of this log"):
        trim_jsonl(log, "update", 1)
    assert log.read_bytes() == before


def test_a_log_keeps_its_lines_up_to_the_last_and_drops_a_torn_one(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"update": 1, "note": "a\u2028b"}\n{"update": 2}\n{"upd')
    trim_jsonl(log, "update", 1)
    assert log.read_text() == '{"update": 1, "note": "a\u2028b"}\n'


def test_a_file_that_must_be_new_leaves_one_that_appeared_meanwhile(tmp_path):
    path = tmp_path / "new.txt"
    with atomic_path(path, replace=False) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(FileExistsError), atomic_path(path, replace=False) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["new.txt"]
