"""The tables of a report: a row a metric, a column an arm, the best student of a row bold.

From summary.py's numbers to Table, which table.py writes in every format. REFERENCES (real clips,
teacher) are never marked best. Used by page.py, paper.py and leaderboard/render.py.
"""

import math
from collections.abc import Sequence

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import REFERENCES, looks, ordered
from dfdbench.report.sections import Section
from dfdbench.report.statistics import Interval
from dfdbench.report.summary import Delta, Summary, best_arms, best_of
from dfdbench.report.table import MISSING, Cell, Table, of_texts, to_csv

ARROWS = {"higher": "↑", "lower": "↓", "nearest_reference": "≈"}


def with_arrow(metric: str) -> str:
    """The metric's name and which way it is better: ↑, ↓ or ≈."""
    return f"{metric} {ARROWS[all_metrics()[metric].direction]}"


def number(value: float, size: float | None = None) -> str:
    """`value` with three decimals, or one where values of this `size` reach 10."""
    digits = 1 if abs(value if size is None else size) >= 10 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def cell(interval: Interval | None, best: bool = False) -> Cell:
    """`mean [low, high]`; an em dash where there is no value."""
    if interval is None:
        return MISSING
    if math.isnan(interval.low):  # one prompt
        return Cell(number(interval.mean), best=best)
    size = max(abs(interval.low), abs(interval.high))
    mean, low, high = (number(x, size) for x in interval[:3])
    return Cell(mean, f"[{low}, {high}]", best)


def metric_rows(summary: Summary) -> list[str]:
    """The metrics that any arm has, in the registry's order."""
    present = {metric for metrics in summary.values() for metric in metrics}
    return [name for name in all_metrics() if name in present]


def main_table(summary: Summary) -> Table:
    """Mean and 95 % interval of every metric and arm; arms as in `summary`."""
    labels, rows = looks(summary), []
    for metric in metric_rows(summary):
        best = best_arms(summary, metric)
        cells = [cell(metrics.get(metric), arm in best) for arm, metrics in summary.items()]
        rows.append([Cell(with_arrow(metric)), *cells])
    return Table(["metric", *(labels[arm].label for arm in summary)], rows)


def long_csv(summary: Summary) -> str:
    """A row per arm and metric with full precision, for other programs."""
    head = ["arm", "metric", "mean", "low", "high", "n", "best", "direction", "unit", "version"]
    rows = []
    for metric in metric_rows(summary):
        info, best = all_metrics()[metric], best_arms(summary, metric)
        about = (info.direction, info.unit, info.version)
        rows += [
            (arm, metric, *metrics[metric][:4], int(arm in best), *about)
            for arm, metrics in summary.items()
            if metric in metrics
        ]
    return to_csv(head, rows)


def pooled_tables(frame: pd.DataFrame) -> list[Table]:
    """Values of whole sets of clips: a table per reference, a row a metric, a column an arm.

    frame: columns arm, reference, metric, value and n (clips of the arm); one suite.
    """
    result = []
    for reference, rows in frame.groupby("reference", sort=True):
        arms = ordered(rows["arm"])
        labels = looks([*arms, str(reference)])
        clips = rows.groupby("arm")["n"].max()
        counts = ", ".join(f"{labels[arm].label} {clips[arm]}" for arm in arms)
        title = f"Pooled over prompts, against {labels[str(reference)].label}; clips: {counts}."
        present = set(rows["metric"])
        body = [
            _pooled_row(rows[rows["metric"] == name], name, arms)
            for name in all_metrics()
            if name in present
        ]
        result.append(Table(["metric", *(labels[arm].label for arm in arms)], body, title))
    return result


def _pooled_row(rows: pd.DataFrame, metric: str, arms: Sequence[str]) -> list[Cell]:
    values = dict(zip(rows["arm"], rows["value"], strict=True))
    students = {arm: value for arm, value in values.items() if arm not in REFERENCES}
    best = best_of(students, all_metrics()[metric].direction)
    cells = [Cell(number(values[a]), best=a in best) if a in values else MISSING for a in arms]
    return [Cell(with_arrow(metric)), *cells]


DELTA_NOTE = (
    "Paired differences over (prompt, training seed) with 95 % intervals; p from sign flips over "
    "prompts, Holm-corrected over the metrics of a comparison. Unpaired, with p from exchanged "
    "labels, where the title says that the prompts differ. “to reference” says whether the first "
    "arm's mean is closer to the real clips' (else the teacher's) than the second's."
)
DELTA_HEAD = ("metric", "difference", "p", "p (Holm)", "interval", "to reference")


def delta_sections(deltas: Sequence[Delta]) -> list[Section]:
    """A section per comparison, such as `DFD − DMD2 control`; DELTA_NOTE explains them."""
    labels = looks({arm for d in deltas for arm in (d.a, d.b)})
    groups: dict[str, list[list[str]]] = {}
    for d in deltas:
        apart = "" if d.paired else " (their prompts differ)"
        title = f"{labels[d.a].label} − {labels[d.b].label}{apart}"
        groups.setdefault(title, []).append([d.metric, *delta_text(d)])
    return [Section(title, [of_texts(DELTA_HEAD, rows)], 3) for title, rows in groups.items()]


def delta_text(delta: Delta) -> list[str]:
    """Difference, p values and verdict of one comparison."""
    moved = delta.gain_towards_reference
    towards = "—" if moved is None else "closer" if moved > 0 else "farther"
    if math.isnan(delta.low):
        return [_signed(delta.mean, delta.mean), "—", "—", "one prompt", towards]
    size = max(abs(delta.low), abs(delta.high))
    mean, low, high = (_signed(x, size) for x in (delta.mean, delta.low, delta.high))
    verdict = "excludes 0" if delta.low > 0 or delta.high < 0 else "includes 0"
    return [f"{mean} [{low}, {high}]", f"{delta.p:.4f}", f"{delta.p_holm:.4f}", verdict, towards]


def _signed(value: float, size: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value, size)}"
