"""The tables of a report in Markdown, LaTeX and CSV: a row a metric, a column an arm.

Pure functions from summary.py's numbers to text; page.py writes them. The best student of a row is
bold; REFERENCES (real clips, teacher) are never marked.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report import tex
from dfdbench.report.arms import REFERENCES, looks, ordered
from dfdbench.report.statistics import Interval
from dfdbench.report.summary import Delta, Summary, best_arms, best_of

ARROWS = {"higher": "↑", "lower": "↓", "nearest_reference": "≈"}


def arrow(metric: str) -> str:
    """↑, ↓ or ≈: which way a metric is better."""
    return ARROWS[all_metrics()[metric].direction]


def metric_rows(summary: Summary) -> list[str]:
    """The metrics that any arm has, in the registry's order."""
    present = {metric for metrics in summary.values() for metric in metrics}
    return [name for name in all_metrics() if name in present]


def number(value: float, size: float | None = None) -> str:
    """`value` with three decimals, or one where values of this `size` reach 10."""
    digits = 1 if abs(value if size is None else size) >= 10 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def cell(interval: Interval | None) -> str:
    """`mean [low, high]`; an em dash where there is no value."""
    if interval is None:
        return "—"
    if math.isnan(interval.low):  # one prompt
        return number(interval.mean)
    size = max(abs(interval.low), abs(interval.high))
    mean, low, high = (number(x, size) for x in interval[:3])
    return f"{mean} [{low}, {high}]"


def table_rows(summary: Summary) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(metric, [(cell text, is best) for each arm]) for every metric; arms as in `summary`."""
    rows = []
    for metric in metric_rows(summary):
        best = best_arms(summary, metric)
        rows.append(
            (metric, [(cell(summary[arm].get(metric)), arm in best) for arm in summary])
        )  # fmt: skip
    return rows


def markdown(summary: Summary) -> str:
    """The main table as Markdown."""
    labels = looks(summary)
    head = ["metric", *(labels[arm].label for arm in summary)]
    rows = [[(f"{metric} {arrow(metric)}", False), *row] for metric, row in table_rows(summary)]
    return marked_table(head, rows)


def marked_table(head: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]]) -> str:
    """A Markdown table whose cells marked True are bold."""
    return markdown_table(
        head, [[f"**{text}**" if best else text for text, best in row] for row in rows]
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped, so that it does not end it."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(head), *texts[1:]]) + "\n"


def latex(summary: Summary) -> str:
    """The main table as LaTeX, best student in bold; needs booktabs and graphicx."""
    labels = looks(summary)
    head = ["Metric", *(tex.escape(labels[arm].label) for arm in summary)]
    rows = []
    for metric, row in table_rows(summary):
        cells = [tex.interval(text, best) for text, best in row]
        rows.append([f"{tex.escape(metric)} {tex.escape(arrow(metric))}", *cells])
    return tex.table(head, rows, "mean and 95 % interval, best student in bold")


def long_csv(summary: Summary) -> str:
    """A row per arm and metric with full precision, for other programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["arm", "metric", "mean", "low", "high", "n", "best", "direction", "unit", "version"]
    )
    for metric in metric_rows(summary):
        info, best = all_metrics()[metric], best_arms(summary, metric)
        for arm, metrics in summary.items():
            if interval := metrics.get(metric):
                writer.writerow(
                    [
                        arm, metric, interval.mean, interval.low, interval.high, interval.n,
                        int(arm in best), info.direction, info.unit, info.version,
                    ]
                )  # fmt: skip
    return out.getvalue()


class PooledTable(NamedTuple):
    """Values of whole sets of clips against one reference: a row a metric, a column a method."""

    caption: str
    head: list[str]
    rows: list[list[tuple[str, bool]]]


def pooled_rows(frame: pd.DataFrame) -> list[PooledTable]:
    """A table per reference, each row beginning with the metric; True marks the best student.

    frame: columns arm, reference, metric, value and n (clips of the arm); one suite.
    """
    result = []
    for reference, part in frame.groupby("reference", sort=True):
        methods = ordered(part["arm"])
        labels = looks([*methods, str(reference)])
        clips = part.groupby("arm")["n"].max()
        counts = ", ".join(f"{labels[m].label} {clips[m]}" for m in methods)
        rows = []
        for name in (m for m in all_metrics() if m in set(part["metric"])):
            of_metric = part[part["metric"] == name]
            found = dict(zip(of_metric["arm"], of_metric["value"], strict=True))
            students = {m: v for m, v in found.items() if m not in REFERENCES}
            best = best_of(students, all_metrics()[name].direction)
            shown = [(number(found[m]) if m in found else "—", m in best) for m in methods]
            rows.append([(f"{name} {arrow(name)}", False), *shown])
        caption = f"Pooled over prompts, against {labels[str(reference)].label}; clips: {counts}."
        head = ["metric", *(labels[m].label for m in methods)]
        result.append(PooledTable(caption, head, rows))
    return result


def pooled_markdown(frame: pd.DataFrame) -> str:
    """The tables of `pooled_rows` as Markdown, the best student of a row in bold."""
    parts = []
    for caption, head, rows in pooled_rows(frame):
        parts.append(f"{caption}\n\n{marked_table(head, rows)}")
    return "\n".join(parts)


def _signed(value: float, size: float) -> str:
    return f"{'+' if value > 0 else ''}{number(value, size)}"


def delta_text(delta: Delta) -> list[str]:
    """Difference, p values and verdict of one comparison, as shown in Markdown and HTML."""
    moved = delta.gain_towards_reference
    towards = "—" if moved is None else "closer" if moved > 0 else "farther"
    if math.isnan(delta.low):
        return [_signed(delta.mean, delta.mean), "—", "—", "one prompt", towards]
    size = max(abs(delta.low), abs(delta.high))
    mean, low, high = (_signed(x, size) for x in (delta.mean, delta.low, delta.high))
    verdict = "excludes 0" if delta.low > 0 or delta.high < 0 else "includes 0"
    return [f"{mean} [{low}, {high}]", f"{delta.p:.4f}", f"{delta.p_holm:.4f}", verdict, towards]


DELTA_NOTE = (
    "Paired differences over (prompt, training seed) with 95 % intervals; p from sign flips over "
    "prompts, Holm-corrected over the metrics of a comparison. Unpaired, with p from exchanged "
    "labels, where the title says that the prompts differ. “to reference” says whether the first "
    "arm's mean is closer to the real clips' (else the teacher's) than the second's."
)
DELTA_HEAD = ["metric", "difference", "p", "p (Holm)", "interval", "to reference"]


def delta_groups(deltas: Sequence[Delta]) -> list[tuple[str, list[Delta]]]:
    """The deltas by comparison: (`DFD − DMD2 control`, its rows)."""
    labels = looks({arm for d in deltas for arm in (d.a, d.b)})
    groups: dict[str, list[Delta]] = {}
    for d in deltas:
        apart = "" if d.paired else " (their prompts differ)"
        groups.setdefault(f"{labels[d.a].label} − {labels[d.b].label}{apart}", []).append(d)
    return list(groups.items())


def delta_markdown(deltas: Sequence[Delta]) -> str:
    """deltas.md: one small table per comparison."""
    parts = [DELTA_NOTE + "\n"]
    for title, rows in delta_groups(deltas):
        parts.append(f"\n### {title}\n")
        parts.append(
            markdown_table(DELTA_HEAD, [[d.metric, *delta_text(d)] for d in rows]).rstrip()
        )
    return "\n".join(parts) + "\n"
