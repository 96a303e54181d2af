"""What the campaign works with: a tiny model, a finished run of it, scored clips, the commands."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.video import write_video

SMALL = (
    "data.count=4", "optim.batch=2", "student.steps=1", "schedule.student_updates=2",
    "schedule.student_update_freq=2", "init.updates=1", "log.every=1", "log.probe_every=0",
    "log.decode_every=0",
)  # fmt: skip


def sets(values: Sequence[str]) -> list[str]:
    """Recipe values as words of a command."""
    return [word for value in values for word in ("--set", value)]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache of our own, for this process and those that it starts."""
    before = os.environ.get("DFDBENCH_CACHE")
    os.environ["DFDBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["DFDBENCH_CACHE"])
    if before is None:
        del os.environ["DFDBENCH_CACHE"]
    else:
        os.environ["DFDBENCH_CACHE"] = before


@pytest.fixture(scope="session")
def finished(tiny_checkpoint, tmp_path_factory, cache):
    """A finished run of DMD2; treat it as read-only, or copy it."""
    recipe = load_recipe("toy/dmd2", [f"model={tiny_checkpoint}", *SMALL])
    return distill(recipe, tmp_path_factory.mktemp("runs") / "dmd2").path


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of the finished run, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of two clips with captions."""
    folder = tmp_path_factory.mktemp("clips") / "clips"
    rng = np.random.default_rng(0)
    for i in range(2):
        frames = rng.integers(0, 255, (17, 64, 64, 3)).astype(np.uint8)
        write_video(folder / f"a cat-{i}.mp4", frames, 8)
        (folder / f"a cat-{i}.txt").write_text("a cat")
    return folder


@pytest.fixture(scope="session")
def scores(clips, tmp_path_factory, cache):
    """A folder with the clips' scores."""
    out = tmp_path_factory.mktemp("scores") / "scores"
    assert invoke("eval", clips, "--metrics", "colour,flicker", "--out", out).exit_code == 0
    return out


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
