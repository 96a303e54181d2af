"""The figure of the validity condition: where its points lie, and what it refuses."""

import pandas as pd
import pytest

from dfdbench.report.cells import COLUMNS
from dfdbench.report.earlier import Earlier
from dfdbench.report.validity import against_condition, points_of
from dfdbench.utils.errors import UserError

PROMPTS = ("ball-snow", "bar-city")
DIVERSITY = {"dmd2": 0.4, "dmd2_control": 0.5, "dfd": 0.7, "dfd_scratch": 0.45}


def info(arm, method, parent, distance=0.3, student_input="noised_real"):
    return {
        "arm": arm,
        "method": method,
        "parent": {"arm": parent} if parent else None,
        "recipe": {"student": {"input": student_input}},
        "fairness": {"real_spread_given_caption": 0.5},
        "discrepancies": {"distance2": distance},
    }


def study(path, runs):
    rows = [
        ("hue_entropy", arm, prompt, seed, 64, DIVERSITY[arm] + 0.01 * seed * (arm == "dfd"))
        for arm in DIVERSITY
        for prompt in PROMPTS
        for seed in (0, 1, 2)
    ]
    return Earlier(path, pd.DataFrame(rows, columns=COLUMNS), runs, {})


@pytest.fixture
def runs():
    return {
        "dmd2-0": info("dmd2", "dmd2", None),
        "control-0": info("dmd2_control", "dmd2", "dmd2"),
        "dfd-0": info("dfd", "dfd", "dmd2", 0.2),
        "dfd-1": info("dfd", "dfd", "dmd2", 0.4),
        "scratch-0": info("dfd_scratch", "dfd", None, 1.0),
    }


def test_points_are_dfd_minus_the_control_at_distance_over_spread(tmp_path, runs):
    after, scratch = points_of(study(tmp_path, runs))
    assert (after.arm, after.kind) == ("dfd", ("noised_real", True))
    assert after.condition == pytest.approx((0.2 / 0.5 + 0.4 / 0.5) / 2)
    assert after.gains["hue_entropy"] == pytest.approx({0: 0.2, 1: 0.21, 2: 0.22})
    assert (scratch.kind, scratch.condition) == (("noised_real", False), 2.0)
    assert scratch.gains["hue_entropy"] == pytest.approx({0: -0.05, 1: -0.05, 2: -0.05})


def test_the_figure_draws_each_point_at_its_place(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(
        "dfdbench.report.validity.read_report", lambda path: study(path, runs)
    )  # as two studies of one outcome
    figure = against_condition([tmp_path / "validity1", tmp_path / "validity2"])
    (axis,) = figure.axes
    marks = {
        (round(x, 6), round(y, 6), line.get_marker())
        for line in axis.lines
        for x, y in line.get_xydata()
    }
    assert {(0.6, 0.21, "o"), (0.6, 0.21, "s"), (2.0, -0.05, "o"), (2.0, -0.05, "s")} <= marks
    assert {(0.6, 0.2, "."), (0.6, 0.22, ".")} <= marks, "single training seeds"
    assert "from scratch, paired, validity2" in axis.get_legend_handles_labels()[1]
    assert "training seeds an arm: 3." in figure.get_label()


@pytest.mark.parametrize(
    ("arm", "change", "said"),
    [
        ("dfd-0", {"discrepancies": {}}, "a run of dfd says no"),
        ("dfd-1", {"fairness": {}}, "a run of dfd says no"),
        ("control-0", {"parent": None}, "no DFD arm with a DMD2 control"),
        ("control-0", {"recipe": {"student": {"input": "backward_simulation"}}}, "no DFD arm"),
    ],
)
def test_a_report_without_what_it_takes_is_refused(tmp_path, runs, arm, change, said):
    runs[arm] = runs[arm] | change
    with pytest.raises(UserError, match=said):
        points_of(study(tmp_path, runs))
