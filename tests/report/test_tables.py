import csv
import io
import math

import pytest

from dfdbench.report.arms import KNOWN, looks, ordered
from dfdbench.report.summary import (
    Delta,
    best_arms,
    deltas_json,
    reference_arm,
    within_range,
)
from dfdbench.report.tables import cell, delta_markdown, latex, long_csv, markdown, number
from dfdbench.statistics import Interval


def at(mean: float) -> Interval:
    return Interval(mean, mean - 0.1, mean + 0.1, 12)


SUMMARY = {
    "real": {"saturation_mean": at(0.30), "hue_entropy": at(0.99)},
    "dmd2": {"saturation_mean": at(0.25), "hue_entropy": at(0.40)},
    "dfd": {"saturation_mean": at(0.34), "hue_entropy": at(0.80)},
    "dp_dmd": {"saturation_mean": at(0.10)},
}


def test_best_of_a_nearest_reference_metric_is_neither_highest_nor_lowest():
    assert best_arms(SUMMARY, "saturation_mean") == ["dfd"]  # .04 off; dmd2 .05, dp_dmd .20


def test_best_of_a_higher_metric_is_a_student_although_real_is_higher():
    assert best_arms(SUMMARY, "hue_entropy") == ["dfd"]


def test_no_best_without_a_rival_or_without_a_reference():
    alone = {"real": SUMMARY["real"], "dfd": SUMMARY["dfd"]}
    assert best_arms(alone, "hue_entropy") == []
    students = {arm: SUMMARY[arm] for arm in ("dmd2", "dfd")}
    assert best_arms(students, "saturation_mean") == []
    assert best_arms(students, "hue_entropy") == ["dfd"]


def test_the_teacher_is_the_reference_where_there_are_no_real_clips():
    assert reference_arm(["dfd", "teacher"]) == "teacher"
    assert reference_arm(["teacher", "real"]) == "real"
    assert reference_arm(["dfd"]) is None
    moved = {**SUMMARY, "teacher": {"saturation_mean": at(0.12)}}
    del moved["real"]
    assert best_arms(moved, "saturation_mean") == ["dp_dmd"]


def test_a_tie_marks_both():
    tied = {"dmd2": {"hue_entropy": at(0.5)}, "dfd": {"hue_entropy": at(0.5)}}
    assert best_arms(tied, "hue_entropy") == ["dmd2", "dfd"]


def test_markdown_marks_the_best_and_shows_missing_as_missing():
    lines = markdown(SUMMARY).splitlines()
    assert lines[0] == "| metric | real clips | DMD2 | DFD | DP-DMD |"
    entropy = next(line for line in lines if line.startswith("| hue_entropy ↑"))
    assert "**0.800 [0.700, 0.900]**" in entropy and entropy.endswith("| — |")
    assert "0.000" not in entropy


def test_latex_escapes_names_and_keeps_columns():
    text = latex(SUMMARY)
    assert r"hue\_entropy" in text and "hue_entropy" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and all(row.count("&") == 4 for row in rows)
    assert r"\textbf{0.800} {\scriptsize [0.700, 0.900]}" in text


def test_csv_has_full_precision_and_no_row_for_a_missing_value():
    exact = {"dfd": {"hue_entropy": Interval(1 / 3, 0.1, 0.5, 7)}, "dmd2": {}}
    (row,) = csv.DictReader(io.StringIO(long_csv(exact)))
    assert float(row["mean"]) == 1 / 3 and row["n"] == "7" and row["arm"] == "dfd"


def test_one_prompt_has_no_interval():
    assert cell(Interval(0.5, math.nan, math.nan, 1)) == "0.500"
    assert cell(None) == "—"
    assert cell(Interval(43.21, 40.0, 45.99, 3)) == "43.2 [40.0, 46.0]"
    assert number(-0.0314) == "-0.031" and number(-0.0001) == "0.000"


def test_intervals_stay_within_what_a_metric_can_be():
    cut = within_range("saturation_share_09", Interval(0.02, -0.01, 0.05, 8))
    assert cut == Interval(0.02, 0.0, 0.05, 8)
    assert within_range("sprite_intact", Interval(0.98, 0.9, 1.02, 8)).high == 1.0
    assert math.isnan(within_range("sprite_intact", Interval(0.98, math.nan, math.nan, 1)).low)


def test_deltas_say_whether_the_interval_excludes_zero_and_what_came_closer():
    up = Delta("dfd", "dmd2", "hue_entropy", 0.4, 0.3, 0.5, 0.001, 0.002, 12, 2.0, 0.4)
    flat = Delta("dfd", "dmd2", "saturation_mean", 0.0, -0.1, 0.1, 0.9, 0.9, 12, math.nan, None)
    text = delta_markdown([up, flat])
    assert "### DFD − DMD2" in text
    assert (
        "| hue_entropy | +0.400 [+0.300, +0.500] | 0.0010 | 0.0020 | excludes 0 | closer |" in text
    )
    assert "includes 0 | — |" in text
    assert deltas_json([flat])["dfd - dmd2"]["saturation_mean"]["effect"] is None


def test_arms_keep_their_order_and_colour_whatever_else_is_shown():
    assert ordered(["zeta", "dfd", "real", "alpha", "dmd2"]) == [
        "real", "dmd2", "dfd", "alpha", "zeta",
    ]  # fmt: skip
    assert looks(["dfd", "x_y"])["dfd"] == looks(["real", "dfd"])["dfd"] == KNOWN["dfd"]
    many = looks([f"arm{i}" for i in range(9)] + list(KNOWN))
    assert len({(look.colour, look.marker) for look in many.values()}) >= 12
    assert many["arm3"].label == "arm3" and looks(["x_y"])["x_y"].label == "x y"


@pytest.mark.parametrize("arm", KNOWN)
def test_known_colours_differ_from_the_spare_ones(arm):
    assert KNOWN[arm].colour not in [
        look.colour for name, look in looks([f"a{i}" for i in range(6)] + [arm]).items()
        if name != arm
    ]  # fmt: skip
