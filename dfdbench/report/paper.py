"""Measured values in the form of the paper's tables, beside the published ones.

Used by page.py for `dfdbench report --paper SETTING`; `all` means every table that has a method
among the sources, `ar_wan` is the setting of which the paper prints no numbers. A table has up to
three blocks with headers of their own, so that no column ever mixes what was printed with what was
measured here, or one backend with another: the published numbers; measured values by the same
backend; and measured values by other backends, which can be compared between rows only. VBench's
columns are VBench's own scores (report/vbench.py).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.report.arms import looks
from dfdbench.report.published import DIRECTION, of_setting, settings
from dfdbench.report.sections import Page, Section, markdown_page
from dfdbench.report.sets import of_size
from dfdbench.report.statistics import NUMBERS, Interval
from dfdbench.report.summary import Summary
from dfdbench.report.tables import ARROWS, cell, numbers_of
from dfdbench.report.vbench import Scores
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.table import Cell, Table, escape_latex, to_csv
from dfdbench.utils.table import latex as latex_table

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

ALL = "all"
AUTOREGRESSIVE = "ar_wan"
"""The paper's third setting, Self Forcing's students. It is shown in pictures, without a number."""
STAGES = (
    "teacher_forcing", "ode_init", "self_forcing_dmd", "self_forcing_control",
    "self_forcing_dp_dmd", "self_forcing_dfd",
)  # fmt: skip
"""Its students: the arms of baselines/wan-self-forcing and baselines/toy-ar."""
PRINTED = "The published numbers are of the paper's own models, prompts and seeds."
NOT_PRINTED = (
    "There are no published numbers: the paper (arXiv 2606.18478, Section 5.1.3) shows its "
    "autoregressive students in pictures. The columns are those of its Table 1."
)


class Number(NamedTuple):
    """A cell of a block; in full, the value and what follows the mean in NUMBERS, if any."""

    cell: Cell = Cell("")
    values: tuple[float | str, ...] = ()


class Block(NamedTuple):
    """A table with one header. columns: metric names; rows: method -> a number per column."""

    title: str
    kind: str
    columns: list[str]
    rows: dict[str, list[Number]]


class PaperTable(NamedTuple):
    """The blocks of one setting, and notes to print below them."""

    setting: str
    blocks: list[Block]
    notes: list[str]


def paper_tables(
    summary: Summary, setting: str | None, suite: str, scores: Scores
) -> list[PaperTable]:
    """The tables that `--paper` asks for: none, that of a setting, or all that have a method here.

    Raises:
        UserError: what `paper_table` raises; for all, no table has a method in `summary`.
    """
    if setting is None:
        return []
    if setting != ALL:
        return [paper_table(summary, setting, suite, scores)]
    methods = {name: dict.fromkeys(row.method for row in of_setting(name)) for name in settings()}
    methods[AUTOREGRESSIVE] = dict.fromkeys(STAGES)
    chosen = [name for name, of_name in methods.items() if not of_name.keys().isdisjoint(summary)]
    if not chosen:
        every = dict.fromkeys(method for of_name in methods.values() for method in of_name)
        raise UserError(
            f"--paper all: the sources hold no method of the paper's tables "
            f"({', '.join(every)}); they hold {', '.join(summary)}"
        )
    return [paper_table(summary, name, suite, scores) for name in chosen]


def paper_table(summary: Summary, setting: str, suite: str, scores: Scores) -> PaperTable:
    """Put the arms of `summary` that are methods of `setting` beside the published numbers.

    Args:
        scores: VBench's score of each arm and dimension, for VBench's columns.

    Raises:
        UserError: an unknown setting, or none of its methods in `summary`.
    """
    if setting not in (names_of := [*settings(), AUTOREGRESSIVE]):
        raise unknown_name("setting of the paper", setting, names_of)
    printed = () if setting == AUTOREGRESSIVE else of_setting(setting)
    form = printed or of_setting("t2v_wan")
    students = list(dict.fromkeys(row.method for row in printed)) or list(STAGES)
    methods = students if printed else ["teacher", *students]
    columns = list(dict.fromkeys(row.metric for row in form))
    if not set(students) & set(summary):
        raise UserError(
            f"--paper {setting}: the sources hold none of its methods ({', '.join(students)}); "
            f"they hold {', '.join(summary)}"
        )
    texts = {(row.method, row.metric): row.text for row in printed}
    published = {
        m: [Number(Cell(t), (t,)) if (t := texts.get((m, c))) else Number() for c in columns]
        for m in methods
    }
    digits = len(form[0].text.partition(".")[2])
    names = _same_backend(summary, methods, columns)
    same = {
        m: [_measured(summary.get(m, {}), scores.get(m, {}), n, columns, digits) for n in names]
        for m in methods
    }
    blocks = [Block(f"Measured here, suite {suite}, same backends", "measured", names, same)]
    if printed:
        where = f"{printed[0].source}, Table {printed[0].table}"
        blocks.insert(0, Block(f"Published ({where})", "published", columns, published))
    stand_ins = [name for column in columns for name in OTHER_BACKENDS.get(column, ())]
    if other := _present(summary, methods, stand_ins):
        title = f"Measured here, suite {suite}, other backends (not comparable with the paper)"
        rows = {m: [_number(summary.get(m, {}).get(n)) for n in other] for m in methods}
        blocks.append(Block(title, "measured", other, rows))
    return PaperTable(
        setting, blocks, _notes(methods, columns, scores, PRINTED if printed else NOT_PRINTED)
    )


def _present(summary: Summary, methods: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the metrics `names` that any of the methods has."""
    return [name for name in names if any(name in summary.get(m, {}) for m in methods)]


def _same_backend(summary: Summary, methods: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Columns of the comparable block.

    A published metric for which nothing was measured keeps an empty column under its first name.
    """
    names: list[str] = []
    for column in columns:
        ours = SAME_BACKEND.get(column, (column,))
        names += _present(summary, methods, ours) or ours[:1]
    return names


def _measured(
    intervals: Mapping[str, Interval],
    scores: Mapping[str, float],
    name: str,
    columns: Sequence[str],
    digits: int,
) -> Number:
    """A number of the comparable block; VBench's scores with as many digits as were printed."""
    if name == AVERAGE:
        parts, expected = _averaged(scores, columns)
        if len(parts) < expected:
            return Number(Cell(f"({len(parts)} of {expected})")) if parts else Number()
        score = sum(parts) / expected
    elif name not in DIMENSIONS:
        return _number(intervals.get(name))
    elif name in scores:
        score = scores[name]
    else:
        return Number()
    return Number(Cell(f"{score:.{digits}f}"), (score,))


def _averaged(scores: Mapping[str, float], columns: Sequence[str]) -> tuple[list[float], int]:
    """The scores that the paper's average of these columns is of, and how many there should be."""
    expected = [column for column in columns if column in AVERAGED]
    return [scores[column] for column in expected if column in scores], len(expected)


def _number(interval: Interval | None) -> Number:
    if interval is None:
        return Number()
    mark = of_size(interval.seeds, interval.prompts, interval.clips)
    return Number(cell(interval, mark=mark), numbers_of(interval))


def _notes(
    methods: Sequence[str], columns: Sequence[str], scores: Scores, published: str
) -> list[str]:
    notes = [
        "Measured: mean, 95 % interval and median over training seeds, from three on, with their "
        "numbers of training seeds, prompts and clips; VBench's columns are VBench's own scores, "
        f"means over clips or, for consistencies, over frames. {published} Unmeasured cells are "
        "empty."
    ]
    if AVERAGE in columns:
        counts = {m: _averaged(scores.get(m, {}), columns) for m in methods}
        expected = next(iter(counts.values()))[1]
        notes.append(
            f"{AVERAGE} is the plain mean of {expected} columns; measured here: "
            + ", ".join(
                f"{looks([m])[m].label} {len(parts)} of {expected}"
                for m, (parts, _) in counts.items()
            )
            + ". It is given only where all are."
        )
    return notes


def _table(block: Block) -> Table:
    metrics = all_metrics()
    directions = [metrics[n].direction if n in metrics else DIRECTION for n in block.columns]
    names = [f"{n} {ARROWS[d]}" for n, d in zip(block.columns, directions, strict=True)]
    rows = [
        [Cell(looks([method])[method].label), *(number.cell for number in numbers)]
        for method, numbers in block.rows.items()
    ]
    return Table(["method", *names], rows, block.title)


def markdown(table: PaperTable) -> str:
    """paper_table.md: a table per block, then the notes."""
    sections = [Section(block.title, [_table(block)]) for block in table.blocks]
    sections[-1] = sections[-1]._replace(blocks=[*sections[-1].blocks, *table.notes])
    return markdown_page(Page(table.setting, [], sections))


def latex(table: PaperTable) -> str:
    """paper_table.tex: the blocks one above the other; needs booktabs and graphicx."""
    parts = [r"\begingroup\small\setlength{\tabcolsep}{3pt}"]
    for block in table.blocks:
        title = escape_latex(block.title)
        parts.append(rf"\par\medskip\noindent\textit{{{title}}}\par\nopagebreak\noindent")
        parts.append(latex_table(_table(block), block.title, narrow=True))
    notes = " ".join(map(escape_latex, table.notes))
    parts.append(rf"\par\medskip\noindent{{\footnotesize {notes}\par}}\endgroup")
    return "\n".join(parts) + "\n"


def long_csv(tables: Sequence[PaperTable]) -> str:
    """paper_table.csv: a row per number, full precision where it was measured."""
    head = ["setting", "kind", "block", "method", "metric", "value", *NUMBERS[1:]]
    rows = [
        (table.setting, block.kind, block.title, method, name, *_filled(number.values))
        for table in tables
        for block in table.blocks
        for method, numbers in block.rows.items()
        for name, number in zip(block.columns, numbers, strict=True)
        if number.values
    ]
    return to_csv(head, rows)


def _filled(values: tuple[float | str, ...]) -> tuple[float | str, ...]:
    return (*values, *[""] * (len(NUMBERS) - len(values)))
