"""VBench's part of a report: the score of every dimension by VBench's own aggregation, its totals.

Used by page.py (its section, vbench.json, vbench.tex) and paper.py (columns of VBench). A score is
a mean over clips, or over frames where VBench weighs by frames, of one run; over an arm's training
seeds the scores are averaged. A dimension without clips is missing, never 0.
"""

from typing import Any, NamedTuple

import pandas as pd

from dfdbench.report import tex
from dfdbench.report.arms import REFERENCES, looks, ordered
from dfdbench.report.collect import Collected
from dfdbench.report.summary import best_of
from dfdbench.suites import Suite
from dfdbench.vbench.export import dimensions_of
from dfdbench.vbench.totals import (
    DIMENSIONS,
    PROTOCOLS,
    Total,
    dimension_scores,
    totals,
)

Scores = dict[str, dict[str, float]]
"""arm → dimension → VBench's score, 0 to 1."""

NAMES = {
    "quality": "Quality", "semantic": "Semantic", "i2v": "I2V", "total": "Total",
    "average": "average of the DFD paper",
}  # fmt: skip
NOTE = (
    "Scores and totals by VBench's own definitions; an em dash was not measured. "
    "n/N: the total lacks dimensions and is the mean of n of N; it cannot be compared with a whole "
    "one. The average is the plain mean of the columns that the DFD paper averages."
)


class Section(NamedTuple):
    """What the report says about VBench. totals: arm → its totals."""

    suite: Suite
    scores: Scores
    totals: dict[str, dict[str, Total]]


def scores_of(values: pd.DataFrame, suite: Suite | None = None) -> Scores:
    """VBench's scores of each arm.

    Args:
        values: a row a clip: arm, training_seed and what `dimension_scores` takes.
        suite: says which prompts count for which dimension; None: all for all.
    """
    prompts = dimensions_of(suite.entries()) if suite else None
    filtered = suite is not None and suite.static_filter
    found: dict[str, list[dict[str, float]]] = {}
    for (arm, _), rows in values.groupby(["arm", "training_seed"]):
        scored = dimension_scores(rows.assign(method=str(arm)), prompts, filtered).dropna(
            subset="score"
        )
        found.setdefault(str(arm), []).append(
            dict(zip(scored["dimension"], scored["score"], strict=True))
        )
    result: Scores = {}
    for arm in ordered(found):
        frame = pd.DataFrame(found[arm], columns=list(DIMENSIONS)).mean().dropna()
        result[arm] = {str(name): float(score) for name, score in frame.items()}
    return result


def section(collected: Collected, scores: Scores) -> Section | None:
    """The section; None where the suite is not of VBench."""
    suite = collected.chosen
    if suite is None or not suite.protocol:
        return None
    return Section(suite, scores, {arm: totals(s, suite.protocol) for arm, s in scores.items()})


def heading(found: Section) -> str:
    """One line: protocol, whose first frames, what a reader must know."""
    suite = found.suite
    parts = [f"Protocol {suite.protocol} of suite {suite.name}"]
    parts += [f"conditions: {suite.conditions}"] if suite.conditions else []
    return "; ".join([*parts, *suite.notes]) + "."


def table(found: Section) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Head and rows (text, is best): the dimensions, then the totals; a column an arm."""
    labels = looks(found.scores)
    head = ["dimension", *(labels[arm].label for arm in found.scores)]
    known = PROTOCOLS[found.suite.protocol].dimensions
    names = [n for n in DIMENSIONS if n in known or any(n in s for s in found.scores.values())]
    rows = []
    for name in names:
        values = {arm: s[name] for arm, s in found.scores.items() if name in s}
        texts = {arm: f"{value:.4f}" for arm, value in values.items()}
        rows.append(_row(found, name, texts, values))
    for key, name in NAMES.items():
        parts = {arm: of_arm[key] for arm, of_arm in found.totals.items() if key in of_arm}
        if parts:
            texts = {arm: _text(total) for arm, total in parts.items()}
            whole = {a: t.value for a, t in parts.items() if not t.label and t.value is not None}
            rows.append(_row(found, name, texts, whole))
    return head, rows


def _row(
    found: Section, name: str, texts: dict[str, str], values: dict[str, float]
) -> list[tuple[str, bool]]:
    students = {arm: value for arm, value in values.items() if arm not in REFERENCES}
    best = best_of(students, "higher")
    return [(name, False), *((texts.get(arm, "—"), arm in best) for arm in found.scores)]


def _text(total: Total) -> str:
    value = "—" if total.value is None else f"{total.value:.4f}"
    return f"{value} ({total.label})" if total.label else value


def latex(found: Section) -> str:
    """The table as LaTeX; needs booktabs and graphicx."""
    head, rows = table(found)
    cells = [
        [rf"\textbf{{{tex.escape(text)}}}" if best else tex.escape(text) for text, best in row]
        for row in rows
    ]
    return tex.table([tex.escape(text) for text in head], cells, heading(found).replace("\n", " "))


def as_json(found: Section) -> dict[str, Any]:
    """vbench.json: the section in full precision."""
    suite = found.suite
    facts = {"suite": suite.name, "protocol": suite.protocol, "conditions": suite.conditions}
    arms = {
        arm: {
            "dimensions": scores,
            "totals": {name: total._asdict() for name, total in found.totals[arm].items()},
        }
        for arm, scores in found.scores.items()
    }
    return facts | {"notes": list(suite.notes), "arms": arms}
