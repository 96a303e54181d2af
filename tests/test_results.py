"""The committed evidence under results/toy* belongs to the shipped weights and is whole."""

import json
from pathlib import Path

import pytest

from dfdbench.cli.study import load_study
from dfdbench.models.registry import resolve_folder
from dfdbench.report.collect import RunRecord
from dfdbench.report.pairs import usual_pairs
from dfdbench.report.summary import COST
from dfdbench.utils.run import weights_sha256

RESULTS = Path(__file__).parent.parent / "results"
COMPARISONS = {"toy": "toy-t2v", "toy-i2v": "toy-i2v"}  # folder -> the model of its runs
ARMS = {"real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"}

of_both = pytest.mark.parametrize("folder", COMPARISONS)


def shipped(folder):
    return weights_sha256(resolve_folder(COMPARISONS[folder]) / "transformer")


def load(folder, name):
    return json.loads((RESULTS / folder / name).read_text())


@of_both
def test_runs_of_the_main_comparison_used_the_shipped_teacher_and_equal_recipes(folder):
    runs = load(folder, "runs.json").values()
    trained = [run for run in runs if run["training_seed"] is not None]
    assert {run["teacher_sha256"] for run in trained} == {shipped(folder)}
    for key in ("batch", "lr", "fake_lr", "data_sha256", "cfg", "ratio", "student_times", "ema"):
        values = {json.dumps(run["fairness"][key]) for run in trained}
        assert len(values) == 1, key
    updates = {run["arm"]: run["fairness"]["student_updates"] for run in trained}
    assert updates["dfd"] == updates["dmd2_control"]


@of_both
def test_summary_holds_every_arm_with_intervals_over_three_training_seeds(folder):
    summary = load(folder, "summary.json")
    assert (ARMS | {"dp_dmd_k1"} if folder == "toy-i2v" else ARMS) <= set(summary)
    for arm, metrics in summary.items():
        assert len(metrics["training_seeds"]) >= 3 or arm in ("real", "teacher")
        for metric, value in metrics.items():
            if metric not in ("training_seeds", *COST):
                if value["low"] is None:
                    assert arm in ("real", "teacher"), metric
                else:
                    assert value["low"] <= value["mean"] <= value["high"], metric
                assert value.get("n", value.get("prompts")) > 0, metric


@pytest.mark.parametrize(
    ("folder", "study"),
    [("toy", "toy/main"), ("toy-i2v", "toy-i2v/main"), ("toy/questions", "toy/questions")],
)
def test_runs_and_study_still_ask_for_the_comparisons_that_are_committed(folder, study):
    runs = [RunRecord(Path(n), i["arm"], 0, i) for n, i in load(folder, "runs.json").items()]
    usual = usual_pairs([run.arm for run in runs], runs)
    named = [(arm.name, arm.against) for arm in load_study(study).arms if arm.against]
    assert [f"{a} - {b}" for a, b in dict.fromkeys([*usual, *named])] == list(
        load(folder, "deltas.json")
    )


def test_every_arm_of_image_to_video_keeps_the_first_frame():
    for arm, metrics in load("toy-i2v", "summary.json").items():
        assert (metrics["first_frame_psnr"]["low"] or metrics["first_frame_psnr"]["mean"]) >= 30, (
            arm
        )


def test_the_regression_reference_was_made_with_the_shipped_teacher():
    reference = load("toy", "reference.json")
    for size in ("quick", "full"):
        assert reference[size]["provenance"]["teacher_sha256"] == shipped("toy")


@of_both
def test_the_teacher_s_measured_quality_is_that_of_the_shipped_weights(folder):
    assert load(folder, "teacher/quality.json")["teacher_sha256"] == shipped(folder)
