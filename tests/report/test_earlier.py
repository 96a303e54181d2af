"""Earlier reports as sources: spread over machines, a study's numbers are those of one machine."""

import json
import shutil

import pytest
from score_runs import SATURATION, add_run

from dfdbench.report.page import report
from dfdbench.utils.errors import UserError

ALONE = ("real", "teacher")


def runs_at(folder, seeds):
    for arm in SATURATION:
        for seed in (None,) if arm in ALONE else seeds:
            add_run(folder / f"{arm}-{seed}", arm, seed)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Runs of training seeds 0 to 2 and of 3, and a report of the first; treat as read-only."""
    folder = tmp_path_factory.mktemp("machines")
    first, second = runs_at(folder / "a", (0, 1, 2)), runs_at(folder / "b", (3,))
    return first, second, report([first], folder / "report-a").parent


def test_a_study_over_two_machines_has_the_numbers_of_one(parts, tmp_path):
    _, second, earlier = parts
    apart = report([second, earlier], tmp_path / "apart").parent
    everything = runs_at(tmp_path / "all", (0, 1, 2, 3))
    whole = report([everything], tmp_path / "whole").parent
    for name in ("cells.csv", "summary.json", "deltas.json", "table.md", "table.csv"):
        assert (apart / name).read_text() == (whole / name).read_text(), name
    runs = [json.loads((folder / "runs.json").read_text()) for folder in (apart, whole)]
    assert set(runs[0]) == set(runs[1]) and "dfd-3" in runs[0]
    assert [r["dfd-1"]["discrepancies"] for r in runs] == [runs[1]["dfd-1"]["discrepancies"]] * 2
    assert "the cells of earlier reports: report-a" in (apart / "report.md").read_text()


def test_reports_alone_make_a_report_which_can_be_one_again(parts, tmp_path):
    _, second, earlier = parts
    other = report([second], tmp_path / "report-b").parent
    joint = report([earlier, other], tmp_path / "joint").parent
    direct = report([second, earlier], tmp_path / "direct").parent
    again = report([joint], tmp_path / "again").parent
    for name in ("cells.csv", "summary.json", "deltas.json"):
        assert (joint / name).read_text() == (direct / name).read_text(), name
        assert (again / name).read_text() == (joint / name).read_text(), name


def test_a_run_that_both_have_counts_once_and_one_with_other_values_is_refused(parts, tmp_path):
    first, _, earlier = parts
    same = report([first, earlier], tmp_path / "same").parent
    assert (same / "cells.csv").read_text() == (earlier / "cells.csv").read_text()
    lines = (earlier / "cells.csv").read_text().splitlines()
    i = next(i for i, line in enumerate(lines) if "hue_entropy,dfd," in line and ",1," in line)
    lines[i] = lines[i].rpartition(",")[0] + ",0.5"
    changed = shutil.copytree(earlier, tmp_path / "changed")
    (changed / "cells.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"changed/cells.csv: dfd of training seed 1 has other"):
        report([first, changed], tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("runs.json", '"arm": "dfd"', '"teacher_sha256": "other", "arm": "dfd"', "its dfd has"),
        ("provenance.json", '"suite": "toy-t2v"', '"suite": "toy-hue"', "a report of toy-hue, not"),
        ("runs.json", "{", "[", "runs.json"),
        ("runs.json", '"arm"', '"army"', "runs.json"),
        ("provenance.json", '"metrics": {', '"metrics": 3, "x": {', "provenance.json"),
    ],
)
def test_a_report_of_something_else_is_refused(parts, tmp_path, file, old, new, said):
    _, second, earlier = parts
    changed = shutil.copytree(earlier, tmp_path / "changed")
    text = (changed / file).read_text()
    assert old in text
    (changed / file).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        report([second, changed], tmp_path / "out", suite="toy-t2v")
    assert not (tmp_path / "out").exists()


def test_metrics_of_another_version_are_not_joined(parts, tmp_path):
    _, second, earlier = parts
    changed = shutil.copytree(earlier, tmp_path / "changed")
    provenance = json.loads((changed / "provenance.json").read_text())
    for store in provenance.values():
        store["metric_versions"]["saturation_mean"] = 99
    (changed / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(UserError, match=r"its saturation_mean \(.*: 99, none, none\) was"):
        report([second, changed], tmp_path / "out")
