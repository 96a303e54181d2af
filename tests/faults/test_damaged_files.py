"""Every file that a command reads, damaged in every way: never a traceback, never changed."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clips import random_clip
from judge import state, taken
from score_runs import add_run

from dfdbench.utils.video import write_video

Damage = Callable[[bytes], bytes]
DEEP = b"[" * 100_000


def _flip(data: bytes) -> bytes:
    dice, changed = random.Random(0), bytearray(data)
    for _ in range(max(len(data) // 50, 8)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


DAMAGES: dict[str, Damage] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "one byte less": lambda data: data[:-2],
    "zeros": lambda data: bytes(len(data)),
    "random": lambda data: random.Random(1).randbytes(max(len(data), 100)),
    "flipped": _flip,
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
    "byte-order mark": lambda data: b"\xef\xbb\xbf" + data,
    "null": lambda data: b"null",
    "a list": lambda data: b"[]",
    "a table": lambda data: b"{}",
    "a number": lambda data: b"3",
    "NaN": lambda data: b'{"a": NaN, "format": Infinity}',
    "deep": lambda data: DEEP,
    "a folder": lambda data: b"folder",
    "a pipe": lambda data: b"pipe",
}

STUDY = """
seeds = 1
[arms.dmd2]
recipe = "toy/dmd2"
"""


def build(folder: Path) -> None:
    """The files, as good ones."""
    add_run(folder / "run", "dmd2", 0)
    (folder / "prompts.txt").write_text("a ball\na box\n")
    (folder / "prompts.jsonl").write_text('{"id": "a", "prompt": "a ball"}\n')
    (folder / "study.toml").write_text(STUDY)
    (folder / "recipe.toml").write_text('method = "dmd2"\n')
    for i in range(2):
        write_video(folder / "clips" / f"a-{i}.mp4", random_clip(i, frames=5), fps=8)
        (folder / "clips" / f"a-{i}.txt").write_text("a ball")
    rows = [{"path": f"clips/a-{i}.mp4", "prompt": "a ball", "seed": i} for i in range(2)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "m.csv").write_text("path,prompt,seed\nclips/a-0.mp4,a ball,0\nclips/a-1.mp4,b,1\n")
    (folder / "results.json").write_text('{"color": [0.5, []]}')


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    build(folder)
    return folder


READERS: dict[str, tuple[str, list[str]]] = {
    "manifest.jsonl": ("m.jsonl", ["eval", "m.jsonl", "--metrics", "flicker", "--out", "o"]),
    "manifest.csv": ("m.csv", ["eval", "m.csv", "--metrics", "flicker", "--out", "o"]),
    "clip": ("clips/a-0.mp4", ["eval", "clips", "--metrics", "flicker", "--out", "o"]),
    "prompts.txt": ("prompts.txt", ["eval", "clips", "--prompts", "prompts.txt", "--metrics",
                                    "flicker", "--out", "o"]),
    "recipe": ("recipe.toml", ["distill", "--recipe", "recipe.toml", "--model", "none",
                               "--out", "o"]),
    "study": ("study.toml", ["study", "study.toml", "--model", "none", "--out", "o"]),
    "run.json, report": ("run/run.json", ["report", "run", "--out", "o"]),
    "run.json, generate": ("run/run.json", ["generate", "run", "--prompts", "prompts.txt"]),
    "run.json, init": ("run/run.json", ["distill", "--method", "dfd", "--init", "run",
                                        "--model", "none", "--out", "o"]),
    "metrics.jsonl": ("run/metrics.jsonl", ["report", "run", "--out", "o"]),
    "store, report": ("run/scores.sqlite", ["report", "run", "--out", "o"]),
    "store, merge": ("run/scores.sqlite", ["merge", "run/scores.sqlite", "--out", "o"]),
    "store, export": ("run/scores.sqlite", ["vbench", "export", "run", "--out", "o"]),
    "store, leaderboard": ("run/scores.sqlite", ["leaderboard", "add", "run", "--board",
                                                 "toy-t2v", "--folder", "o"]),
    "official results": ("results.json", ["eval", "clips", "--metrics", "flicker", "--out", "o",
                                          "--official-results", "results.json"]),
    "caption": ("clips/a-0.txt", ["data", "encode", "clips", "--model", "none", "--out", "o"]),
}  # fmt: skip


@pytest.mark.fault("C.files", "D.fifo", "A13")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_told_and_stays_as_it_is(
    reader: str, damage: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    name, words = READERS[reader]
    file = folder / name
    data = DAMAGES[damage](file.read_bytes())
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "a pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(data)
    before = state(folder)
    result = taken("files", f"{reader}: {damage}", words, (0, 1, 2, 3))
    if result.exit_code == 2:
        (line,) = [line for line in result.stderr.split("\n") if line.startswith("error: ")]
        assert any(Path(word).name in line for word in (name, *words[1:]))
    kept = {path: was for path, was in before.items() if path.split("/")[0] != "o"}
    now = state(folder)
    changed = [path for path in kept if now.get(path) != kept[path]]
    assert changed == [], changed
