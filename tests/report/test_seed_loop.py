"""The loop of README, from the small runs of tests/previous: every frame of the clips in time."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_house import ROOT

from dfdbench.report.collect import collect
from dfdbench.report.figures import seed_grid
from dfdbench.utils.errors import UserError

sys.path.insert(0, str(ROOT / "benchmarks"))
import seed_loop

PROMPT = "ball-snow"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, as opening a store may upgrade it."""
    folder = tmp_path_factory.mktemp("loop")
    for name in ("dmd2", "dfd"):
        shutil.copytree(ROOT / "tests" / "previous" / name, folder / name)
    return folder


@pytest.mark.slow
def test_the_loop_has_a_picture_for_each_frame_and_starts_again(runs, monkeypatch):
    monkeypatch.setattr(seed_loop, "WIDTH", 240)
    out = seed_loop.write_loop([runs], runs / "loop.webp", ("dmd2", "dfd"), PROMPT)
    loop = Image.open(out)
    assert (loop.n_frames, loop.info["loop"]) == (17, 0)
    assert loop.size[0] == 240
    grid = seed_grid(collect([runs]), PROMPT, 16)  # dmd2 and dfd are all that is there
    last = np.asarray(seed_loop.picture(grid), float)
    errors = []
    for index in (0, 8, 16):
        loop.seek(index)
        errors.append(np.abs(np.asarray(loop.convert("RGB"), float) - last).mean())
    assert errors[2] < errors[1] and errors[2] < errors[0]


def test_an_arm_a_prompt_and_a_format_that_are_not_there_are_refused(runs):
    with pytest.raises(UserError, match="--arms teacher: not among the runs; known: dfd, dmd2"):
        seed_loop.write_loop([runs], runs / "a.webp", ("teacher", "dfd"))
    with pytest.raises(UserError, match="--prompt cat: not among the clips"):
        seed_loop.write_loop([runs], runs / "a.webp", ("dfd",), "cat")
    with pytest.raises(UserError, match=r"ends in \.webp or \.gif"):
        seed_loop.write_loop([runs], runs / "a.mp4", ("dfd",))
    assert not list(runs.glob("a.*"))
