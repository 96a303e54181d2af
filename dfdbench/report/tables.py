"""The tables of a report: a row a metric, a column an arm, the best student of a row bold.

From summary.py's numbers to Table, which table.py writes in every format. Which student is bold
says best.py, which cells name their n sets.py. Used by page.py, paper.py and leaderboard/render.py.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import looks, ordered
from dfdbench.report.best import Best
from dfdbench.report.sections import Section
from dfdbench.report.statistics import Interval, smallest_p
from dfdbench.report.summary import Delta, Summary
from dfdbench.utils.table import MISSING, Cell, Table, of_texts, to_csv

ARROWS = {"higher": "↑", "lower": "↓", "nearest_reference": "≈"}


def with_arrow(metric: str) -> str:
    """The metric's name and which way it is better: ↑, ↓ or ≈."""
    return f"{metric} {ARROWS[all_metrics()[metric].direction]}"


def number(value: float, size: float | None = None) -> str:
    """`value` with three decimals, or one where values of this `size` reach 10."""
    digits = 1 if abs(value if size is None else size) >= 10 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def cell(interval: Interval | None, best: bool = False, mark: str = "") -> Cell:
    """`mean [low, high] (mark)`; an em dash where there is no value."""
    if interval is None:
        return MISSING
    mark = f"({mark})" if mark else ""
    if math.isnan(interval.low):  # one prompt
        return Cell(number(interval.mean), mark, best)
    size = max(abs(interval.low), abs(interval.high))
    mean, low, high = (number(x, size) for x in interval[:3])
    return Cell(mean, f"[{low}, {high}] {mark}".rstrip(), best)


def metric_rows(summary: Summary) -> list[str]:
    """The metrics that any arm has, in the registry's order."""
    present = {metric for metrics in summary.values() for metric in metrics}
    return [name for name in all_metrics() if name in present]


def main_table(
    summary: Summary,
    best: Best | None = None,
    marks: Mapping[str, Mapping[str, str]] | None = None,
    references: Collection[str] = (),
) -> Table:
    """Mean and 95 % interval of every metric and arm; arms as in `summary`.

    Args:
        best: metric → the arm that is bold. marks: metric → arm → what its cell is of.
        references: arms that are labelled so.
    """
    best, marks = best or {}, marks or {}
    labels, rows = looks(summary, references), []
    for metric in metric_rows(summary):
        own = marks.get(metric, {})
        cells = [
            cell(metrics.get(metric), arm == best.get(metric), own.get(arm, ""))
            for arm, metrics in summary.items()
        ]
        rows.append([Cell(with_arrow(metric)), *cells])
    return Table(["metric", *(labels[arm].label for arm in summary)], rows)


def long_csv(summary: Summary, best: Best | None = None) -> str:
    """A row per arm and metric with full precision, for other programs."""
    head = ["arm", "metric", "mean", "low", "high", "n", "best", "direction", "unit", "version"]
    rows = []
    for metric in metric_rows(summary):
        info = all_metrics()[metric]
        about = (info.direction, info.unit, info.version)
        rows += [
            (arm, metric, *metrics[metric][:4], int(arm == (best or {}).get(metric)), *about)
            for arm, metrics in summary.items()
            if metric in metrics
        ]
    return to_csv(head, rows)


def pooled_tables(frame: pd.DataFrame, references: Collection[str] = ()) -> list[Table]:
    """Values of whole sets of clips: a table per reference, a row a metric, a column an arm.

    They have no interval, so none is bold. Where arms have other numbers of clips, on which such
    values depend, every cell says its own.

    frame: columns arm, reference, metric, value and n (clips of the arm); one suite.
    """
    result = []
    for reference, rows in frame.groupby("reference", sort=True):
        arms = ordered(rows["arm"])
        labels = looks([*arms, str(reference)], references)
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
    values, counts = rows.groupby("arm")["value"].mean(), rows.groupby("arm")["n"].max()
    unequal = counts.nunique() > 1
    cells = [
        Cell(number(values[arm]), f"({counts[arm]} clips)" if unequal else "")
        if arm in values
        else MISSING
        for arm in arms
    ]
    return [Cell(with_arrow(metric)), *cells]


DELTA_NOTE = (
    "Paired differences over (prompt, training seed) with 95 % intervals; p from sign flips over "
    "prompts, Holm-corrected over the metrics of a comparison. Unpaired, with p from exchanged "
    "labels, where the title says that the prompts differ. “to reference” says whether the first "
    "arm's mean is closer to the reference's (the real clips', else the teacher's) than the "
    "second's; same where the figures shown do not differ. Few prompts allow no small p: their "
    "interval is not said to exclude 0."
)
DELTA_HEAD = ("metric", "difference", "p", "p (Holm)", "interval", "to reference")


def delta_sections(deltas: Sequence[Delta], references: Collection[str] = ()) -> list[Section]:
    """A section per comparison, such as `DFD − DMD2 control`; DELTA_NOTE explains them."""
    labels = looks({arm for d in deltas for arm in (d.a, d.b)}, references)
    groups: dict[str, list[list[str]]] = {}
    for d in deltas:
        apart = "" if d.paired else " (their prompts differ)"
        title = f"{labels[d.a].label} − {labels[d.b].label}{apart}"
        groups.setdefault(title, []).append([d.metric, *delta_text(d)])
    return [Section(title, [of_texts(DELTA_HEAD, rows)], 3) for title, rows in groups.items()]


def delta_text(delta: Delta) -> list[str]:
    """Difference, p values and verdict of one comparison."""
    moved = delta.gain_towards_reference
    if math.isnan(delta.low):
        towards = _towards(moved, delta.mean, delta.mean)
        return [_signed(delta.mean, delta.mean), "—", "—", "one prompt", towards]
    size = max(abs(delta.low), abs(delta.high))
    mean, low, high = (_signed(x, size) for x in (delta.mean, delta.low, delta.high))
    towards = _towards(moved, delta.mean, size)
    return [
        f"{mean} [{low}, {high}]",
        f"{delta.p:.4f}",
        f"{delta.p_holm:.4f}",
        _verdict(delta),
        towards,
    ]


def _towards(moved: float | None, mean: float, size: float) -> str:
    if moved is None:
        return "—"
    if not all(float(number(value, size)) for value in (moved, mean)):
        return "same"
    return "closer" if moved > 0 else "farther"


def _verdict(delta: Delta) -> str:
    if not delta.alike:
        return "other numbers of clips"
    if delta.low <= 0 <= delta.high:
        return "includes 0"
    smallest = smallest_p(delta.n, delta.paired)
    return "excludes 0" if smallest <= 0.05 else f"{delta.n} prompts: no p below {smallest:.4f}"


def _signed(value: float, size: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value, size)}"
