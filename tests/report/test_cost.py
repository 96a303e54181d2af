"""What students cost beside what they reach: passes over stages, equal arms, and the front."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfdbench.cli.study import jobs_of, load_study
from dfdbench.distill.plan import setup_for, update_passes
from dfdbench.distill.recipe import load_recipe
from dfdbench.report.cells import COLUMNS, cells_csv
from dfdbench.report.cost import costs, front, pareto, tables
from dfdbench.report.earlier import read_report
from dfdbench.utils.errors import UserError

DIVERSITY = {"dmd2": 0.7, "dfd": 0.8, "dp_dmd": 0.75, "teacher": 0.99}
WHOLE = {"dmd2": 0.9, "dfd": 0.95, "dp_dmd": 0.99, "teacher": 0.98}


def run(name, recipe, updates, parent=None, total=None, seconds=0.0):
    recipe = load_recipe(recipe)
    return {
        "id": name, "arm": recipe.arm, "method": recipe.method, "model": "toy-t2v",
        "format": 1, "training_seed": int(name[-1]), "status": "finished",
        "recipe": recipe.as_dict(), "recipe_digest": recipe.method, "student_updates": updates,
        "student_updates_total": total or updates, "wall_seconds_total": seconds,
        "parent": {"id": parent} if parent else None,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A report of three students at two training seeds, DFD going on from DMD2."""
    runs = {}
    for seed in (0, 1):
        first = f"dmd2-{seed}"
        runs[first] = run(first, "toy/dmd2", 100, seconds=50.0)
        runs[f"dfd-{seed}"] = run(f"dfd-{seed}", "toy/dfd", 20, first, 120, 60.0 + 20 * seed)
        runs[f"dp-{seed}"] = run(f"dp-{seed}", "toy/dp_dmd", 120, seconds=360.0)
    rows = [
        (metric, arm, prompt, seed, 64, values[arm] + 0.01 * seed)
        for metric, values in (("open_gini", DIVERSITY), ("sprite_intact", WHOLE))
        for arm in DIVERSITY
        for prompt in ("ball-snow", "bar-city")
        for seed in ((0, 1) if arm != "teacher" else (-1,))
    ]
    (tmp_path / "cells.csv").write_text(cells_csv(pd.DataFrame(rows, columns=COLUMNS)))
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "provenance.json").write_text("{}")
    return tmp_path


def test_passes_of_an_update_are_forward_passes_and_twice_as_many_backward():
    """DMD2 at a ratio of 5: a student step of 3 + 1 + 2 and four steps of 1 + 3, less what the
    first layer's inputs need no gradient for."""
    passes = update_passes(setup_for(load_recipe("toy/dmd2"))[1])
    assert passes == pytest.approx(6 + 4 * 4, rel=0.002)
    more = load_recipe("toy/dmd2", ("schedule.student_update_freq=9",))
    assert update_passes(setup_for(more)[1]) - passes == pytest.approx(16, rel=0.002)


def test_a_run_costs_what_it_and_all_before_it_cost(folder):
    spent = costs(read_report(folder))
    per_update = update_passes(setup_for(load_recipe("toy/dmd2"))[1])
    assert spent["dmd2"] == pytest.approx((100, 100 * per_update, 50))
    assert spent["dfd"] == pytest.approx((120, 120 * per_update, 70))
    assert spent["dp_dmd"].passes > 2 * spent["dfd"].passes


def test_a_start_that_is_not_in_the_report_is_named(folder):
    runs = json.loads((folder / "runs.json").read_text())
    del runs["dmd2-1"]
    (folder / "runs.json").write_text(json.dumps(runs))
    with pytest.raises(UserError, match=r"dfd-1 started from dmd2-1, .* report both"):
        costs(read_report(folder))


def test_tables_hold_the_arms_of_equal_updates_and_of_equal_passes(folder):
    updates, passes = tables(folder, "dfd")
    assert [row[0].text for row in updates.rows] == ["dp_dmd", "dfd"]
    assert [row[0].text for row in passes.rows] == ["dfd"]
    gini = next(i for i, name in enumerate(updates.head) if name.startswith("open_gini"))
    assert [row[gini].text for row in updates.rows] == ["0.755", "0.805"]
    assert updates.rows[0][3].text == "3.000" and updates.rows[0][-1].text == "2"
    with pytest.raises(UserError, match=r"no trained arm sid; it has dfd, dmd2, dp_dmd"):
        tables(folder, "sid")


def test_the_figure_joins_the_front_and_shows_every_seed(folder):
    left, right = pareto(folder).axes
    lines = [line.get_xydata().tolist() for line in left.lines]
    assert [[0.955, 0.805], [0.995, 0.755]] in [
        [pytest.approx(point) for point in line] for line in lines
    ]
    dots = [point for line in left.lines if line.get_marker() == "." for point in line.get_xydata()]
    assert len(dots) == 6
    fronts = [line.get_xydata() for line in right.lines if line.get_linestyle() == "-"]
    thousands = [x for x, _ in fronts[-1]]
    assert thousands == pytest.approx([c.passes / 1000 for c in _ends(folder)])
    assert "training seeds an arm: 2" in pareto(folder).get_label()


def _ends(folder):
    spent = costs(read_report(folder))
    return spent["dfd"], spent["dmd2"]


def test_the_study_of_methods_is_at_equal_updates_and_at_equal_passes(tmp_path):
    spent, passes = {}, {}
    study = load_study("toy/methods")
    for job in jobs_of(study, tmp_path, (0,), study.model, 1):
        if job.recipe:
            recipe = load_recipe(job.recipe, job.changes)
            arm, updates = job.arm, recipe.schedule.student_updates
            parent = next((a.init for a in study.arms if a.name == arm), None)
            before = (spent[parent], passes[parent]) if parent else (0, 0)
            spent[arm] = before[0] + updates
            passes[arm] = before[1] + updates * update_passes(setup_for(recipe)[1])
    compared = {arm for arm in spent if not arm.endswith("_passes")} - {"dmd2_160"}
    assert {spent[arm] for arm in compared} == {240}
    equal = {
        a.removesuffix("_passes") for a in passes if abs(passes[a] / passes["dmd2"] - 1) < 0.05
    }
    assert equal == compared


@given(st.dictionaries(st.text(max_size=2), st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_nothing_beats_the_front_and_it_beats_the_rest(points):
    best = front(points)

    def beats(a, b):
        (x, y), (u, v) = points[a], points[b]
        return x >= u and y >= v and (x, y) != (u, v)

    assert not any(beats(other, name) for name in best for other in points)
    assert all(any(beats(name, other) for name in best) for other in {*points} - {*best})
    xs = [points[name][0] for name in best]
    assert xs == sorted(xs)
