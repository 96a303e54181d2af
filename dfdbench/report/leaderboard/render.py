"""What is rendered from leaderboard entries: README.md, index.html and board.csv.

Used by cli.py for `leaderboard render`, and by verify.py, which renders again and compares: the
same entries always give the same bytes. Measured and published numbers have tables of their own.
"""

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report import html
from dfdbench.report.arms import REFERENCES, ordered
from dfdbench.report.leaderboard.entries import Entry, entry_file, entry_paths, read_entry
from dfdbench.report.statistics import Interval
from dfdbench.report.summary import best_of, reference_arm
from dfdbench.report.tables import ARROWS, cell, markdown_table
from dfdbench.utils.files import write_text

TITLE = "Leaderboards"
INTRODUCTION = (
    "Measured numbers come from dfdbench: mean and 95 % interval from a bootstrap over prompts and "
    "training seeds; `dfdbench leaderboard verify` computes them again from each entry's evidence. "
    "Published numbers are as a paper prints them, not measured here, and have tables of their "
    "own. The best measured student is bold. ↑ higher is better, ↓ lower is better, ≈ nearest to "
    "the real clips (to the teacher where there are none) is best. An interval holds the "
    "differences between prompts, which all methods share, so compare methods by paired "
    "differences (`dfdbench report`), not by overlap."
)
PROOF = (
    "`verify` shows that the numbers follow from the evidence and that nothing was changed by "
    "mistake; that the evidence is true, only scoring the clips again can show."
)

Rows = list[list[tuple[str, bool]]]


class Table(NamedTuple):
    """One table of a board: head and rows of (text, is best)."""

    title: str
    head: list[str]
    rows: Rows


class Board(NamedTuple):
    """A board's tables, and its entries in the order of their columns."""

    name: str
    tables: list[Table]
    entries: list[Entry]


def load_boards(folder: Path) -> dict[str, list[Entry]]:
    """Board -> its entries: references, known methods, then the others by name; measured first."""
    boards: dict[str, list[Entry]] = {}
    for path in entry_paths(folder):
        entry = read_entry(path)
        boards.setdefault(entry["board"], []).append(entry)
    for entries in boards.values():
        methods = ordered(entry["method"] for entry in entries)
        entries.sort(
            key=lambda e: (e["kind"] != "measured", methods.index(e["method"]), e["name"], e["id"])
        )
    return boards


def measured_keys(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    """(metric, version) of measured entries, in the registry's order: versions never mix."""
    keys = {(name, v["version"]) for entry in entries for name, v in entry["metrics"].items()}
    order = {name: i for i, name in enumerate(all_metrics())}
    return sorted(keys, key=lambda key: (order.get(key[0], len(order)), key))


def best_entries(entries: Sequence[Entry], metric: str, version: int) -> list[str]:
    """Ids of the best measured students of a metric; the reference is the board's own."""
    found = {
        entry["id"]: entry
        for entry in entries
        if entry["metrics"].get(metric, {}).get("version") == version
    }
    means = {name: entry["metrics"][metric]["mean"] for name, entry in found.items()}
    students = {n: m for n, m in means.items() if found[n]["method"] not in REFERENCES}
    reference = reference_arm([entry["method"] for entry in found.values()])
    # Means over other prompts than the reference's say nothing about nearness to it.
    same = len({entry["metrics"][metric]["n"] for entry in found.values()}) == 1
    aims = [m for n, m in means.items() if found[n]["method"] == reference and same]
    direction = next(e["metrics"][metric]["direction"] for e in found.values())
    return best_of(students, direction, aims[0] if aims else None)


def _measured_table(entries: Sequence[Entry]) -> Table:
    keys = measured_keys(entries)
    names = [metric for metric, _ in keys]
    rows: Rows = []
    for metric, version in keys:
        best = best_entries(entries, metric, version)
        label = metric if names.count(metric) == 1 else f"{metric} v{version}"
        row, direction = list[tuple[str, bool]](), ""
        for entry in entries:
            found = entry["metrics"].get(metric)
            if found is None or found["version"] != version:
                row.append(("—", False))
                continue
            direction = found["direction"]
            low, high = (math.nan if found[k] is None else found[k] for k in ("low", "high"))
            interval = Interval(found["mean"], low, high, found["n"])
            row.append((cell(interval), entry["id"] in best))
        rows.append([(f"{label} {ARROWS[direction]}", False), *row])
    return Table("Measured", ["metric", *(entry["name"] for entry in entries)], rows)


def _published_table(entries: Sequence[Entry]) -> Table:
    sources = sorted({f"{e['source']['paper']}, Table {e['source']['table']}" for e in entries})
    names = dict.fromkeys(name for entry in entries for name in entry["metrics"])
    rows: Rows = []
    for name in names:
        found = [entry["metrics"].get(name) for entry in entries]
        direction = next(value["direction"] for value in found if value)
        texts = [value["as_printed"] if value else "—" for value in found]
        rows.append([(f"{name} {ARROWS[direction]}", False), *((text, False) for text in texts)])
    title = f"Published ({'; '.join(sources)}; not measured here)"
    return Table(title, ["metric", *(entry["name"] for entry in entries)], rows)


def _provenance_table(entries: Sequence[Entry]) -> Table:
    head = [
        "entry", "prompts", "clips", "training seeds", "student updates", "wall time", "suite",
        "dfdbench",
    ]  # fmt: skip
    rows: Rows = []
    for entry in entries:
        facts, suite = entry["provenance"], entry["suite"]
        updates = sorted({r["student_updates_total"] for r in _trained(entry)})
        seconds = [r["wall_seconds_total"] for r in _trained(entry)]
        texts = [
            entry["name"],
            str(facts["prompts"]),
            str(facts["videos"]["count"]),
            str(len(facts["training_seeds"])) if facts["training_seeds"] else "—",
            ", ".join(map(str, updates)) or "—",
            f"{sum(seconds) / len(seconds) / 60:.1f} min" if seconds else "—",
            f"{suite['name']} v{suite['version']}",
            f"{facts['dfdbench']} ({(facts['commit'] or facts['code_sha256'])[:8]})",
        ]
        rows.append([(text, False) for text in texts])
    return Table("Where the measured numbers come from", head, rows)


def _trained(entry: Entry) -> list[dict]:
    """The entry's training runs that say what they cost, with the runs that they started from."""
    needed = ("student_updates_total", "wall_seconds_total")
    return [run for run in entry["provenance"]["runs"] if all(run.get(k) for k in needed)]


def boards(folder: Path) -> list[Board]:
    """The tables of every board, those with measured entries first, then by name."""
    result = []
    found = load_boards(folder)
    for name in sorted(found, key=lambda n: (found[n][0]["kind"] != "measured", n)):
        entries = found[name]
        measured = [entry for entry in entries if entry["kind"] == "measured"]
        published = [entry for entry in entries if entry["kind"] == "published"]
        tables = []
        if measured:
            tables += [_measured_table(measured), _provenance_table(measured)]
        if published:
            tables.append(_published_table(published))
        result.append(Board(name, tables, entries))
    return result


def readme(found: Sequence[Board]) -> str:
    """README.md of the folder of leaderboards."""
    parts = [f"# {TITLE}\n", f"{INTRODUCTION}\n", f"{PROOF}\n", "Made by `dfdbench leaderboard "
             "render`; do not edit it, see `dfdbench leaderboard add --help`.\n"]  # fmt: skip
    for board in found:
        parts.append(f"## {board.name}\n")
        for table in board.tables:
            rows = [
                [f"**{_plain(t)}**" if best else _plain(t) for t, best in r] for r in table.rows
            ]
            head = [_plain(text) for text in table.head]
            parts += [f"### {_plain(table.title)}\n", markdown_table(head, rows)]
        links = [f"[{_plain(e['id'])}]({entry_file(board.name, e['id'])})" for e in board.entries]
        parts.append(f"Entries: {', '.join(links)}\n")
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Markdown shows `text` as it is: names are anyone's."""
    for sign in "\\`*":
        text = text.replace(sign, f"\\{sign}")
    return escape(text.replace("](", "]\\("), quote=False)  # no link


def page(found: Sequence[Board]) -> str:
    """index.html, self-contained but for links to the entries."""
    parts = [f"<h1>{TITLE}</h1>"]
    notes = (text.replace("`", "") for text in (INTRODUCTION, PROOF))
    parts += [f'<p class="note">{escape(text)}</p>' for text in notes]
    for board in found:
        parts.append(f"<h2>{escape(board.name)}</h2>")
        for table in board.tables:
            parts.append(f"<h3>{escape(table.title)}</h3>" + html.table(table.head, table.rows))
        links = ", ".join(
            f'<a href="{escape(entry_file(board.name, e["id"]))}">{escape(e["id"])}</a>'
            for e in board.entries
        )
        parts.append(f'<p class="note">Entries: {links}</p>')
    return html.document(TITLE, parts)


def table_csv(found: Sequence[Board]) -> str:
    """board.csv: a row per board, entry and metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["board", "kind", "entry", "name", "method", "metric", "version", "direction", "value",
         "low", "high", "n", "best", "source"]
    )  # fmt: skip
    for board in found:
        measured = [entry for entry in board.entries if entry["kind"] == "measured"]
        for entry in board.entries:
            about = [board.name, entry["kind"], entry["id"], entry["name"], entry["method"]]
            for metric, v in entry["metrics"].items():
                if entry["kind"] == "published":
                    source = f"{entry['source']['paper']}, Table {entry['source']['table']}"
                    numbers = ["", v["direction"], v["as_printed"], "", "", "", "", source]
                else:
                    best = entry["id"] in best_entries(measured, metric, v["version"])
                    numbers = [v["version"], v["direction"], v["mean"], v["low"], v["high"], v["n"],
                               int(best), entry["evidence"]["file"]]  # fmt: skip
                writer.writerow([*about, metric, *numbers])
    return out.getvalue()


def rendered(folder: Path) -> dict[str, str]:
    """File name -> text of everything that is rendered from the entries in `folder`."""
    found = boards(folder)
    return {"README.md": readme(found), "index.html": page(found), "board.csv": table_csv(found)}


def render(folder: Path) -> list[Path]:
    """Write what is rendered; returns the files."""
    texts = rendered(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
