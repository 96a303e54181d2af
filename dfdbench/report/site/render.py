"""The site of the leaderboards as files: an index, a page a board, a page an entry.

    index.html, board.csv, files.json
    boards/<board>.html
    entries/<board>/<id>.html    beside it <id>.json, as committed
    evidence/, recipes/, clips/  as committed

Everything comes from the folder of leaderboards, nothing from the clock or a network, so that the
same entries give the same bytes; check.py compares. Used by cli/leaderboard.py.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.leaderboard.beside import clips_of, read_recipe, recipe_file
from dfdbench.report.leaderboard.entries import (
    Entry,
    Measured,
    entry_file,
    evidence_file,
    raw_entry,
)
from dfdbench.report.leaderboard.render import boards as boards_of
from dfdbench.report.leaderboard.render import source_of, table_csv
from dfdbench.report.leaderboard.verify import entry_faults
from dfdbench.report.site import facts
from dfdbench.report.site.data import (
    BoardData,
    board_data,
    default_column,
    first_of,
    score_of,
)
from dfdbench.report.site.page_data import page_data
from dfdbench.report.site.plane import plane_svg
from dfdbench.report.web.previews import UNREADABLE, facts_of
from dfdbench.report.web.render import as_block, environment, static
from dfdbench.utils.errors import UserError

LISTING = "files.json"
"""Of a site: every other file of it and its SHA-256."""
STYLES, OWN_STYLES = ("base", "player", "table"), ("site",)
SCRIPTS = ("util", "state", "clock", "table")
OWN_SCRIPTS = ("rows", "compare", "board")
Files = dict[str, bytes | Path]
"""Path in the site → its bytes, or the file whose bytes it has."""


def site_files(folder: Path) -> Files:
    """Every file of the site of the leaderboards in `folder`, but for LISTING.

    Raises:
        UserError: there is no entry, or one cannot be read.
    """
    every = boards_of(folder)
    if not every:
        raise UserError(f"{folder}: no entries; make one with `dfdbench leaderboard submit`")
    boards = [board_data(folder, board) for board in every]
    files: Files = {"board.csv": table_csv(every).encode()}
    told: dict[str, dict[str, dict[str, Any]]] = {}
    for board in boards:
        told[board.name] = {}
        for entry in board.entries:
            own, added = _entry(folder, entry)
            told[board.name][entry.id] = own
            files |= added
    files["index.html"] = _page("index.html", "", cards=[_card(b, told[b.name]) for b in boards])
    for board in boards:
        files[f"boards/{board.name}.html"] = _board_page(board, told[board.name])
        for entry in board.entries:
            page = _entry_page(board, entry, told[board.name])
            files[f"entries/{board.name}/{entry.id}.html"] = page
    return files


def listing(files: Mapping[str, bytes | Path]) -> bytes:
    """The text of LISTING."""
    sums = {name: hashlib.sha256(bytes_of(files[name])).hexdigest() for name in sorted(files)}
    return (json.dumps(sums, indent=1, ensure_ascii=False) + "\n").encode()


def bytes_of(file: bytes | Path) -> bytes:
    """The bytes of a file of the site."""
    return file if isinstance(file, bytes) else file.read_bytes()


@cache
def _environment() -> Environment:
    """That of the report's page with the site's templates."""
    made = environment().overlay(loader=PackageLoader("dfdbench.report.site", "templates"))
    made.filters = {**made.filters, "path": quote}
    return made


@cache
def _style() -> Markup:
    return Markup("\n").join(
        [static(STYLES, "css"), static(OWN_STYLES, "css", "dfdbench.report.site")]
    )


@cache
def _script() -> Markup:
    return Markup("\n").join(
        [static(SCRIPTS, "js"), static(OWN_SCRIPTS, "js", "dfdbench.report.site")]
    )


def _page(template: str, root: str, **values: Any) -> bytes:
    """A page's bytes; root: the way from its folder to that of the index."""
    values |= {"style": _style(), "root": root}
    return _environment().get_template(template).render(values).encode()


def _entry(folder: Path, entry: Entry) -> tuple[dict[str, Any], Files]:
    """What pages tell of an entry beside its scores, and the files that lie beside its page."""
    path = folder / entry_file(entry.board, entry.id)
    raw = raw_entry(path)
    try:
        faults = list(entry_faults(folder, path, raw))
        recipe = read_recipe(folder, entry) if isinstance(entry, Measured) else None
    except UserError as error:
        faults, recipe = [str(error)], None
    own: dict[str, Any] = {
        "kind": facts.kind_of(entry), "faults": len(faults), "recipe": recipe,
        "date": facts.date_of(entry), "paper": facts.paper_link(entry),
        "page": f"entries/{entry.board}/{entry.id}.html",
        "json": entry_file(entry.board, entry.id), "clips": {}, "recipe_file": "",
    }  # fmt: skip
    files: Files = {own["json"]: path}
    if isinstance(entry, Measured):
        own |= facts.facts_of(entry, recipe)
        own["evidence"] = evidence_file(entry.board, entry.id)
        files[own["evidence"]] = folder / own["evidence"]
        if recipe is not None:
            own["recipe_file"] = recipe_file(entry.board, entry.id)
            files[own["recipe_file"]] = folder / own["recipe_file"]
        for clip in clips_of(folder, entry):
            place = clip.file.relative_to(folder).as_posix()
            own["clips"].setdefault(clip.prompt, {})[clip.seed] = quote(place)
            own.setdefault("film", clip.file)
            files[place] = clip.file
    return own, files


def _card(board: BoardData, told: Mapping[str, Any]) -> dict[str, Any]:
    """A board on the index."""
    models = {facts.models_of(entry) for entry in board.measured} - {""}
    names = {entry.id: entry.name for entry in board.measured}
    heads = [
        (column["label"], column["arrow"], [names[n] for n in first_of(board, column["id"])])
        for column in board.headline()
    ]
    students = sum(own["kind"] == "student" for own in told.values())
    groups = dict.fromkeys(g for c in board.columns for g in c["groups"] if g != "Headline")
    return {
        "name": board.name,
        "what": ", ".join(groups),
        "printed": ", ".join(sorted({source_of(entry) for entry in board.published})),
        "models": ", ".join(sorted(models)),
        "students": students,
        "measured": len(board.measured),
        "published": len(board.published),
        "heads": [head for head in heads if head[2]],
        "date": max((own["date"] for own in told.values()), default=""),
        "clips": any(own["clips"] for own in told.values()),
    }


def _board_page(board: BoardData, told: Mapping[str, Any]) -> bytes:
    data = page_data(board, told) | {"fps": _fps(told)}
    figure = None
    if board.plane:
        diversity, colour, points = board.plane
        y_label, x_label = (m.replace("_", " ") for m in (diversity, colour))
        figure = {
            "svg": plane_svg(points, board.colours, f"distance of {x_label} to reference", y_label),
            "points": points,
            "diversity": all_metrics()[diversity].definition,
            "colour": all_metrics()[colour].definition,
        }
    suites = {facts.suite_of(entry) for entry in board.measured}
    return _page(
        "board.html", "../", board=board, told=told, data=data, plane=figure,
        suite=", ".join(sorted(suites)), column=default_column(board), score_of=score_of,
        sources=sorted({(source_of(e), facts.paper_link(e)) for e in board.published}),
        date=max((own["date"] for own in told.values()), default=""),
        json=as_block(data), script=_script(),
    )  # fmt: skip


def _fps(told: Mapping[str, Any]) -> float:
    """Frames a second of a board's clips, by the first of them that can be read."""
    for own in told.values():
        if film := own.get("film"):
            with suppress(*UNREADABLE):
                return round(facts_of(film).fps, 3)
    return 1.0


def _entry_page(board: BoardData, entry: Entry, told: Mapping[str, Any]) -> bytes:
    own, control, changes = told[entry.id], None, []
    if isinstance(entry, Measured):
        init = str((own["recipe"] or {}).get("init", {}).get("recipe", ""))
        control = facts.control_of(entry, board.measured, init)
        if control and own["recipe"] and told[control.id]["recipe"]:
            changes = facts.recipe_changes(own["recipe"], told[control.id]["recipe"])
    return _page(
        "entry.html", "../../", board=board, entry=entry, own=own, control=control,
        control_recipe=bool(control and told[control.id]["recipe"]), changes=changes,
        measured=isinstance(entry, Measured),
        suite=facts.suite_of(entry) if isinstance(entry, Measured) else "",
        commands=facts.commands_of(entry) if isinstance(entry, Measured) else [],
        bibtex=Markup("{}").format(facts.bibtex_of(entry)), score_of=score_of,
        source="" if isinstance(entry, Measured) else source_of(entry),
    )  # fmt: skip
