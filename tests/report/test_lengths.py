"""The figure of metrics against updates: where points and lines are, and when there is none."""

from pathlib import Path

import pytest

from dfdbench.report.collect import RunRecord
from dfdbench.report.lengths import against_updates, last_of, longest_line, updates_of
from dfdbench.report.statistics import Interval


def run(arm: str, total: int, parent: str | None = None, seed: int = 0) -> RunRecord:
    return RunRecord(Path(arm), arm, seed, {"student_updates_total": total}, parent=parent)


def interval(mean: float, seeds: int = 3) -> Interval:
    by_seed = {seed: mean + 0.01 * (seed - 1) for seed in range(seeds)}
    return Interval(mean, mean - 0.1, mean + 0.1, mean, seeds, 16, 64, by_seed)


RUNS = [
    run("dmd2", 200), run("dmd2", 200, seed=1), run("more", 400, "dmd2"), run("most", 600, "more"),
    run("dfd", 280, "dmd2"),
]  # fmt: skip
SUMMARY = {
    "teacher": {"open_gini": interval(0.9, 0)},
    "dmd2": {"open_gini": interval(0.6)},
    "more": {"open_gini": interval(0.5)},
    "most": {"open_gini": interval(0.4)},
    "dfd": {"open_gini": interval(0.7)},
}


def test_lines_join_each_arm_to_the_one_it_continues():
    figure = against_updates(SUMMARY, RUNS)
    (axis,) = figure.axes
    lines = [tuple(map(tuple, line.get_xydata())) for line in axis.lines]
    joined = {line for line in lines if len(line) == 2 and line[0][0] != line[1][0]}
    joined.discard(((0.0, 0.9), (1.0, 0.9)))
    assert joined == {
        ((200.0, 0.6), (400.0, 0.5)), ((400.0, 0.5), (600.0, 0.4)), ((200.0, 0.6), (280.0, 0.7)),
    }  # fmt: skip
    assert ((200.0, 0.59), (200.0, 0.6), (200.0, 0.61)) in lines, "the seeds of dmd2"
    assert axis.get_legend_handles_labels()[1] == ["teacher", "DMD2", "most", "DFD"]


def test_arms_of_one_line_look_alike():
    last = last_of({"more": "dmd2", "most": "more", "dfd": "dmd2"}, list(SUMMARY)[1:])
    assert last == {"dmd2": "dmd2", "more": "most", "most": "most", "dfd": "dfd"}
    (axis,) = against_updates(SUMMARY, RUNS).axes
    means = {line.get_xdata()[0]: line.get_color() for line in axis.lines
             if line.get_markersize() == 6 and len(line.get_xdata()) == 1}  # fmt: skip
    assert means[400] == means[600] != means[200] and means[280] != means[600]
    assert last_of({"a": "b", "b": "a"}, ["a", "b"]) == {"a": "b", "b": "a"}


def test_stages_of_other_methods_have_looks_of_their_own():
    stages = [run("ode_init", 400), run("self_forcing_dmd", 600, "ode_init"),
              run("self_forcing_control", 680, "self_forcing_dmd")]  # fmt: skip
    for stage, method in zip(stages, ("ode_init", "dmd2", "dmd2"), strict=True):
        stage.info["method"] = method
    summary = {stage.arm: {"open_gini": interval(0.9 - 0.1 * i)} for i, stage in enumerate(stages)}
    (axis,) = against_updates(summary, stages).axes
    assert axis.get_legend_handles_labels()[1] == ["ODE initialisation", "Self Forcing control"]


def test_two_lengths_are_no_curve():
    assert longest_line(RUNS) == 3 and updates_of(RUNS)["dmd2"] == 200
    assert longest_line(RUNS[:3]) == 2
    assert against_updates(SUMMARY, RUNS[:3]) is None
    assert against_updates(SUMMARY, []) is None


@pytest.mark.parametrize("metric", ["hue_gini", "contrast_rms"])
def test_without_a_headline_metric_there_is_no_curve(metric):
    other = {arm: {metric: values["open_gini"]} for arm, values in SUMMARY.items()}
    assert against_updates(other, RUNS) is None
