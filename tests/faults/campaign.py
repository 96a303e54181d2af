"""Commands of the campaign of kills, and what of their output must not depend on a kill.

Everything is tiny: a random checkpoint, eight clips, six updates. `prepare` makes what the commands
read, once; `JOBS` are the commands that write. A job's words are those after `dfdbench`; OUT stands
for its output folder.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clips import random_clip

from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.utils.video import write_video

OUT = "OUT"
PROMPTS = ("a ball moving over the desert", "a ball drifting across the desert")
VOLATILE = {
    "created",
    "finished_at",
    "started",
    "date",
    "time",
    "sessions",
    "command",
    "pid",
    "host",
}
"""Keys that tell when, how long and where, not what; and all that hold "seconds"."""
SMALL = [
    "--set", "data.count=8", "--set", "optim.batch=4", "--set", "checkpoint.every_updates=1",
    "--set", "log.every=1", "--set", "log.probe_every=2", "--set", "log.decode_every=3",
]  # fmt: skip


class Job(NamedTuple):
    """A command that writes: its name, its words, and those of the call that goes on."""

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ()

    @property
    def going_on(self) -> tuple[str, ...]:
        return self.again or self.words


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def dfdbench(words: Sequence[str], cwd: Path) -> subprocess.Popen[str]:
    """The command, or Python code and its arguments, in a process of its own, its output kept."""
    return subprocess.Popen(
        [sys.executable, *(() if words[0] == "-c" else ("-m", "dfdbench")), *words],
        cwd=cwd, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(words: Sequence[str], cwd: Path) -> str:
    """The command, which must succeed; what it said."""
    process = dfdbench(words, cwd)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, f"{' '.join(words)}\n{said[-2000:]}"
    return said


def prepare(folder: Path) -> None:
    """What the jobs read: model, clips, prompts, a finished run with scores, stores, a study."""
    write_checkpoint(folder / "tiny", TINY, seed=0)
    (folder / "clips").mkdir()
    for i in range(8):
        write_video(folder / "clips" / f"clip {i % 4}-{i // 4}.mp4", random_clip(i), fps=8)
        (folder / "clips" / f"clip {i % 4}-{i // 4}.txt").write_text(PROMPTS[i % 2])
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    run([*train("dmd2", 2), "--out", "runs/dmd2"], folder)
    run(["eval", "runs/dmd2", "--seeds", "1-2", "--metrics", "colour,flicker"], folder)
    for part in ("1/2", "2/2"):
        run(["eval", "clips", "--metrics", "colour,flicker", "--shard", part, "--out", "parts"],
            folder)  # fmt: skip
    (folder / "study.toml").write_text(STUDY)


def train(method: str, updates: int, *more: str) -> list[str]:
    """Words of a tiny training."""
    return ["distill", "--method", method, "--model", "tiny", "--seed", "3", *SMALL,
            "--set", f"schedule.student_updates={updates}", *more]  # fmt: skip


_SET = [f'"{word}"' for word in SMALL if word != "--set"]
STUDY = f"""
seeds = 1

[arms.dmd2]
recipe = "toy/dmd2"
set = [{", ".join(_SET)}, "schedule.student_updates=4"]

[arms.dfd]
recipe = "toy/dfd"
init = "dmd2"
set = [{", ".join(_SET)}, "schedule.student_updates=4"]
"""
TOY = """
import sys
from dfdbench.toy import fit, train
from dfdbench.toy.checkpoint import TINY
fit.CHECKPOINT_SECONDS = 0.0
train.train(sys.argv[1], train.Settings(vae_steps=3, vae_batch=4, polish_steps=3, polish_batch=4,
    decoder_steps=3, decoder_batch=4, clips=8, teacher_steps=6, teacher_batch=4), TINY)
"""


def jobs() -> list[Job]:
    out = ("--out", OUT)
    dmd2 = train("dmd2", 8)
    dfd = train("dfd", 8, "--init", "runs/dmd2")
    dp = train("dp_dmd", 8, "--set", "dp_dmd.anchor_step=3")
    encode = ("data", "encode", "clips", "--model", "tiny", "--shard-size", "2", *out)
    scores = ("eval", "clips", "--metrics", "colour,flicker,dis_flow", *out)
    return [
        Job("distill dmd2", (*dmd2, *out), (*dmd2, *out, "--resume")),
        Job("distill dfd", (*dfd, *out), (*dfd, *out, "--resume")),
        Job("distill dp_dmd", (*dp, *out), (*dp, *out, "--resume")),
        Job("generate", ("generate", "--arm", "teacher", "--model", "tiny", "--prompts",
                         "prompts.txt", "--seeds", "1-8", "--batch", "2", *out)),
        Job("eval", scores),
        Job("eval a run", ("eval", "OUT/run", "--prompts", "prompts.txt", "--seeds", "1-4",
                           "--batch", "2", "--metrics", "colour,flicker")),
        Job("merge", ("merge", "parts/scores.shard-1-of-2.sqlite",
                      "parts/scores.shard-2-of-2.sqlite", *out)),
        Job("report", ("report", "runs/dmd2", *out)),
        Job("leaderboard add", ("leaderboard", "add", "runs/dmd2", "--board", "toy-t2v",
                                "--folder", OUT)),
        Job("leaderboard render", ("leaderboard", "render", "--folder", OUT)),
        Job("data encode", encode, (*encode, "--resume")),
        Job("study", ("study", "study.toml", "--model", "tiny", *out)),
        Job("toy train", ("-c", TOY, OUT)),
    ]  # fmt: skip


def begin(job: Job, folder: Path, out: Path) -> None:
    """What lies in the output folder before the job."""
    if job.name == "eval a run":
        shutil.copytree(folder / "runs" / "dmd2", out / "run")
        for file in (out / "run").glob("scores.sqlite*"):
            file.unlink()
    if job.name == "leaderboard render":
        run(["leaderboard", "add", "runs/dmd2", "--board", "toy-t2v", "--folder", str(out)], folder)
        for page in (*out.rglob("*.md"), *out.rglob("board.csv")):
            page.unlink()


def content(out: Path) -> dict[str, str]:
    """Path → hash of what the file says, for every file of a finished job that is no log."""
    return {
        str(file.relative_to(out)): hashlib.sha256(_said(file, out)).hexdigest()[:16]
        for file in sorted(out.rglob("*"))
        if file.is_file() and not _of_the_way(file)
    }


def _of_the_way(file: Path) -> bool:
    """Pictures, speeds, checkpoints and logs tell of the way, not of the end."""
    kinds = (".log", ".png", ".pdf", ".svg", "-wal", "-shm", "speed.json", ".pt")
    return file.name.endswith(kinds) or "checkpoints" in file.parts


def stray(out: Path) -> list[str]:
    """Files that only an interrupted writer leaves."""
    names = [file for file in out.rglob("*") if file.name.startswith(".")]
    return [str(file.relative_to(out)) for file in names]


def _said(file: Path, out: Path) -> bytes:
    if file.suffix == ".sqlite":
        return repr(_rows(file)).encode()
    if file.suffix == ".json":
        return _plain(json.loads(file.read_text()), out)
    if file.suffix == ".jsonl":
        return b"\n".join(_plain(json.loads(line), out) for line in file.read_text().split("\n")
                          if line)  # fmt: skip
    data = file.read_bytes().replace(str(out).encode(), b"OUT")
    return re.sub(rb"\d+\.\d min", b"TIME", data)  # of a report's runs


def _plain(value: Any, out: Path) -> bytes:
    def cleaned(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: cleaned(v) for k, v in item.items() if not _volatile(k)}
        return [cleaned(v) for v in item] if isinstance(item, list) else item

    text = json.dumps(cleaned(value), sort_keys=True)
    return text.replace(str(out), "OUT").encode()


def _volatile(key: str) -> bool:
    # the hash of an entry is of its time too; `leaderboard verify` is what checks it
    return key in VOLATILE or "seconds" in key or key == "sha256"


def _rows(file: Path) -> list[Any]:
    """Rows of every table without order, row numbers and times."""
    rows = []
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as store:
        tables = store.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        for (table,) in tables.fetchall():
            described = store.execute(f'PRAGMA table_info("{table}")').fetchall()
            names = [c[1] for c in described if not _volatile(c[1]) and c[1] != "id"]
            if names:
                columns = ", ".join(f'"{name}"' for name in names)
                rows.append((table, sorted(map(repr, store.execute(
                    f'SELECT {columns} FROM "{table}"')))))  # fmt: skip
    return rows
