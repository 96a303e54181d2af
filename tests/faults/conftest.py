"""What the campaign works with: a tiny model, a finished run of it, scored clips, the commands."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from calls import SMALL, invoke

from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.video import write_video


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
