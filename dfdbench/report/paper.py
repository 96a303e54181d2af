"""Measured values in the form of the paper's tables, beside the published ones.

Used by page.py for `dfdbench report --paper SETTING`. A table has up to three blocks with headers
of their own, so that no column ever mixes what was printed with what was measured here, or one
backend with another: the published numbers; measured values by the same backend; and measured
values by other backends, which can be compared between rows only.
"""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from dfdbench.errors import UserError
from dfdbench.metrics import all_metrics
from dfdbench.published import DIRECTION, of_setting
from dfdbench.report import tex
from dfdbench.report.arms import looks
from dfdbench.report.summary import Summary
from dfdbench.report.tables import ARROWS, cell, markdown_table, number
from dfdbench.statistics import Interval

SAME_BACKEND: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("subject_consistency",),
    "background_consistency": ("background_consistency",),
    "temporal_flickering": ("temporal_flickering",),
    "motion_smoothness": ("motion_smoothness",),
    "dynamic_degree": ("dynamic_degree",),
    "aesthetic_quality": ("aesthetic_quality",),
    "imaging_quality": ("imaging_quality",),
    "i2v_subject": ("i2v_subject",),
    "i2v_background": ("i2v_background",),
    "clip_diversity_mean": ("clip_vit_l14_diversity",),
    "clip_diversity_per_frame": ("clip_vit_l14_diversity_per_frame",),
    # The paper's text says DINOv2-L and cites DINOv3.
    "dino_diversity_mean": ("dinov2_l_diversity", "dinov3_l_diversity"),
    "dino_diversity_per_frame": ("dinov2_l_diversity_per_frame", "dinov3_l_diversity_per_frame"),
    # The paper takes its poses from ViPE.
    "camera_endpoint_distance": ("vipe_endpoint_distance",),
    "camera_trajectory_distance": ("vipe_trajectory_distance",),
}
"""Published metric -> our metrics that may stand for it, each in a column of its own."""

OTHER_BACKENDS: dict[str, tuple[str, ...]] = {
    "motion_smoothness": ("rife39_motion_smoothness",),
    "dynamic_degree": ("dis_flow_dynamic",),
    "imaging_quality": ("brisque",),
    "clip_diversity_mean": ("effnet_lite2_diversity", "lpips_alex_diversity"),
    "clip_diversity_per_frame": ("effnet_lite2_diversity_per_frame",),
    "camera_endpoint_distance": ("camera_endpoint_distance",),
    "camera_trajectory_distance": ("camera_trajectory_distance",),
}
"""Published metric -> our stand-ins: what they measure is alike, their scale is not."""

AVERAGE = "average_vbench"
AVERAGED = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
    "aesthetic_quality", "i2v_subject", "i2v_background",
)  # fmt: skip
"""The paper's average is the plain mean of those of these columns that its table has."""


class Block(NamedTuple):
    """A table with one header. columns: metric names; rows: method -> a text per column."""

    title: str
    kind: str
    columns: list[str]
    rows: dict[str, list[str]]


class PaperTable(NamedTuple):
    """The blocks of one setting, and notes to print below them."""

    setting: str
    blocks: list[Block]
    notes: list[str]


def paper_table(summary: Summary, setting: str, suite: str) -> PaperTable:
    """Put the arms of `summary` that are methods of `setting` beside the published numbers.

    Raises:
        UserError: an unknown setting, or none of its methods in `summary`.
    """
    known = of_setting(setting)
    methods = list(dict.fromkeys(row.method for row in known))
    columns = list(dict.fromkeys(row.metric for row in known))
    if not set(methods) & set(summary):
        raise UserError(
            f"--paper {setting}: the sources hold none of its methods ({', '.join(methods)}); "
            f"they hold {', '.join(summary)}"
        )
    texts = {(row.method, row.metric): row.text for row in known}
    printed = {m: [texts.get((m, c), "") for c in columns] for m in methods}
    same, complete = _same_backend(summary, methods, columns)
    other = [
        name
        for column in columns
        for name in OTHER_BACKENDS.get(column, ())
        if any(name in summary.get(m, {}) for m in methods)
    ]
    where = f"{known[0].source}, Table {known[0].table}"
    blocks = [
        Block(f"Published ({where})", "published", columns, printed),
        Block(f"Measured here, suite {suite}, same backends", "measured", *same),
    ]
    if other:
        title = f"Measured here, suite {suite}, other backends (not comparable with the paper)"
        blocks.append(Block(title, "measured", other, _cells(summary, methods, other)))
    notes = [
        "Measured: mean and 95 % interval over prompts. The published numbers are of the paper's "
        "own models, prompts and seeds; unmeasured cells are empty."
    ]
    if AVERAGE in columns:
        expected = [c for c in columns if c in AVERAGED]
        notes.append(
            f"{AVERAGE} is the plain mean of {len(expected)} columns; measured here: "
            + ", ".join(
                f"{looks([m])[m].label} {n} of {len(expected)}" for m, n in complete.items()
            )
            + ". It is given only where all are."
        )
    return PaperTable(setting, blocks, notes)


def _same_backend(
    summary: Summary, methods: Sequence[str], columns: Sequence[str]
) -> tuple[tuple[list[str], dict[str, list[str]]], dict[str, int]]:
    """Columns and rows of the comparable block; how many averaged columns each method has.

    A published metric for which nothing was measured keeps an empty column under its first name.
    """
    names: list[str] = []
    for column in columns:
        ours = SAME_BACKEND.get(column, (column,))
        found = [name for name in ours if any(name in summary.get(m, {}) for m in methods)]
        names += found or ours[:1]
    rows = _cells(summary, methods, names)
    expected = [c for c in columns if c in AVERAGED]
    complete = {}
    for method in methods:
        found = [c for c in expected if c in summary.get(method, {})]
        complete[method] = len(found)
        if AVERAGE in names and len(found) == len(expected):
            mean = sum(summary[method][c].mean for c in expected) / len(expected)
            rows[method][names.index(AVERAGE)] = number(mean)
    return (names, rows), complete


def _cells(summary: Summary, methods: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    def text(interval: Interval | None) -> str:
        return "" if interval is None else cell(interval)

    return {m: [text(summary.get(m, {}).get(name)) for name in names] for m in methods}


def _head(block: Block) -> list[str]:
    known = all_metrics()
    arrows = [
        ARROWS[known[name].direction if name in known else DIRECTION] for name in block.columns
    ]
    return ["method", *(f"{n} {a}" for n, a in zip(block.columns, arrows, strict=True))]


def _rows(block: Block) -> list[list[str]]:
    return [[looks([method])[method].label, *cells] for method, cells in block.rows.items()]


def markdown(table: PaperTable) -> str:
    """paper_table.md: a table per block."""
    parts = [f"# {table.setting}\n"]
    for block in table.blocks:
        parts += [f"## {block.title}\n", markdown_table(_head(block), _rows(block))]
    return "\n".join([*parts, *(f"{note}\n" for note in table.notes)])


def latex(table: PaperTable) -> str:
    """paper_table.tex: the blocks one above the other; needs booktabs and graphicx."""
    parts = [r"\begingroup\small\setlength{\tabcolsep}{3pt}"]
    for block in table.blocks:
        first, *names = _head(block)
        head = [tex.escape(first), *map(tex.upright, names)]
        rows = [[tex.escape(label), *map(tex.stacked, cells)] for label, *cells in _rows(block)]
        title = (
            rf"\par\medskip\noindent\textit{{{tex.escape(block.title)}}}\par\nopagebreak\noindent"
        )
        parts.append(title + "\n" + tex.table(head, rows, block.title))
    notes = " ".join(tex.escape(note) for note in table.notes)
    parts.append(rf"\par\medskip\noindent{{\footnotesize {notes}\par}}\endgroup")
    return "\n".join(parts) + "\n"


def long_csv(table: PaperTable, summary: Summary) -> str:
    """paper_table.csv: a row per number, full precision where it was measured."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "block", "method", "metric", "value", "low", "high", "n"])
    for block in table.blocks:
        for method, cells in block.rows.items():
            for name, text in zip(block.columns, cells, strict=True):
                if not text:
                    continue
                found = None if block.kind == "published" else summary[method].get(name)
                numbers = found[:4] if found else (text, "", "", "")
                writer.writerow([block.kind, block.title, method, name, *numbers])
    return out.getvalue()
