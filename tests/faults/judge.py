"""How the campaign of bad input judges a command: one clear line, and nothing harmed.

Each outcome goes to $DFDBENCH_FAULTS/inputs.jsonl, where that folder is named.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner, Result

from dfdbench.cli.app import app

SECONDS = 20.0  # a hang; the 5 s, on a machine that does other work beside
LINES = 40  # more is a flood


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Fail where the body takes longer, also where it waits for a file that never ends.

    No TimeoutError, which is an OSError and might be taken for a fault of the disk.
    """

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def state(folder: Path) -> dict[str, str]:
    """Path → hash of every file below the folder, and what is no file."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        )
        for path in sorted(folder.rglob("*"))
    }


def call(words: Sequence[str]) -> Result:
    """The command in this process; a traceback or a hang fails the test."""
    started = time.monotonic()
    with limit(SECONDS):
        result = CliRunner().invoke(app, list(words))
    fault = result.exception
    assert fault is None or isinstance(fault, SystemExit), f"{words}: {fault!r}"
    assert "Traceback" not in result.output, result.output[-2000:]
    assert "own fault" not in result.output, result.output[-2000:]
    assert result.output.count("\n") <= LINES, f"a flood: {result.output[:2000]}"
    assert not any(ord(c) < 32 and c not in "\n\t\r" for c in result.output), (
        "raw control characters"
    )
    assert time.monotonic() - started < SECONDS
    return result


def refused(kind: str, case: str, words: Sequence[str], *names: str) -> str:
    """The command must be refused: exit code 2 and one line that holds `names`; that line."""
    result = call(words)
    lines = [line for line in result.stderr.split("\n") if line.startswith("error: ")]
    assert result.exit_code == 2, f"exit {result.exit_code}: {result.output[-1000:]}"
    assert len(lines) == 1 and result.stderr.rstrip().endswith(lines[0]), result.output[-1500:]
    for name in names:
        assert name in lines[0], f"{name!r} is not in {lines[0]!r}"
    record(kind, case, "refused")
    return lines[0]


def taken(kind: str, case: str, words: Sequence[str], codes: Sequence[int], *names: str) -> Result:
    """The command goes on; its exit code is one of `codes` and it names what was left out."""
    result = call(words)
    assert result.exit_code in codes, f"exit {result.exit_code}: {result.output[-1500:]}"
    for name in names:
        assert name in result.output, f"{name!r} is not in {result.output[-1500:]!r}"
    record(kind, case, {0: "taken", 2: "refused"}.get(result.exit_code, "named"))
    return result


def record(kind: str, case: str, outcome: str) -> None:
    if folder := os.environ.get("DFDBENCH_FAULTS"):
        with open(Path(folder) / "inputs.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "case": case, "outcome": outcome}) + "\n")
