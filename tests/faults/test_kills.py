"""Every command that writes, killed at random moments and given again: as if nothing had happened.

Four kills a job. `make test-all` runs them; with $DFDBENCH_FAULTS a folder, the outcomes are
written there, from which record.py writes results/faults/README.md.
"""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from campaign import OUT, Job, begin, content, dfdbench, jobs, prepare, run, stray

KILLS = 4
JOBS = {job.name: job for job in jobs()}


class Unbroken(NamedTuple):
    """A job's output without a kill, and when, in seconds, it began to write and ended."""

    content: dict[str, str]
    first_write: float
    end: float


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(world: Path) -> dict[str, Unbroken]:
    return {}


def words_of(words: tuple[str, ...], out: Path) -> list[str]:
    return [word.replace(OUT, str(out)) for word in words]


def files(out: Path) -> int:
    return sum(1 for _ in out.rglob("*"))


def reference(job: Job, world: Path, known: dict[str, Unbroken]) -> Unbroken:
    if job.name not in known:
        out = world / "whole" / job.name.replace(" ", "-")
        out.mkdir(parents=True)
        begin(job, world, out)
        before, started, first = files(out), time.monotonic(), 0.0
        process = dfdbench(words_of(job.words, out), world)
        while process.poll() is None:
            if not first and files(out) != before:
                first = time.monotonic() - started
            time.sleep(0.005)
        said = process.communicate()[0]
        assert process.returncode == 0, said[-2000:]
        end = time.monotonic() - started
        known[job.name] = Unbroken(content(out), first or end, end)
    return known[job.name]


@pytest.mark.slow
@pytest.mark.fault("B.kill")
@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("name", JOBS)
def test_a_killed_command_given_again_ends_as_an_unbroken_one(
    name: str, number: int, world: Path, unbroken: dict[str, Unbroken]
) -> None:
    job = JOBS[name]
    whole = reference(job, world, unbroken)
    out = world / f"killed-{number}" / name.replace(" ", "-")
    out.mkdir(parents=True)
    begin(job, world, out)
    dice = random.Random(f"{name} {number}")
    process = dfdbench(words_of(job.words, out), world)
    # within the part that writes; calls differ in pace, so the end may come first
    time.sleep(dice.uniform(max(whole.first_write - 0.3, 0.0), 0.95 * whole.end))
    how = signal.SIGKILL if number % 4 else signal.SIGTERM
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, how)
    said = process.communicate(timeout=60)[0]
    assert "Traceback" not in said, said[-2000:]
    run(words_of(job.going_on if files(out) else job.words, out), world)
    assert stray(out) == []
    assert content(out) == whole.content
    record(name, number, "ended first" if ended else how.name)


def record(name: str, number: int, how: str) -> None:
    folder = os.environ.get("DFDBENCH_FAULTS")
    if folder:
        line = {"command": name, "number": number, "how": how, "equal": True}
        with open(Path(folder) / "kills.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
