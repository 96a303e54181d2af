"""Leaderboard entries: JSON files with their hash, and the evidence that their numbers come from.

    entries/<board>/<id>.json    one method on one board, kind "measured" or "published"
    evidence/<board>/<id>.csv    of a measured entry: a row per (prompt, training seed) and metric

Means and intervals are computed from the evidence as written, by `measure`, so that anyone can do
it again. Used by sources.py (makes entries), render.py and verify.py (read them).
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.statistics import crossed_interval
from dfdbench.report.summary import within_range
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json, write_text

SCHEMA = 1
Entry = dict[str, Any]


class Cell(NamedTuple):
    """Mean of `n` clips of one prompt and training seed (None: nothing was trained)."""

    arm: str
    prompt: str
    training_seed: int | None
    metric: str
    value: float
    n: int


def slug(text: str) -> str:
    """`text` as a file name: small letters, digits, dots, dashes and underscores."""
    name = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
    if not name:
        raise UserError(f"name '{text}' has no letter or digit; choose another --name")
    return name


def check_board(board: str) -> str:
    """`board` if it can be a folder's name.

    Raises:
        UserError: it has other signs than small letters, digits and dashes.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", board):
        raise UserError(f"--board {board}: write it in small letters and dashes, like toy-t2v")
    return board


def entry_file(board: str, name: str) -> str:
    """Path of an entry below the folder of leaderboards."""
    return f"entries/{board}/{name}.json"


def evidence_file(board: str, name: str) -> str:
    """Path of an entry's evidence below the folder of leaderboards."""
    return f"evidence/{board}/{name}.csv"


def digest(entry: Entry) -> str:
    """SHA-256 of the entry's canonical JSON without its field sha256.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    body = {key: value for key, value in entry.items() if key != "sha256"}
    text = json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def rounded(value: float) -> float | None:
    """Nine digits, enough to tell and to compare; None for NaN, which JSON lacks."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def evidence_text(cells: Sequence[Cell]) -> str:
    """The cells as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Cell._fields)
    for cell in cells:
        texts = cell._asdict() | {"value": f"{cell.value:.9g}"}
        writer.writerow(texts.values())  # None becomes an empty field
    return out.getvalue()


def read_evidence(path: Path) -> list[Cell]:
    """The cells of an evidence file.

    Raises:
        UserError: no such file, a malformed line, or a cell given twice; names the line.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no such evidence; add the entry again") from error
    if not lines or lines[0] != list(Cell._fields):
        raise UserError(f"{path}: expected the columns {', '.join(Cell._fields)}")
    cells, seen = list[Cell](), set[tuple[str, str, str]]()
    for number, line in enumerate(lines[1:], start=2):
        try:
            arm, prompt, seed, metric, value, n = line
            cell = Cell(arm, prompt, int(seed) if seed else None, metric, float(value), int(n))
        except ValueError:
            raise UserError(
                f"{path}:{number}: not a cell of evidence; add the entry again"
            ) from None
        key = (prompt, seed, metric)
        if key in seen or not math.isfinite(cell.value) or cell.n < 1:
            raise UserError(f"{path}:{number}: given twice, no finite value or no clip")
        seen.add(key)
        cells.append(cell)
    return cells


def measure(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, low and high (95 %, crossed bootstrap) and n prompts, from the evidence."""
    frame = pd.DataFrame(cells, columns=list(Cell._fields)).rename(columns={"prompt": "prompt_id"})
    result = {}
    for metric, rows in frame.groupby("metric", sort=False):
        name = str(metric)
        if name not in all_metrics():
            raise UserError(
                f"metric '{name}' is not one of this dfdbench; use the one that wrote it"
            )
        interval = within_range(name, crossed_interval(rows))
        numbers = {key: rounded(getattr(interval, key)) for key in ("mean", "low", "high")}
        result[name] = {**numbers, "n": interval.n}
    return result


def read_entry(path: Path) -> Entry:
    """The entry in a file.

    Raises:
        UserError: the file is no JSON object.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON ({error}); add the entry again") from error
    if not isinstance(entry, dict):
        raise UserError(f"{path}: not an entry; add it again")
    return entry


def entry_paths(folder: Path) -> list[Path]:
    """The entries' files, by board and id."""
    return sorted((folder / "entries").glob("*/*.json"))


def write_entry(folder: Path, entry: Entry, evidence: str | None = None) -> Path:
    """Write an entry, its hash and its evidence; an entry of the same id and kind is replaced.

    Raises:
        UserError: the id is taken by another kind, or the board's entries are of another suite.
    """
    board, name = entry["board"], entry["id"]
    path = folder / entry_file(board, name)
    for other_path in entry_paths(folder):
        other = read_entry(other_path)
        if other_path == path and other.get("kind") != entry["kind"]:
            raise UserError(f"{path}: taken by a {other.get('kind')} entry; choose another --name")
        same = entry["kind"] == other.get("kind") == "measured" and other.get("board") == board
        if same and other_path != path and other.get("suite") != entry["suite"]:
            raise UserError(
                f"--board {board} holds suite {other.get('suite')}, these scores are of "
                f"{entry['suite']}; choose another board"
            )
    if evidence is not None:
        file = evidence_file(board, name)
        write_text(folder / file, evidence)
        entry["evidence"] = {
            "file": file,
            "sha256": hashlib.sha256(evidence.encode()).hexdigest(),
        }
    write_json(path, entry | {"sha256": digest(entry)})
    return path
