"""Leaderboard entries: JSON files with their hash, and the evidence that their numbers come from.

    entries/<board>/<id>.json    one method on one board, kind "measured" or "published"
    evidence/<board>/<id>.csv    of a measured entry: a row per (prompt, training seed) and metric

Means and intervals are computed from the evidence as written, by `measure`, so that anyone can do
it again. Used by sources.py (makes entries), render.py and verify.py (read them).
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BeforeValidator, ConfigDict, Field

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.statistics import crossed_interval
from dfdbench.report.summary import within_range
from dfdbench.report.table import from_csv, to_csv
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.reading import Open, Outside, read_csv, read_json, validate

SCHEMA = 1
REMEDY = "add the entry again"
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, BeforeValidator(from_csv)]
Direction = Literal["higher", "lower", "nearest_reference"]


class Cell(Outside):
    """Mean of `n` clips of one prompt and training seed (None: nothing was trained)."""

    arm: Name
    prompt: Name
    training_seed: int | None = None
    metric: Name
    value: float
    n: int = Field(ge=1)


class Part(Open):
    """Base of an entry and its parts: a number is a number, fields of others are kept."""

    model_config = ConfigDict(strict=True)


class Score(Part):
    """A measured metric: mean over n prompts and its 95 % interval, None for one prompt."""

    mean: float
    low: float | None
    high: float | None
    n: int
    version: int
    direction: Direction


class Printed(Part):
    """A number of a paper; as_printed keeps its trailing zeros."""

    value: float
    as_printed: str
    direction: Direction


class Suite(Part):
    """The suite that was scored."""

    name: str
    version: str | None


class Videos(Part):
    """The clips behind an entry: their number, SHA-256 of their sorted hashes."""

    count: int = Field(ge=1)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Family(Part):
    """A family of metrics: which of them the entry has."""

    metrics: list[str]


class TrainingRun(Part):
    """What an entry keeps of run.json."""

    training_seed: int | None = None
    student_updates_total: int | None = None
    wall_seconds_total: float | None = None


class Provenance(Part):
    """Where a measured entry comes from. Plain stores have no runs and no training seeds."""

    dfdbench: Text
    commit: str | None
    code_sha256: Text
    created: Text
    decoders: list[str] = Field(min_length=1)
    families: dict[str, Family] = Field(min_length=1)
    videos: Videos
    prompts: int = Field(ge=1)
    training_seeds: list[int]
    runs: list[TrainingRun]


class Evidence(Part):
    """The file with the cells, below the folder of leaderboards, and its hash."""

    file: str
    sha256: str


class Source(Part):
    """The table of a paper that a published entry is a row of."""

    paper: str
    table: int
    setting: str


class Common(Part):
    """What every entry has."""

    schema_number: Literal[1] = Field(alias="schema")
    board: Text
    id: Text
    name: Text
    method: Text
    sha256: Text


class Measured(Common):
    """A method measured by dfdbench."""

    kind: Literal["measured"]
    suite: Suite
    metrics: dict[str, Score] = Field(min_length=1)
    provenance: Provenance
    evidence: Evidence


class Published(Common):
    """A method as a paper prints it."""

    kind: Literal["published"]
    source: Source
    metrics: dict[str, Printed] = Field(min_length=1)


Entry = Measured | Published
KINDS: dict[str, type[Measured] | type[Published]] = {
    "measured": Measured,
    "published": Published,
}


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


def digest(entry: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of an entry as it stands in its file, without sha256.

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
    rows = [dict(cell) | {"value": f"{cell.value:.9g}"} for cell in cells]
    return to_csv(list(Cell.model_fields), [row.values() for row in rows])  # None: an empty field


def read_evidence(path: Path) -> list[Cell]:
    """The cells of an evidence file.

    Raises:
        UserError: no such file, a malformed line, or a cell given twice; names the line.
    """
    cells = dict[tuple[str, int | None, str], Cell]()
    for number, cell in read_csv(path, Cell, REMEDY):
        key = (cell.prompt, cell.training_seed, cell.metric)
        if key in cells:
            raise UserError(f"{path}:{number}: given twice; {REMEDY}")
        cells[key] = cell
    return list(cells.values())


def measure(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Metric -> mean, low and high (95 %, crossed bootstrap) and n prompts, from the evidence."""
    frame = pd.DataFrame(map(dict, cells), columns=list(Cell.model_fields))
    result = {}
    for metric, rows in frame.rename(columns={"prompt": "prompt_id"}).groupby("metric", sort=False):
        name = str(metric)
        if name not in all_metrics():
            raise UserError(
                f"metric '{name}' is not one of this dfdbench; use the one that wrote it"
            )
        interval = within_range(name, crossed_interval(rows))
        numbers = {key: rounded(getattr(interval, key)) for key in ("mean", "low", "high")}
        result[name] = {**numbers, "n": interval.n}
    return result


def raw_entry(path: Path) -> dict[str, Any]:
    """The JSON object in an entry's file.

    Raises:
        UserError: the file is no JSON object.
    """
    return read_json(path, dict[str, Any], REMEDY)


def as_entry(raw: dict[str, Any], where: object) -> Entry:
    """An entry's JSON object as its model.

    Raises:
        UserError: another schema or kind, a field that is missing or of another type.
    """
    kind = raw.get("kind")
    known = type(raw.get("schema")) is int and raw["schema"] == SCHEMA  # true is no number
    if not known or not isinstance(kind, str) or kind not in KINDS:
        raise UserError(
            f"{where}: schema {raw.get('schema')}, kind {kind}: this dfdbench reads schema "
            f"{SCHEMA}, kinds {' and '.join(KINDS)}"
        )
    return validate(KINDS[kind], raw, where, REMEDY)


def read_entry(path: Path) -> Entry:
    """The entry in a file; raises what `raw_entry` and `as_entry` do."""
    return as_entry(raw_entry(path), path)


def entry_paths(folder: Path) -> list[Path]:
    """The entries' files, by board and id."""
    return sorted((folder / "entries").glob("*/*.json"))


def write_entry(folder: Path, entry: dict[str, Any], evidence: str | None = None) -> Path:
    """Write an entry, its hash and its evidence; an entry of the same id and kind is replaced.

    Raises:
        UserError: the id is taken by another kind, or the board's entries are of another suite.
    """
    board, name = entry["board"], entry["id"]
    path = folder / entry_file(board, name)
    for other_path in entry_paths(folder):
        other = raw_entry(other_path)
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
        sha256 = hashlib.sha256(evidence.encode()).hexdigest()
        entry["evidence"] = {"file": file, "sha256": sha256}
    write_json(path, entry | {"sha256": digest(entry)})
    return path
