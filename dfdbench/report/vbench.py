"""VBench's part of a report: the score of every dimension by VBench's own aggregation, its totals.

Used by page.py (its section, vbench.json, vbench.tex) and paper.py (columns of VBench). A score is
a mean over clips, or over frames where VBench weighs by frames, of one run; over an arm's training
seeds the scores are averaged. A dimension without clips is missing, never 0.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from dfdbench.evaluate.vbench.export import dimensions_of
from dfdbench.evaluate.vbench.protocol import part
from dfdbench.evaluate.vbench.totals import PROTOCOLS, Total, dimension_scores, totals
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.report import tex
from dfdbench.report.arms import REFERENCES, looks, ordered
from dfdbench.report.collect import Collected
from dfdbench.report.summary import best_of

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
    "mean of the columns that the DFD paper averages."
)


class Section(NamedTuple):
    """What the report says about VBench.

    totals: arm → its totals. lacking: arm → dimension → "37/360" where it has clips for part of
    what VBench asks for only.
    """

    suite: Suite
    scores: Scores
    totals: dict[str, dict[str, Total]]
    lacking: dict[str, dict[str, str]]


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
    lacking = {
        str(arm): {name: part for name in scores[str(arm)] if (part := _part(rows, suite, name))}
        for arm, rows in collected.vbench.groupby("arm")
        if str(arm) in scores
    }
    found = {arm: totals(of_arm, suite.protocol) for arm, of_arm in scores.items()}
    return Section(suite, scores, found, lacking)


def _part(values: pd.DataFrame, suite: Suite, dimension: str) -> str:
    """`37/360` where an arm's runs lack clips of a dimension, else empty."""
    parts = [part(rows, suite, dimension) for _, rows in values.groupby("training_seed")]
    found = sum(each.found for each in parts)
    expected = sum(each.expected or each.found for each in parts)
    return f"{found}/{expected}" if found < expected else ""


def heading(found: Section) -> str:
    """One line: protocol, whose first frames, what a reader must know."""
    suite = found.suite
    parts = [f"Protocol {suite.protocol} of suite {suite.name}"]
    parts += [f"conditions: {suite.conditions}"] if suite.conditions else []
    return "; ".join([*parts, *suite.notes]).rstrip(".") + "."


def table(found: Section) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Head and rows (text, is best): the dimensions, then the totals; a column an arm."""
    labels = looks(found.scores)
    head = ["dimension", *(labels[arm].label for arm in found.scores)]
    known = PROTOCOLS[found.suite.protocol].dimensions
    names = [n for n in DIMENSIONS if n in known or any(n in s for s in found.scores.values())]
    rows = []
    for name in names:
        values = {arm: s[name] for arm, s in found.scores.items() if name in s}
        parts = {arm: found.lacking[arm].get(name, "") for arm in values}
        rows.append(_row(found, name, values, parts))
    for key, name in NAMES.items():
        of_key = {arm: of_arm[key] for arm, of_arm in found.totals.items() if key in of_arm}
        if of_key:
            means = {arm: total.value for arm, total in of_key.items()}
            parts = {arm: _label(total, found.lacking[arm]) for arm, total in of_key.items()}
            rows.append(_row(found, name, means, parts))
    return head, rows


def _label(total: Total, lacking: Mapping[str, str]) -> str:
    return ", ".join(filter(None, (total.label, "part of the clips" if lacking else "")))


def _row(
    found: Section, name: str, values: Mapping[str, float | None], parts: Mapping[str, str]
) -> list[tuple[str, bool]]:
    """A row of the table; the best student's whole number is marked."""
    whole = {
        arm: value
        for arm, value in values.items()
        if value is not None and not parts[arm] and arm not in REFERENCES
    }
    best = best_of(whole, "higher")
    cells = []
    for arm in found.scores:
        value, part = values.get(arm), parts.get(arm, "")
        text = "—" if value is None else f"{value:.4f}"
        cells.append((f"{text} ({part})" if part else text, arm in best))
    return [(name, False), *cells]


def latex(found: Section) -> str:
    """The table as LaTeX; needs booktabs and graphicx."""
    head, rows = table(found)
    cells = [
        [rf"\textbf{{{tex.escape(text)}}}" if best else tex.escape(text) for text, best in row]
        for row in rows
    ]
    body = tex.table([tex.escape(text) for text in head], cells, f"suite {found.suite.name}")
    return body + rf"\par\smallskip\noindent{{\footnotesize {tex.escape(heading(found))}\par}}" "\n"


def as_json(found: Section) -> dict[str, Any]:
    """vbench.json: the section in full precision."""
    suite = found.suite
    facts = {"suite": suite.name, "protocol": suite.protocol, "conditions": suite.conditions}
    arms = {
        arm: {
            "dimensions": scores,
            "lacking": found.lacking[arm],
            "totals": {name: total._asdict() for name, total in found.totals[arm].items()},
        }
        for arm, scores in found.scores.items()
    }
    return facts | {"notes": list(suite.notes), "arms": arms}
