"""What a board's pages tell: its entries, columns, scores, ranks and paired leads.

Used by render.py. Numbers are those of the entries; ranks and leads are computed from the evidence
(ranks.py), of each metric and version apart.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import looks
from dfdbench.report.best import badness
from dfdbench.report.cells import frame_of
from dfdbench.report.leaderboard.entries import (
    Entry,
    Measured,
    Published,
    Score,
    evidence_file,
    read_evidence,
)
from dfdbench.report.leaderboard.render import Board, aim_of, is_measured_reference
from dfdbench.report.leaderboard.render import measured_keys as keys_of
from dfdbench.report.primary import primaries
from dfdbench.report.site.ranks import Lead, Pair, Rank, ranked
from dfdbench.report.statistics import complete, t_test, table_of
from dfdbench.report.tables import ARROWS
from dfdbench.report.web.data import DIRECTIONS, metric_facts


class Point(NamedTuple):
    """A method on the plane: colour distance and diversity, each with low and high or None."""

    entry: Measured
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]
    front: bool


class BoardData(NamedTuple):
    """All of a board. columns: a dict each, as web.data.metric_facts with `id` and `version`.

    ranks, leads: by column id. colours: by entry id. plane: (diversity metric, colour metric) and
    its points, None where nothing can be drawn.
    """

    name: str
    measured: list[Measured]
    published: list[Published]
    columns: list[dict[str, Any]]
    ranks: Mapping[str, Mapping[str, Rank]]
    leads: Mapping[str, Mapping[Pair, Lead]]
    best: Mapping[str, str | None]
    colours: Mapping[str, str]
    plane: tuple[str, str, list[Point]] | None

    @property
    def entries(self) -> list[Entry]:
        """Measured ones first."""
        return [*self.measured, *self.published]

    def headline(self) -> list[dict[str, Any]]:
        """The columns of the headline metrics."""
        return [column for column in self.columns if "Headline" in column["groups"]]

    def rank(self, column: str, entry: str) -> Rank | None:
        """An entry's rank by a column."""
        return self.ranks.get(column, {}).get(entry)


def board_data(folder: Path, board: Board) -> BoardData:
    """Everything of a board of the leaderboards in `folder`."""
    entries = board.entries
    measured = [entry for entry in entries if isinstance(entry, Measured)]
    published = [entry for entry in entries if isinstance(entry, Published)]
    columns = columns_of(measured)
    cells = frame_of([
        cell.model_copy(update={"arm": entry.id})
        for entry in measured
        for cell in read_evidence(folder / evidence_file(entry.board, entry.id))
    ])  # fmt: skip
    references = {entry.id for entry in measured if is_measured_reference(entry)}
    ranks, leads = {}, {}
    best = {c["id"]: board.best[c["metric"], c["version"]] for c in columns}
    for column in columns:
        ids = {entry.id for entry in measured if score_of(entry, column)}
        # What else an entry has counts its clips, so only entries are left out, not metrics.
        own = cells[cells["arm"].isin(ids)]
        metric = str(column["metric"])
        aim = aim_of([entry for entry in measured if entry.id in ids])
        made = ranked(own, metric, str(column["direction"]), references, aim)
        ranks[column["id"]], leads[column["id"]] = made
    return BoardData(
        board.name, measured, published, columns, ranks, leads, best, _colours(entries),
        _plane(cells, measured, references),
    )  # fmt: skip


def _colours(entries: Sequence[Entry]) -> dict[str, str]:
    """Of each entry that of its method; a second entry of a method and kind has one of its own."""
    seen, keys = set[tuple[str, str]](), dict[str, str]()
    for entry in entries:
        twice = (entry.kind, entry.method) in seen
        keys[entry.id] = f"{entry.method} {entry.id}" if twice else entry.method
        seen.add((entry.kind, entry.method))
    drawn = looks(keys.values())
    return {name: drawn[key].colour for name, key in keys.items()}


def columns_of(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """A column a metric and version, headline first."""
    keys = keys_of(measured)
    known = {m for m, _ in keys if m in all_metrics()}
    facts = {own["id"]: own for own in metric_facts([m for m in dict.fromkeys(
        m for m, _ in keys) if m in known])}  # fmt: skip
    names = [metric for metric, _ in keys]
    columns = []
    for metric, version in keys:
        several = names.count(metric) > 1
        score = next(s for e in measured if (s := e.metrics.get(metric)) and s.version == version)
        own = facts.get(metric) or _unknown(metric)
        columns.append(own | {
            "id": f"{metric}-v{version}" if several else metric,
            "metric": metric, "version": version,
            "label": f"{own['label']} v{version}" if several else own["label"],
            "direction": score.direction, "arrow": ARROWS[score.direction],
            "better": DIRECTIONS[score.direction],
        })  # fmt: skip
    return columns


def _unknown(metric: str) -> dict[str, Any]:
    return {
        "label": metric.replace("_", " "), "groups": ["Others"], "unit": "no unit", "primary": "",
        "source": "an earlier dfdbench", "level": "video",
        "definition": "This dfdbench has no such metric.",
    }  # fmt: skip


def score_of(entry: Measured, column: Mapping[str, Any]) -> Score | None:
    """An entry's score of a column: its metric in its version."""
    score = entry.metrics.get(column["metric"])
    return score if score and score.version == column["version"] else None


def default_column(board: BoardData) -> str:
    """The column to rank by at first: diversity, else the first headline metric."""
    for wanted in ("diversity", None):
        for column in board.columns:
            if wanted is None or column["primary"] == wanted:
                return str(column["id"])
    return ""


def first_of(board: BoardData, column: str) -> list[str]:
    """Ids of the students that may be first by a column: those whose ranks begin with 1."""
    ranks = board.ranks.get(column, {})
    return [entry.id for entry in board.measured
            if (rank := ranks.get(entry.id)) and rank.first == 1]  # fmt: skip


def _plane(
    cells: Any, measured: Sequence[Measured], references: set[str]
) -> tuple[str, str, list[Point]] | None:
    """Diversity against the distance of colour to the reference, students alone."""
    of_primary = {primary: m for m, primary in primaries(set(cells["metric"])).items()}
    diversity, colour = of_primary.get("diversity"), of_primary.get("saturation")
    if not diversity or not colour:
        return None
    aim = aim_of([entry for entry in measured if colour in entry.metrics])
    if aim is None:
        return None
    tables = {
        str(arm): table_of(own) for arm, own in cells[cells["metric"] == colour].groupby("arm")
    }
    goal = complete(tables[aim]).mean(axis=1)
    points = []
    for entry in measured:
        if entry.id in references or entry.id not in tables or diversity not in entry.metrics:
            continue
        apart = badness(tables[entry.id], "nearest_reference", goal)
        x, score = float(apart.mean()), entry.metrics[diversity]
        if isfinite(x):
            low, high, _ = t_test(apart.to_numpy())
            ends = (max(0.0, low), high) if isfinite(low) else (None, None)
            points.append(Point(entry, (x, *ends), (score.mean, score.low, score.high), False))
    front = [
        p._replace(front=not any(
            q.x[0] <= p.x[0] and q.y[0] >= p.y[0] and (q.x[0], q.y[0]) != (p.x[0], p.y[0])
            for q in points))
        for p in points
    ]  # fmt: skip
    return (diversity, colour, front) if len(front) > 1 else None
