"""What is rendered from leaderboard entries: README.md, index.html and board.csv.

Used by cli.py for `leaderboard render`, and by verify.py, which renders again and compares: the
same entries always give the same bytes. Measured and published numbers have tables of their own.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, ordered, reference_arm
from dfdbench.report.best import best_arm
from dfdbench.report.cells import Cell as Evidence
from dfdbench.report.cells import frame_of
from dfdbench.report.leaderboard.entries import (
    Entry,
    Measured,
    Published,
    Score,
    entry_file,
    entry_paths,
    evidence_file,
    read_entry,
    read_evidence,
    writing,
)
from dfdbench.report.primary import in_order
from dfdbench.report.sections import Links, Page, Section, html_page, markdown_page
from dfdbench.report.sets import of_size
from dfdbench.report.statistics import NUMBERS, Interval
from dfdbench.report.tables import ARROWS, N, cell, fewer, size_of
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_text
from dfdbench.utils.table import Cell, Table, of_texts, to_csv

TITLE = "Leaderboards"
INTRODUCTION = (
    "Measured numbers come from dfdbench: mean, 95 % t interval and median over training seeds of "
    "the mean over prompts, from three training seeds on; `dfdbench leaderboard verify` computes "
    "them again from each entry's evidence. Published numbers are as a paper prints them, not "
    "measured here, and have tables of their own. A measured student is bold where the paired 95 % "
    "interval over training seeds of its lead on the next best, from their evidence, excludes 0. "
    "↑ higher is better, ↓ lower is better, ≈ nearest to the reference (the real clips; the "
    "teacher where there are none) is best. n: training seeds, prompts and clips of an entry; a "
    "cell of fewer says its own. Compare methods by paired differences (`dfdbench report`), not by "
    "overlap."
)
PROOF = (
    "`verify` shows that the numbers follow from the evidence and that nothing was changed by "
    "mistake; that the evidence is true, only scoring the clips again can show."
)
EDIT = (
    "Made by `dfdbench leaderboard render`; do not edit it, see `dfdbench leaderboard add --help`."
)


class Board(NamedTuple):
    """A board's tables, and its entries in the order of their columns.

    best: metric and its version → id of the entry that is bold.
    """

    name: str
    tables: list[Table]
    entries: list[Entry]
    best: Mapping[tuple[str, int], str | None]


def load_boards(folder: Path) -> dict[str, list[Entry]]:
    """Board -> its entries: references, known methods, then the others by name; measured first."""
    boards: dict[str, list[Entry]] = {}
    for path in entry_paths(folder):
        entry = read_entry(path)
        boards.setdefault(entry.board, []).append(entry)
    for entries in boards.values():
        methods = ordered(entry.method for entry in entries)
        entries.sort(key=lambda e: (e.kind != "measured", methods.index(e.method), e.name, e.id))
    return boards


def measured_keys(entries: Sequence[Measured]) -> list[tuple[str, int]]:
    """(metric, version) of measured entries, in the order of tables: versions never mix."""
    keys = {(name, score.version) for entry in entries for name, score in entry.metrics.items()}
    order = {name: i for i, name in enumerate(in_order({name for name, _ in keys}))}
    return sorted(keys, key=lambda key: (order.get(key[0], len(order)), key))


def _scores(entries: Sequence[Entry], metric: str, version: int) -> dict[str, Score]:
    """Id -> the score of a metric in the measured entries that have this version of it."""
    scores = {e.id: e.metrics[metric] for e in _measured(entries) if metric in e.metrics}
    return {name: score for name, score in scores.items() if score.version == version}


def _measured(entries: Sequence[Entry]) -> list[Measured]:
    return [entry for entry in entries if isinstance(entry, Measured)]


def best_entry(folder: Path, entries: Sequence[Entry], metric: str, version: int) -> str | None:
    """Id of the measured student that the evidence tells from every other, if there is one."""
    own = {e.id: e for e in _measured(entries) if e.id in _scores(entries, metric, version)}
    level = all_metrics()[metric].level if metric in all_metrics() else None
    students = [entry for entry in own.values() if not is_measured_reference(entry)]
    if level is None or (level == "prompt" and len({_clips_each(e) for e in students}) > 1):
        return None
    rows = [
        cell.model_copy(update={"arm": entry.id})
        for entry in own.values()
        for cell in _evidence(folder / evidence_file(entry.board, entry.id), entry.evidence.sha256)
        if cell.metric == metric
    ]
    references = {entry.id for entry in own.values() if is_measured_reference(entry)}
    direction = next(iter(own.values())).metrics[metric].direction
    return best_arm(frame_of(rows), direction, references, aim_of(list(own.values())))


@lru_cache(maxsize=64)
def _evidence(path: Path, sha256: str) -> list[Evidence]:
    """The cells behind an entry; sha256 is what the entry says of the file, so that a new one is
    read again."""
    return read_evidence(path)


def is_measured_reference(entry: Measured) -> bool:
    """Whether students are measured against an entry, so that it is never best."""
    return is_reference(entry.method, {entry.method} if entry.reference else ())


def aim_of(entries: Sequence[Measured]) -> str | None:
    """Id of the entry that nearness is to."""
    by_method = {entry.method: entry.id for entry in reversed(entries)}
    named = {entry.method for entry in entries if entry.reference}
    method = reference_arm(list(by_method), named)
    return by_method[method] if method else None


def _clips_each(entry: Measured) -> float:
    """Clips of a prompt and training seed."""
    facts = entry.provenance
    return facts.videos.count / facts.prompts / max(1, len(facts.training_seeds))


def _measured_table(
    entries: Sequence[Measured], best: Mapping[tuple[str, int], str | None]
) -> Table:
    keys = measured_keys(entries)
    names = [metric for metric, _ in keys]
    intervals = {e.id: {m: _interval(score) for m, score in e.metrics.items()} for e in entries}
    sizes = {name: size_of(own) for name, own in intervals.items()}
    rows = [[Cell(N), *(Cell(of_size(*size)) for size in sizes.values())]]
    for metric, version in keys:
        scores = _scores(entries, metric, version)
        direction = next(reversed(scores.values())).direction
        label = metric if names.count(metric) == 1 else f"{metric} v{version}"
        cells = [
            cell(own, e.id == best[metric, version], fewer(own, sizes[e.id]))
            for e in entries
            for own in (intervals[e.id][metric] if e.id in scores else None,)
        ]
        rows.append([Cell(f"{label} {ARROWS[direction]}"), *cells])
    heads = [f"{e.name} (reference)" if e.reference else e.name for e in entries]
    return Table(["metric", *heads], rows, "Measured")


def _interval(score: Score) -> Interval:
    low, high = (math.nan if limit is None else limit for limit in (score.low, score.high))
    return Interval(
        score.mean, low, high, score.median, score.seeds, score.prompts, score.clips, {}
    )


def _published_table(entries: Sequence[Published]) -> Table:
    sources = sorted({source_of(entry) for entry in entries})
    rows = []
    for name in dict.fromkeys(name for entry in entries for name in entry.metrics):
        values = [entry.metrics.get(name) for entry in entries]
        direction = next(value.direction for value in values if value)
        texts = [value.as_printed if value else "—" for value in values]
        rows.append([f"{name} {ARROWS[direction]}", *texts])
    title = f"Published ({'; '.join(sources)}; not measured here)"
    return of_texts(["metric", *(entry.name for entry in entries)], rows, title)


def source_of(entry: Published) -> str:
    """The paper and table of a published entry."""
    return f"{entry.source.paper}, Table {entry.source.table}"


def _provenance_table(entries: Sequence[Measured]) -> Table:
    head = [
        "entry", "prompts", "clips", "training seeds", "student updates", "wall time", "suite",
        "dfdbench",
    ]  # fmt: skip
    rows = []
    for entry in entries:
        facts = entry.provenance
        trained = [r for r in facts.runs if r.student_updates_total and r.wall_seconds_total]
        updates = sorted({run.student_updates_total or 0 for run in trained})
        seconds = [run.wall_seconds_total or 0.0 for run in trained]
        rows.append(
            [
                entry.name,
                str(facts.prompts),
                str(facts.videos.count),
                str(len(facts.training_seeds)) if facts.training_seeds else "—",
                ", ".join(map(str, updates)) or "—",
                f"{sum(seconds) / len(seconds) / 60:.1f} min" if seconds else "—",
                f"{entry.suite.name} v{entry.suite.version}",
                f"{facts.dfdbench} ({(facts.commit or facts.code_sha256)[:8]})",
            ]
        )
    return of_texts(head, rows, "Where the measured numbers come from")


def boards(folder: Path) -> list[Board]:
    """The tables of every board, those with measured entries first, then by name."""
    result = []
    by_name = load_boards(folder)
    for name in sorted(by_name, key=lambda n: (by_name[n][0].kind != "measured", n)):
        entries, tables = by_name[name], []
        measured = _measured(entries)
        best = {key: best_entry(folder, entries, *key) for key in measured_keys(measured)}
        if measured:
            tables += [_measured_table(measured, best), _provenance_table(measured)]
        if published := [entry for entry in entries if isinstance(entry, Published)]:
            tables.append(_published_table(published))
        result.append(Board(name, tables, entries, best))
    return result


def page_of(boards: Sequence[Board]) -> Page:
    """The page of all boards: a section a board, a part of it a table."""
    sections = []
    for board in boards:
        tables = [Section(table.title, [table], 3) for table in board.tables]
        links = Links("Entries", [(e.id, entry_file(board.name, e.id)) for e in board.entries])
        tables[-1] = tables[-1]._replace(blocks=[*tables[-1].blocks, links])
        sections += [Section(board.name), *tables]
    return Page(TITLE, [INTRODUCTION, PROOF], sections)


def table_csv(boards: Sequence[Board]) -> str:
    """board.csv: a row per board, entry and metric."""
    about = ["board", "kind", "entry", "name", "method", "metric", "version", "direction", "value"]
    head = [*about, *NUMBERS[1:], "best", "source"]
    empty = [""] * len(NUMBERS)
    rows: list[tuple[object, ...]] = []
    for board in boards:
        for entry in board.entries:
            own = (board.name, entry.kind, entry.id, entry.name, entry.method)
            if isinstance(entry, Published):
                rows += [
                    (*own, name, "", v.direction, v.as_printed, *empty, source_of(entry))
                    for name, v in entry.metrics.items()
                ]
                continue
            for name, v in entry.metrics.items():
                best = entry.id == board.best[name, v.version]
                numbers = (*(getattr(v, key) for key in NUMBERS), int(best))
                rows.append((*own, name, v.version, v.direction, *numbers, entry.evidence.file))
    return to_csv(head, rows)


def rendered(folder: Path) -> dict[str, str]:
    """File name -> text of everything that is rendered from the entries in `folder`."""
    every = boards(folder)
    page = page_of(every)
    return {
        "README.md": markdown_page(page._replace(notes=[*page.notes, EDIT])),
        "index.html": html_page(page),
        "board.csv": table_csv(every),
    }


def render(folder: Path) -> list[Path]:
    """Write what is rendered; returns the files."""
    if not (folder / "entries").is_dir():
        raise UserError(f"{folder}: no entries; make one with `dfdbench leaderboard add`")
    with writing(folder):
        texts = rendered(folder)
        for name, text in texts.items():
            write_text(folder / name, text)
    return [folder / name for name in texts]
