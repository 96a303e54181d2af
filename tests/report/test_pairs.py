"""Which arms a report compares follows from their runs and recipes, not from a list of methods."""

from pathlib import Path

import pytest

from dfdbench.report.collect import RunRecord
from dfdbench.report.pairs import usual_pairs


def run(arm: str, method: str, parent: str | None, updates: int = 80) -> RunRecord:
    origin = {"arm": parent} if parent else None
    info = {"method": method, "student_updates": updates, "parent": origin}
    return RunRecord(Path(arm), arm, 0, info)


TRAINED = [
    run("dmd2", "dmd2", None, 200),
    run("dmd2_control", "dmd2", "dmd2"),
    run("dfd", "dfd", "dmd2"),
    run("dfd_mixture", "dfd", "dmd2"),
    run("dp_dmd", "dp_dmd", None, 280),
]
SHIPPED = [
    ("dmd2", "teacher"), ("dfd", "dmd2_control"), ("dfd", "dmd2"), ("dp_dmd", "dmd2"),
    ("dp_dmd", "teacher"),
]  # fmt: skip


def pairs(runs: list[RunRecord]) -> list[tuple[str, str]]:
    return usual_pairs(["real", "teacher", *(run.arm for run in runs)], runs)


def test_the_shipped_arms_make_the_same_pairs_with_and_without_their_runs():
    assert pairs(TRAINED) == SHIPPED
    assert usual_pairs(["teacher", *(run.arm for run in TRAINED)], []) == SHIPPED
    assert usual_pairs(["dmd2", "dp_dmd", "mine"], []) == [("dp_dmd", "dmd2")]


def test_a_new_method_is_compared_without_a_word_in_the_code():
    new = set(pairs([*TRAINED, run("mine", "mine", "dmd2")])) - set(SHIPPED)
    assert new == {("mine", "dmd2_control"), ("mine", "dmd2")}
    new = set(pairs([*TRAINED, run("mine", "mine", None)])) - set(SHIPPED)
    assert new == {("mine", "dmd2"), ("mine", "teacher")}


@pytest.mark.parametrize(("updates", "there"), [(80, True), (81, False)])
def test_a_control_has_as_many_updates(updates, there):
    runs = [TRAINED[0], run("dmd2_control", "dmd2", "dmd2", updates), TRAINED[2]]
    assert (("dfd", "dmd2_control") in pairs(runs)) is there


def test_two_students_that_others_go_on_from_are_compared_once():
    runs = [*TRAINED, run("mine", "mine", None), run("child", "child", "mine")]
    between = [pair for pair in pairs(runs) if set(pair) == {"dmd2", "mine"}]
    assert len(between) == 1
