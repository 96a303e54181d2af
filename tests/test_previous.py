"""Runs, stores and reports of the version before the eight rooms: they open and say the same.

tests/previous holds four small runs (DMD2, its control, DFD, real clips; 3 updates, 2 clips a
prompt) made and scored by commit 29bc033, without their weights, and the report that it wrote.
"""

import json
import shutil
from pathlib import Path

import pytest

from dfdbench.distill.recipe import recipe_from_dict
from dfdbench.evaluate.merge import merge
from dfdbench.evaluate.store import Store
from dfdbench.report.page import report
from dfdbench.utils.manifest import collect
from dfdbench.utils.run import Run

PREVIOUS = Path(__file__).parent / "previous"
GONE = ("joint_cells", "joint_coverage")  # metrics that a later version has no more
RUNS = ("control", "dfd", "dmd2", "real")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, as opening a store may upgrade it."""
    folder = tmp_path_factory.mktemp("previous") / "runs"
    for name in RUNS:
        shutil.copytree(PREVIOUS / name, folder / name)
    return folder


def test_the_report_says_the_same_means(runs: Path) -> None:
    """Tests and intervals were over prompts then, and are over training seeds now."""
    page = report([runs], runs.parent / "report").parent
    for name in ("summary.json", "deltas.json"):
        old = json.loads((PREVIOUS / "report" / name).read_text(encoding="utf-8"))
        new = json.loads((page / name).read_text(encoding="utf-8"))
        assert new.keys() == old.keys()
        for key, values in old.items():
            for metric, value in values.items():
                if isinstance(value, dict) and metric not in GONE:
                    mean = new[key][metric]["mean"]
                    assert mean == pytest.approx(value["mean"], rel=1e-5, abs=1e-5), metric
                    assert new[key][metric]["prompts"] == value["n"]


def test_each_run_opens_with_its_recipe_and_clips(runs: Path) -> None:
    for name in RUNS:
        run = Run.open(runs / name)
        assert run.finished
        clips = collect(run.path, "toy-t2v")
        assert clips.is_run and len(clips.samples) == 24
        if name != "real":
            stored = json.loads((PREVIOUS / name / "run.json").read_text(encoding="utf-8"))
            recipe = recipe_from_dict(run.info["recipe"])
            assert recipe.arm == stored["arm"] and recipe.seed == stored["training_seed"]
            assert recipe.schedule.student_updates == stored["student_updates"]


def test_stores_hold_every_score_and_join(runs: Path) -> None:
    """What an older oracle read is kept, but not counted as if this version had read it."""
    stores = [runs / name / "scores.sqlite" for name in RUNS]
    joined, lines = merge(stores, runs.parent / "joined")
    with Store(joined) as together:
        whole = together.table()
    assert set(whole["method"]) == {"dfd", "dmd2", "dmd2_control", "real"}
    for path in stores:
        with Store(path) as one:
            part = one.table("toy-t2v")
        of_clips = part[part["level"] == "video"]
        key = ["method", "prompt_id", "seed", "metric"]
        both = of_clips.merge(whole, on=key, suffixes=("", "_joined"))
        assert len(both) == len(of_clips) > 400
        assert (both["value"] == both["value_joined"]).all()
    assert not (whole["level"] == "prompt").any()
    assert any("oracle: an older version of it read 96 clips" in line for line in lines)
