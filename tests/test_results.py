"""The committed evidence under results/toy belongs to the shipped weights and is whole."""

import json
from pathlib import Path

import pytest

from dfdbench.models import resolve_folder
from dfdbench.report.summary import COST
from dfdbench.run import weights_sha256

RESULTS = Path(__file__).parent.parent / "results" / "toy"


@pytest.fixture(scope="module")
def shipped():
    return weights_sha256(resolve_folder("toy-t2v") / "transformer")


def load(name):
    return json.loads((RESULTS / name).read_text())


def test_runs_of_the_main_comparison_used_the_shipped_teacher_and_equal_recipes(shipped):
    trained = [run for run in load("runs.json").values() if run["training_seed"] is not None]
    assert {run["teacher_sha256"] for run in trained} == {shipped}
    for key in ("batch", "lr", "fake_lr", "data_sha256", "cfg", "ratio", "student_times", "ema"):
        values = {json.dumps(run["fairness"][key]) for run in trained}
        assert len(values) == 1, key
    updates = {run["arm"]: run["fairness"]["student_updates"] for run in trained}
    assert updates["dfd"] == updates["dmd2_control"]


def test_summary_holds_every_arm_with_intervals_over_three_training_seeds():
    summary = load("summary.json")
    assert {"real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"} <= set(summary)
    for arm, metrics in summary.items():
        assert len(metrics["training_seeds"]) >= 3 or arm in ("real", "teacher")
        for metric, value in metrics.items():
            if metric not in ("training_seeds", *COST):
                assert value["low"] <= value["mean"] <= value["high"] and value["n"] > 0, metric


def test_the_regression_reference_was_made_with_the_shipped_teacher(shipped):
    reference = load("reference.json")
    for size in ("quick", "full"):
        assert reference[size]["provenance"]["teacher_sha256"] == shipped


def test_the_teacher_s_measured_quality_is_that_of_the_shipped_weights(shipped):
    assert load("teacher/quality.json")["teacher_sha256"] == shipped
