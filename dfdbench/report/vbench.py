"""VBench's part of a report: the score of every dimension by VBench's own aggregation, its totals.

Used by page.py (its section, vbench.json, vbench.tex) and paper.py (columns of VBench). A score is
a mean over clips, or over frames where VBench weighs by frames, of one run; over an arm's training
seeds the scores are averaged. A dimension without clips is missing, never 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from dfdbench.evaluate.vbench.export import dimensions_of
from dfdbench.evaluate.vbench.protocol import part
from dfdbench.evaluate.vbench.totals import PROTOCOLS, Total, dimension_scores, totals
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.report.arms import looks, ordered
from dfdbench.report.best import Best, best_arm
from dfdbench.report.collect import Collected
from dfdbench.report.sets import RowSet, of_size
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.utils.table import Cell, Table, escape_latex
from dfdbench.utils.table import latex as latex_table

Scores = dict[str, dict[str, float]]
"""arm → dimension → VBench's score, 0 to 1."""

NAMES = {
    "quality": "Quality", "semantic": "Semantic", "i2v": "I2V", "total": "Total",
    "average": "average of the DFD paper",
}  # fmt: skip
NOTE = (
    "Scores and totals by VBench's own definitions; an em dash was not measured. n/N after a "
    "dimension: it has n of the N clips that VBench asks for; after a total: it lacks dimensions "
    "and is the mean of n of N. Neither can be compared with a whole one. The average is the plain "
    "mean of the columns that the DFD paper averages. Totals have no interval, so none is bold."
)


class Results(NamedTuple):
    """What the report says about VBench.

    totals: arm → its totals. lacking: arm → dimension → "37/360" where it has clips for part of
    what VBench asks for only. best: dimension → the student that training seeds tell from the
    next. sizes: arm → its training seeds, prompts and clips.
    """

    suite: Suite
    scores: Scores
    totals: dict[str, dict[str, Total]]
    lacking: dict[str, dict[str, str]]
    best: Best
    sizes: dict[str, str]
    references: frozenset[str]


def scores_of(values: pd.DataFrame, suite: Suite | None = None) -> Scores:
    """VBench's scores of each arm.

    Args:
        values: a row a clip: arm, training_seed and what `dimension_scores` takes.
        suite: says which prompts count for which dimension; None: all for all.
    """
    prompts = dimensions_of(suite.entries()) if suite else None
    filtered = suite is not None and suite.static_filter
    of_runs: dict[str, list[dict[str, float]]] = {}
    for (arm, _), rows in values.groupby(["arm", "training_seed"]):
        scored = dimension_scores(rows.assign(method=str(arm)), prompts, filtered).dropna(
            subset="score"
        )
        of_run = dict(zip(scored["dimension"], scored["score"], strict=True))
        of_runs.setdefault(str(arm), []).append(of_run)
    result: Scores = {}
    for arm in ordered(of_runs):
        means = pd.DataFrame(of_runs[arm], columns=list(DIMENSIONS)).mean().dropna()
        result[arm] = {str(name): float(score) for name, score in means.items()}
    return result


def results_of(collected: Collected, scores: Scores, rows: Mapping[str, RowSet]) -> Results | None:
    """The section; None where the suite is not of VBench. rows: `row_sets` of the report."""
    suite = collected.chosen
    if suite is None or not suite.protocol:
        return None
    clips = {str(arm): own for arm, own in collected.vbench.groupby("arm") if str(arm) in scores}
    lacking = {
        arm: {n: lack for n in scores[arm] if (lack := _lack(own, suite, n))}
        for arm, own in clips.items()
    }
    sizes = {
        arm: of_size(
            len(set(own["training_seed"]) - {NO_TRAINING_SEED}),
            own["prompt_id"].nunique(), len(own),
        )
        for arm, own in clips.items()
    }  # fmt: skip
    by_arm = {arm: totals(of_arm, suite.protocol) for arm, of_arm in scores.items()}
    best = {
        name: _best(
            rows[name].cells, [a for a, lacks in lacking.items() if name in lacks], collected
        )
        for name in DIMENSIONS
        if name in rows
    }
    known = {name: arm for name, arm in best.items() if arm}
    return Results(suite, scores, by_arm, lacking, known, sizes, collected.references)


def _best(cells: pd.DataFrame, partial: Sequence[str], collected: Collected) -> str | None:
    """The student whose lead training seeds show, among those with all their clips."""
    return best_arm(cells[~cells["arm"].isin(partial)], "higher", collected.references)


def _lack(values: pd.DataFrame, suite: Suite, dimension: str) -> str:
    """`37/360` where an arm's runs lack clips of a dimension, else empty."""
    parts = [part(rows, suite, dimension) for _, rows in values.groupby("training_seed")]
    have = sum(each.found for each in parts)
    expected = sum(each.expected or each.found for each in parts)
    return f"{have}/{expected}" if have < expected else ""


def heading(results: Results) -> str:
    """One line: protocol, whose first frames, what a reader must know."""
    suite = results.suite
    facts = [f"Protocol {suite.protocol} of suite {suite.name}"]
    facts += [f"conditions: {suite.conditions}"] if suite.conditions else []
    return "; ".join([*facts, *suite.notes]).rstrip(".") + "."


def table(results: Results) -> Table:
    """The dimensions, then the totals, which have no interval; a column an arm.

    Of a dimension the student is bold whose lead training seeds show, if all clips that VBench asks
    for are there.
    """
    labels = looks(results.scores, results.references)
    of_protocol = PROTOCOLS[results.suite.protocol].dimensions
    scored = {name for scores in results.scores.values() for name in scores}
    rows = [[Cell("n"), *(Cell(results.sizes[arm]) for arm in results.scores)]]
    for name in (n for n in DIMENSIONS if n in of_protocol or n in scored):
        values = {arm: s[name] for arm, s in results.scores.items() if name in s}
        lacks = {arm: results.lacking[arm].get(name, "") for arm in values}
        rows.append(_row(results, name, values, lacks))
    for key, name in NAMES.items():
        of_key = {arm: of_arm[key] for arm, of_arm in results.totals.items() if key in of_arm}
        if of_key:
            means = {arm: total.value for arm, total in of_key.items()}
            lacks = {arm: _label(total, results.lacking[arm]) for arm, total in of_key.items()}
            rows.append(_row(results, name, means, lacks))
    return Table(["dimension", *(labels[arm].label for arm in results.scores)], rows)


def _label(total: Total, lacking: Mapping[str, str]) -> str:
    return ", ".join(filter(None, (total.label, "part of the clips" if lacking else "")))


def _row(
    results: Results, name: str, values: Mapping[str, float | None], lacks: Mapping[str, str]
) -> list[Cell]:
    """A row of the table. lacks: arm → what its value is a part of, empty where it is whole."""
    cells = [Cell(name)]
    for arm in results.scores:
        value, lack = values.get(arm), lacks.get(arm, "")
        text = "—" if value is None else f"{value:.4f}"
        cells.append(Cell(f"{text} ({lack})" if lack else text, best=arm == results.best.get(name)))
    return cells


def latex(results: Results) -> str:
    """The table as LaTeX; needs booktabs and graphicx."""
    body = latex_table(table(results), f"suite {results.suite.name}")
    return (
        body + rf"\par\smallskip\noindent{{\footnotesize {escape_latex(heading(results))}\par}}"
        "\n"
    )


def as_json(results: Results) -> dict[str, Any]:
    """vbench.json: the section in full precision."""
    suite = results.suite
    facts = {"suite": suite.name, "protocol": suite.protocol, "conditions": suite.conditions}
    arms = {
        arm: {
            "dimensions": scores,
            "lacking": results.lacking[arm],
            "totals": {name: total._asdict() for name, total in results.totals[arm].items()},
        }
        for arm, scores in results.scores.items()
    }
    return facts | {"notes": list(suite.notes), "arms": arms}
