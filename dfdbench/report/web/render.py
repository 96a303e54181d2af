"""From what a report gathered to its page: index.html, and the clips in the folder beside it.

Used by page.py. The parts lie in templates/ (Jinja2, which escapes every text), the style and the
scripts in static/; all of them go into the one file. Without its scripts the page is a readable
document: verdicts, one prompt's clips, stills of the others, tables and figures.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dfdbench import __version__
from dfdbench.report.arms import is_reference
from dfdbench.report.best import Best
from dfdbench.report.collect import Collected
from dfdbench.report.digits import number
from dfdbench.report.sections import Figure, Page, html_block
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.report.summary import Delta, Summary
from dfdbench.report.web.clips import FOLDER, Clips, Shown, clips_of
from dfdbench.report.web.data import page_data, prompt_texts
from dfdbench.report.web.drawings import Drawing, drawn_before, panels
from dfdbench.report.web.verdicts import EXPLAINED, verdicts_of
from dfdbench.utils.table import one_line

SCRIPTS = (
    "util", "state", "stats", "clock", "grid", "player", "blind", "table", "scores", "drill",
    "main",
)  # fmt: skip
"""In the order in which each comes after those that it imports from."""
STYLES = ("base", "player", "table")
FOLDED = ("training-curves", "discrepancy")
REPLACED = ("Scores", "Pictures")
"""Sections whose place the page fills with more than they have."""
DOWNLOADS = (
    ("table.csv", "CSV"), ("cells.csv", "cells (CSV)"), ("table.tex", "LaTeX"),
    ("summary.json", "JSON"), ("deltas.json", "differences (JSON)"), ("report.md", "Markdown"),
)  # fmt: skip


class Made(NamedTuple):
    """What of a report its page is made of.

    pairs: the comparisons, first minus second. sources: as the command was given them. drawn: the
    figures that lie beside the page. prompt: the one to begin with, if a caller asked for one.
    """

    collected: Collected
    summary: Summary
    cells: pd.DataFrame
    deltas: Sequence[Delta]
    best: Best
    pairs: Sequence[tuple[str, str]]
    drawn: Sequence[Figure]
    sources: Sequence[Path]
    prompt: str | None = None
    options: Sequence[str] = ()


def web_page(page: Page, made: Made, out: Path) -> str:
    """The page as HTML; writes its clips below `out`.

    page: the sections of the report; those of REPLACED are not taken from it.
    """
    collected, references = made.collected, made.collected.references
    clips = clips_of(collected, out, made.prompt, made.prompt or _largest_difference(made))
    pairs = sorted(made.pairs, key=lambda pair: any(is_reference(a, references) for a in pair))
    data = page_data(collected, made.summary, made.cells, made.best, clips, pairs)
    rest = [
        (section, Markup("\n".join(map(_block, section.blocks))))
        for section in page.sections
        if section.title not in REPLACED
    ]
    return (
        environment()
        .get_template("report.html")
        .render(
            title=page.title,
            notes=page.notes,
            facts=header_facts(made),
            command=command_of(made.sources, made.options),
            downloads=DOWNLOADS,
            verdicts=verdicts_of(made.cells, made.deltas, references),
            explained=EXPLAINED,
            data=data,
            rows=_first_grid(clips, data),
            inside=clips.inside,
            gallery=_gallery(clips, data, collected),
            left_out=_left_out(clips),
            note=next((s.blocks[0] for s in page.sections if s.title == "Scores"), ""),
            panels=list(panels(made.summary, references)),
            figures=list(_drawings(made.drawn, folded=False)),
            folded=list(_drawings(made.drawn, folded=True)),
            rest=rest,
            folder=FOLDER,
            style=static(STYLES, "css"),
            script=static(SCRIPTS, "js"),
            json=as_block(data),
        )
    )


@cache
def environment() -> Environment:
    """Jinja2 as the pages use it: every text is escaped, a name that is not there is an error."""
    made = Environment(
        loader=PackageLoader("dfdbench.report.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: one_line(value) if type(value) is str else value,
    )
    made.filters |= {"slug": slug, "number": number, "arm": _label}
    return made


def _label(arm: str, data: Mapping[str, Any]) -> str:
    return next((str(own["label"]) for own in data["arms"] if own["id"] == arm), arm)


def slug(text: str) -> str:
    """A text as an element's id."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "part"


def static(names: Iterable[str], suffix: str, package: str = "dfdbench.report.web") -> Markup:
    """Files of a package's static/ in one text; of modules without what only several files need."""
    folder = files(package).joinpath("static")
    texts = (folder.joinpath(f"{name}.{suffix}").read_text("utf-8") for name in names)
    return Markup("\n".join(map(_joined, texts) if suffix == "js" else texts))


def _joined(module: str) -> str:
    """A module's text without its imports, and with its exports as plain names."""
    without = re.sub(r"^import\b[^;]*;\n", "", module, flags=re.MULTILINE)
    return re.sub(r"^export ", "", without, flags=re.MULTILINE)


def as_block(value: Any) -> Markup:
    """JSON that no text within can end or leave: ASCII without `<`, `>` and `&`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def command_of(sources: Sequence[Path], options: Sequence[str]) -> str:
    """The call that makes this page again."""
    return shlex.join(["dfdbench", "report", *map(str, sources), *options])


def header_facts(made: Made) -> list[tuple[str, str]]:
    """Suite, size, date and code of the report, as label and text."""
    cells, collected = made.cells, made.collected
    trained = set(cells["training_seed"]) - {NO_TRAINING_SEED}
    seeds = {own.clips // max(1, own.prompts * max(1, own.seeds))
             for of in made.summary.values() for own in of.values()
             if own.prompts and own.clips}  # fmt: skip
    prompts = len(set(cells["prompt"]) - {""})
    size = [f"{prompts} prompts", f"{max(seeds, default=1)} clip seeds"]
    size.append(f"{len(trained)} training seeds" if trained else "no training seeds")
    infos = [run.info for run in collected.runs]
    date = max((str(i["created"])[:10] for i in infos if i.get("created")), default="")
    code = {(i.get("code") or {}).get("commit") or "" for i in infos} - {""}
    version = {(i.get("versions") or {}).get("dfdbench") or "" for i in infos} - {""}
    commit = f" ({', '.join(c[:8] for c in sorted(code)[:3])})" if code else ""
    return [
        ("suite", collected.suite),
        ("size", " × ".join(size)),
        ("date", date or _scored(made.sources)),
        ("code", f"dfdbench {', '.join(sorted(version)) or __version__}{commit}"),
    ]


def _scored(sources: Sequence[Path]) -> str:
    """The day of the newest store among the sources."""
    stores = [s if s.is_file() else s / "scores.sqlite" for s in map(Path, sources)]
    times = [store.stat().st_mtime for store in stores if store.is_file()]
    return str(datetime.fromtimestamp(max(times), UTC).date()) if times else "unknown"


def _largest_difference(made: Made) -> str | None:
    """The prompt in which the first comparison's first metric differs most."""
    references = made.collected.references
    deltas = [d for d in made.deltas if d.primary] or list(made.deltas)
    if not deltas:
        return None
    deltas.sort(key=lambda d: is_reference(d.a, references) or is_reference(d.b, references))
    a, b, metric = deltas[0].a, deltas[0].b, deltas[0].metric
    own = made.cells[made.cells["metric"] == metric]
    means = own.groupby(["arm", "prompt"])["value"].mean()
    if a not in means or b not in means:
        return None
    gap = (means[a] - means[b]).abs().dropna()
    return str(gap.idxmax()) if len(gap) else None


def _block(block: Any) -> str:
    """A block of a section; a figure as its SVG if there is one, heads with a scope."""
    if isinstance(block, Figure) and (drawing := drawn_before(block.file, block.caption)):
        return environment().get_template("figure.html").render(drawing=drawing)
    return html_block(block).replace("<th>", '<th scope="col">')


def _drawings(drawn: Sequence[Figure], folded: bool) -> Iterable[Drawing]:
    """The figures that no panel and no player shows already."""
    shown = ("seed-grid", "training-seeds", "diversity-saturation")
    for figure in drawn:
        name = figure.file.stem
        if name not in shown and (name in FOLDED) == folded:
            drawing = drawn_before(figure.file, figure.caption)
            if drawing is not None:
                yield drawing


def _first_grid(clips: Clips, data: Mapping[str, Any]) -> list[tuple[Any, list[tuple[int, Shown]]]]:
    """The clips within the page, a row an arm: those that play without scripts."""
    inside = [(i, c) for i, c in enumerate(clips.clips) if c.prompt == clips.first]
    inside = [(i, c) for i, c in inside if c.training_seed in clips.lowest]
    return [
        (arm, own)
        for arm in data["arms"]
        for own in [[(i, c) for i, c in inside if c.arm == arm["id"]]]
        if own
    ]


def _gallery(clips: Clips, data: Mapping[str, Any], collected: Collected) -> list[dict[str, Any]]:
    """Every prompt's sheet with what is seen on it."""
    texts, labels = prompt_texts(collected.clips), {a["id"]: a["label"] for a in data["arms"]}
    places = {prompt["id"]: i for i, prompt in enumerate(data["prompts"])}
    return [
        {
            "index": places[prompt],
            "text": texts.get(prompt, prompt),
            "sheet": sheet,
            "height": len(sheet.rows) * sheet.height,
            "alt": "Middle frames of the clips, a row each of "
            + ", ".join(labels.get(arm, arm) for arm in sheet.rows),
        }
        for prompt, sheet in sorted(clips.sheets.items(), key=lambda item: places[item[0]])
    ]


def _left_out(clips: Clips) -> str:
    """What of the clips the page does not show."""
    shown, prompts = len(clips.clips), len({clip.prompt for clip in clips.clips})
    if clips.faults:
        return f"{len(clips.faults)} clips cannot be read, the first: {clips.faults[0]}."
    if shown == clips.total:
        return ""
    line = f"Shown are {shown} of {clips.total} clips"
    return (
        f"{line}, of {prompts} of {clips.prompts} prompts."
        if prompts < clips.prompts
        else (f"{line}: at most eight seeds of a prompt, arm and training seed.")
    )
