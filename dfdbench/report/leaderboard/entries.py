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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.cells import Cell, Number, TrainingSeed, frame_of, read_rows
from dfdbench.report.statistics import NUMBERS, complete, interval_of, table_of
from dfdbench.report.summary import clips_behind, within_range
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.files import atomic_path, sweep, write_json
from dfdbench.utils.folders import locked
from dfdbench.utils.reading import Open, read_json, validate
from dfdbench.utils.table import to_csv

SCHEMA = 2
REMEDY = "add the entry again"
EVIDENCE = ("arm", "prompt", "training_seed", "metric", "value", "n")
"""Columns of an evidence file."""
LOCK_SECONDS = 60  # for another `add` or `render` of the folder to end
LONGEST_ID = 200
MARKUP = re.compile(r"<[a-z/!?]", re.IGNORECASE)
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.(json|csv)")  # of the writers before .part
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Direction = Literal["higher", "lower", "nearest_reference"]


class Part(Open):
    """Base of an entry and its parts: a number is a number, fields of others are kept."""

    model_config = ConfigDict(strict=True)


class Score(Part):
    """A measured metric, as statistics.Interval; no limits of fewer than three training seeds."""

    mean: Number
    low: Number | None
    high: Number | None
    median: Number
    seeds: Count
    prompts: Count
    clips: Count
    version: Count
    direction: Direction


class Printed(Part):
    """A number of a paper; as_printed keeps its trailing zeros."""

    value: Number
    as_printed: Text
    direction: Direction


class Suite(Part):
    """The suite that was scored."""

    name: str
    version: str | None


class Videos(Part):
    """The clips behind an entry: their number, SHA-256 of their sorted hashes."""

    count: int = Field(ge=1, lt=2**53)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Family(Part):
    """A family of metrics: which of them the entry has."""

    metrics: list[str]


class TrainingRun(Part):
    """What an entry keeps of run.json."""

    training_seed: TrainingSeed | None = None
    student_updates_total: Count | None = None
    wall_seconds_total: Number | None = None


class Provenance(Part):
    """Where a measured entry comes from. Plain stores have no runs and no training seeds."""

    dfdbench: Text
    commit: str | None
    code_sha256: Text
    created: Text
    decoders: list[str] = Field(min_length=1)
    families: dict[str, Family] = Field(min_length=1)
    videos: Videos
    prompts: int = Field(ge=1, lt=2**53)
    training_seeds: list[TrainingSeed]
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

    schema_number: Literal[2] = Field(alias="schema")
    board: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=200)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=200)
    name: Text
    method: Text
    sha256: Text


class Measured(Common):
    """A method measured by dfdbench. reference: `eval --reference` named it; else left out."""

    kind: Literal["measured"]
    reference: bool = False
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


def text_faults(value: Any) -> Iterator[str]:
    """What no text of an entry may hold: signs that no one sees, HTML, a path of one machine."""
    for text in texts_in(value):
        shown = clean(text[:60])
        if clean(text) != text:
            yield f"'{shown}' holds a control character or a line end; write it without"
        if MARKUP.search(text):
            yield f"'{shown}' holds HTML; write it without"
        if re.match(r"/|~|[A-Za-z]:\\", text):
            yield f"'{shown}' is a path of one machine; name files relatively"


def texts_in(value: Any) -> Iterator[str]:
    """Every string in a JSON value, names of fields too."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part


def slug(text: str) -> str:
    """`text` as a file name: small letters, digits, dots, dashes and underscores."""
    name = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
    if not name:
        raise UserError(f"name '{text}' has no letter or digit; choose another --name")
    if len(name) > LONGEST_ID:
        raise UserError(f"name '{text[:60]}…' is longer than {LONGEST_ID} signs; shorten --name")
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
    return to_csv(EVIDENCE, [[row[name] for name in EVIDENCE] for row in rows])  # None: empty


def read_evidence(path: Path) -> list[Cell]:
    """The cells of an evidence file; raises what `cells.read_rows` does."""
    return read_rows(path, REMEDY)


def measure(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Metric -> NUMBERS of an entry, from its evidence; metrics whose training seeds have no prompt
    in common are left out."""
    result = {}
    for metric, rows in frame_of(cells).groupby("metric", sort=False):
        name = str(metric)
        if name not in all_metrics():
            raise UserError(
                f"metric '{name}' is not one of this dfdbench; use the one that wrote it"
            )
        table = table_of(rows)
        interval = interval_of(table, clips_behind(rows, complete(table)))
        if interval:
            interval = within_range(name, interval)
            numbers = {key: rounded(getattr(interval, key)) for key in NUMBERS[:4]}
            counts = {key: getattr(interval, key) for key in NUMBERS[4:]}
            result[name] = {**numbers, **counts}
    return result


def raw_entry(path: Path) -> dict[str, Any]:
    """The JSON object in an entry's file.

    Raises:
        UserError: the file is no JSON object, or holds what is no JSON number.
    """
    raw = read_json(path, dict[str, Any], REMEDY)
    try:
        json.dumps(raw, allow_nan=False)
    except ValueError:
        raise UserError(f"{path}: holds NaN or Infinity, which JSON has not; {REMEDY}") from None
    return raw


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
    """The entries' files, by board and id; what a killed writer left hidden is none."""
    found = (folder / "entries").glob("*/*.json")
    return sorted(p for p in found if not p.name.startswith(".") and p.parent.name[0] != ".")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the leaderboards as their only writer; sweeps what killed writers left."""
    with locked(folder, wait=LOCK_SECONDS):
        for part in (folder, *folder.glob("entries/*"), *folder.glob("evidence/*")):
            sweep(part)
            if part != folder:
                for path in part.glob(".*"):
                    if TEMPORARY.fullmatch(path.name):
                        path.unlink(missing_ok=True)
        yield


def write_entry(folder: Path, entry: dict[str, Any], evidence: str | None = None) -> Path:
    """Write an entry, its hash and its evidence; an entry of the same id and kind is replaced.

    Raises:
        UserError: the id is taken by another kind or another recipe, the board's entries are of
            another suite, or a text holds what none may.
    """
    board, name = entry["board"], entry["id"]
    path = folder / entry_file(board, name)
    for fault in text_faults(entry):
        raise UserError(f"entry {name}: {fault} (--name, or eval --arm)")
    for other_path in entry_paths(folder):
        other = raw_entry(other_path)
        if other_path == path and other.get("kind") != entry["kind"]:
            raise UserError(f"{path}: taken by a {other.get('kind')} entry; choose another --name")
        if other_path == path and _other_recipe(entry, other):
            raise UserError(f"{path}: holds runs of another recipe; choose another --name")
        same = entry["kind"] == other.get("kind") == "measured" and other.get("board") == board
        if same and other_path != path and other.get("suite") != entry["suite"]:
            raise UserError(
                f"--board {board} holds suite {other.get('suite')}, these scores are of "
                f"{entry['suite']}; choose another board"
            )
    if evidence is None:
        write_json(path, entry | {"sha256": digest(entry)})
        return path
    file = evidence_file(board, name)
    sha256 = hashlib.sha256(evidence.encode()).hexdigest()
    entry["evidence"] = {"file": file, "sha256": sha256}
    with atomic_path(folder / file) as temporary:  # both appear together, should a kill come
        temporary.write_text(evidence, encoding="utf-8", newline="")
        write_json(path, entry | {"sha256": digest(entry)})
    return path


def _other_recipe(a: dict[str, Any], b: dict[str, Any]) -> bool:
    mine, theirs = _recipes(a), _recipes(b)
    return bool(mine and theirs) and mine.isdisjoint(theirs)


def _recipes(entry: dict[str, Any]) -> set[str]:
    """Digests of the recipes of an entry's runs, without seeds; of an older entry none."""
    with suppress(AttributeError, TypeError):
        runs = entry.get("provenance", {}).get("runs", [])
        return {str(run[RECIPE]) for run in runs if RECIPE in run}
    return set()


RECIPE = "recipe_without_seed"
"""Field of an entry's run: what all runs of the entry have in common."""
