"""Commands as the campaign gives them, in this process or one of their own, and the tiny recipe."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from dfdbench.cli.app import app

SMALL = (
    "data.count=4", "optim.batch=2", "student.steps=1", "schedule.student_updates=2",
    "schedule.student_update_freq=2", "init.updates=1", "log.every=1", "log.probe_every=0",
    "log.decode_every=0",
)  # fmt: skip


def sets(values: Sequence[str]) -> list[str]:
    """Recipe values as words of a command."""
    return [word for value in values for word in ("--set", value)]


def invoke(*words: object):
    """A command in this process; an error that is not a clean exit fails the test."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*words: object) -> str:
    """The one line with which a command is refused by exit code 2."""
    result = invoke(*words)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1, result.output
    assert "own fault" not in result.stderr and "Traceback" not in result.output
    return errors[0]


def start(*words: object, **options) -> subprocess.Popen:
    """A command in a process of its own, with one thread."""
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-m", "dfdbench", *map(str, words)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
