"""What a board's page gives its scripts: one block of JSON. Used by render.py."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from dfdbench.report.leaderboard.entries import Measured, Published
from dfdbench.report.site.data import BoardData, default_column, score_of
from dfdbench.report.site.ranks import Lead
from dfdbench.report.tables import ARROWS
from dfdbench.utils.table import one_line

DIGITS = 6
NEEDED = (
    "id", "label", "groups", "arrow", "direction", "better", "unit", "source", "definition",
    "primary",
)  # fmt: skip
"""Of a column."""


def page_data(board: BoardData, told: Mapping[str, Any]) -> dict[str, Any]:
    """Entries, columns, scores, leads, printed numbers; every number finite, others null.

    told: entry id → what render.py tells of it beside its scores.
    """
    return {
        "board": board.name,
        "by": default_column(board),
        "columns": [{key: column[key] for key in NEEDED} for column in board.columns],
        "entries": [_entry(board, entry, told[entry.id]) for entry in board.measured],
        "scores": {entry.id: _scores(board, entry) for entry in board.measured},
        "leads": {
            column: {f"{a} {b}": _lead(lead) for (a, b), lead in pairs.items()}
            for column, pairs in board.leads.items()
        },
        "published": _published(board, told),
    }


def _entry(board: BoardData, entry: Measured, own: Mapping[str, Any]) -> dict[str, Any]:
    part = {key: own[key] for key in ("kind", "faults", "date", "page", "clips")}
    links = {"recipe": own.get("recipe_file"), "evidence": own["evidence"], "paper": own["paper"]}
    facts = entry.provenance
    return part | {
        "id": entry.id,
        "label": one_line(entry.name),
        "colour": board.colours[entry.id],
        "facts": {key: own[key] for key in ("model", "steps", "updates", "hours")},
        "links": {name: file for name, file in links.items() if file},
        "n": [len(facts.training_seeds), facts.prompts, facts.videos.count],
        "search": one_line(f"{entry.name} {entry.id} {entry.method} {own['model']['text']}"),
    }


def _number(value: float | None) -> float | None:
    known = value is not None and isfinite(value)
    return float(f"{value:.{DIGITS}g}") if known else None


def _scores(board: BoardData, entry: Measured) -> dict[str, list[Any]]:
    """Column → mean, low, high, median, seeds, prompts, clips, best, rank first, last, of, why."""
    result = {}
    for column in board.columns:
        name, score = column["id"], score_of(entry, column)
        rank = board.rank(name, entry.id)
        if score and rank:
            numbers = (score.mean, score.low, score.high, score.median)
            best = int(board.best[name] == entry.id)
            result[name] = [
                *map(_number, numbers), score.seeds, score.prompts, score.clips, best, *rank,
            ]  # fmt: skip
    return result


def _lead(lead: Lead) -> list[Any]:
    """Mean, low, high, seeds, corrected p, and 1 or -1 where the two are told apart."""
    numbers = [_number(value) for value in (lead.mean, lead.low, lead.high)]
    return [*numbers, lead.seeds, _number(lead.p_holm), lead.better]


def _published(board: BoardData, told: Mapping[str, Any]) -> dict[str, Any]:
    names = dict.fromkeys(name for entry in board.published for name in entry.metrics)
    return {
        "columns": [
            {"id": name, "label": name.replace("_", " "), "arrow": ARROWS[_way(board, name)],
             "direction": _way(board, name)}
            for name in names
        ],
        "entries": [
            {
                "id": entry.id, "label": one_line(entry.name), "page": told[entry.id]["page"],
                "search": one_line(f"{entry.name} {entry.id}"),
                "values": {
                    name: [value.value, value.as_printed] for name, value in entry.metrics.items()
                },
            }
            for entry in board.published
        ],
    }  # fmt: skip


def _way(board: BoardData, name: str) -> str:
    own: list[Published] = [entry for entry in board.published if name in entry.metrics]
    return own[0].metrics[name].direction
