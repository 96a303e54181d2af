"""The folder of a curation: how a stage is resumed, cut in parts, joined and told apart.

Used by every stage. A stage NAME of a folder leaves

    NAME.jsonl      its rows, in an order that its inputs alone decide
    NAME.json       stage, settings, hashes of what it read, versions, hashes of what it wrote;
                    that it is there says that the stage is finished
    parts/NAME/     while it runs: one journal for each `--shard`, a line an item

A line is written when its item is done, so a killed call goes on where it was. Whoever finishes the
last item joins the journals. No time, order of finishing or number of parts goes into the result:
whichever way it was reached, its bytes are the same.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dfdbench import __version__
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, sha256_cached, sha256_file, write_json
from dfdbench.utils.folders import locked
from dfdbench.utils.progress import Bar
from dfdbench.utils.reading import Open, Outside, numbered_lines, parse_json, read_json, read_jsonl
from dfdbench.utils.shards import WHOLE, Shard

T = TypeVar("T", bound=Open)
JOIN_SECONDS = 600.0  # that a part waits for another that is joining
Row = dict[str, Any]


class Done(NamedTuple):
    """An item that is done: its key, its row, and for some stages a float32 vector (D,)."""

    key: str
    row: Row
    vector: np.ndarray | None = None


class Record(Outside):
    """NAME.json; see the module."""

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    versions: dict[str, str]
    rows: int
    outputs: dict[str, str]


class Outcome(NamedTuple):
    """What a call left: the file of the stage, its rows, and whether all parts are done."""

    file: Path
    rows: int
    finished: bool


@dataclass(frozen=True)
class Stage:
    """One stage of a curation.

    Attributes:
        folder: of the curation. name: of the stage.
        settings: all that decides the result beside the inputs, as JSON has it.
        inputs: files that it reads; their hashes are recorded under their names.
        packages: whose versions are recorded.
        reads: other things that it reads, name to hash.
    """

    folder: Path
    name: str
    settings: Row
    inputs: Sequence[Path] = ()
    packages: Sequence[str] = ()
    reads: Mapping[str, str] | None = None

    @property
    def file(self) -> Path:
        """The rows."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def record(self) -> Path:
        """What says that the rows are whole."""
        return self.folder / f"{self.name}.json"

    @property
    def parts(self) -> Path:
        """The folder of the journals."""
        return self.folder / "parts" / self.name

    @cached_property
    def plan(self) -> Row:
        """What another call must have in common to go on with this one."""
        hashes = {path.name: sha256_cached([path]) for path in self.inputs}
        versions = {"dfdbench": __version__, "numpy": np.__version__}
        for package in self.packages:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:  # on the path without being installed
                versions[package] = "unknown"
        settings = json.loads(json.dumps(self.settings))
        inputs = {**hashes, **(self.reads or {})}
        return {
            "stage": self.name, "settings": settings, "inputs": inputs, "versions": versions,
        }  # fmt: skip

    def finished(self) -> Outcome | None:
        """What is there of an earlier call; None if it is not finished.

        Raises:
            UserError: it was made with other settings, versions or inputs.
        """
        if not self.record.is_file():
            return None
        remedy = f"delete {self.record.name} to do the stage again"
        record = read_json(self.record, Record, remedy)
        self.check(record.model_dump(include=set(self.plan)), self.record, remedy)
        if any(not (self.folder / name).is_file() for name in record.outputs):
            return None
        return Outcome(self.file, record.rows, True)

    def check(self, plan: Row, where: Path, remedy: str) -> None:
        """Refuse what was made by another plan; says what differs."""
        for part in ("stage", "settings", "inputs", "versions"):
            was, now = plan.get(part), self.plan[part]
            if was != now:
                name, before, wanted = part, was, now
                if isinstance(was, dict) and isinstance(now, dict):
                    keys = sorted(was.keys() | now.keys())
                    name = next(key for key in keys if was.get(key) != now.get(key))
                    before, wanted = was.get(name), now.get(name)
                raise UserError(
                    f"{where}: made with another {name} ({_brief(before)}, now {_brief(wanted)}); "
                    f"repeat the command as it was, or {remedy}"
                )

    def write(self, rows: Iterable[Row], others: Sequence[Path] = ()) -> Outcome:
        """Write the rows and then the record; `others` are arrays that lie in the folder."""
        count = 0
        with atomic_path(self.file) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(line_of(row))
                count += 1
        written = [self.file, *others]
        outputs = {path.relative_to(self.folder).as_posix(): sha256_file(path) for path in written}
        write_json(self.record, {**self.plan, "rows": count, "outputs": outputs})
        return Outcome(self.file, count, True)


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


def line_of(row: Row) -> str:
    """A row as a line of JSONL."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def fill(
    stage: Stage,
    keys: Sequence[str],
    mine: Callable[[Shard], Sequence[str]],
    work: Callable[[list[str]], Iterator[Done]],
    join: Callable[["Gathered"], Outcome],
    shard: Shard | None = None,
) -> Outcome:
    """Do the part of a stage that is not done yet, and join all parts if it was the last.

    Args:
        keys: of all items, in the order of the result. mine: those of a part.
        work: does items, given by their keys, in any order.
        join: writes the result; it is given all items.

    Raises:
        UserError: the folder holds this stage made by another plan, or the part is being worked on.
    """
    part = shard or WHOLE
    ours, name = mine(part), f"{part.index}-of-{part.count}"
    with locked(stage.folder, f"{stage.name}-{name}"):
        if finished := stage.finished():
            return finished
        gathered = Gathered(stage)
        todo = [key for key in ours if key not in gathered.lines]
        with (
            _Journal(stage, name) as journal,
            Bar(len(ours), stage.name, done=len(ours) - len(todo)) as bar,
        ):
            for done in work(todo) if todo else ():
                journal.add(done)
                bar.step()
        with locked(stage.folder, f"{stage.name}-join", wait=JOIN_SECONDS):
            if finished := stage.finished():  # another part came first
                return finished
            gathered = Gathered(stage)
            there = sum(key in gathered.lines for key in keys)
            if there < len(keys):
                return Outcome(stage.file, there, False)
            outcome = join(gathered)
            shutil.rmtree(stage.parts, ignore_errors=True)
            return outcome


class Gathered:
    """The items that the journals of a stage hold, of all parts.

    Raises:
        UserError: a journal was begun by another plan, or is damaged.
    """

    def __init__(self, stage: Stage) -> None:
        self.lines: dict[str, Row] = {}
        self._vectors: dict[str, tuple[Path, int, int]] = {}  # file, bytes before it, bytes
        for path in sorted(stage.parts.glob("*.jsonl")):
            plan, rows = _read(path)
            if plan is not None:
                stage.check(plan, path, f"delete {stage.parts}")
            for row in rows:
                self.lines[row["key"]] = row["row"]
                if row["vector"] is not None:
                    self._vectors[row["key"]] = (path.with_suffix(".f32"), *row["vector"])

    def has_vector(self, key: str) -> bool:
        """Whether an item has a vector."""
        return key in self._vectors

    def vectors(self, keys: Sequence[str]) -> Iterator[np.ndarray]:
        """float32 (D,) of each of these items, which have one."""
        opened: dict[Path, int] = {}
        try:
            for key in keys:
                path, start, size = self._vectors[key]
                if path not in opened:
                    opened[path] = os.open(path, os.O_RDONLY)
                yield np.frombuffer(os.pread(opened[path], size, start), np.float32)
        finally:
            for descriptor in opened.values():
                os.close(descriptor)


def _read(path: Path) -> tuple[Row | None, list[Row]]:
    """The plan and the whole lines of a journal; what a kill cut off is not there."""
    data = path.read_bytes()
    text = data[: data.rfind(b"\n") + 1].decode("utf-8")
    remedy = "delete it; its items are done again"
    rows = [parse_json(line, f"{path}:{n}", remedy) for n, line in numbered_lines(text) if line]
    return (rows[0] if rows else None), rows[1:]


class _Journal:
    """The journal of one part, open to add to it."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.path = stage, stage.parts / f"{name}.jsonl"
        self.stage.parts.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "_Journal":
        plan, rows = _read(self.path) if self.path.is_file() else (None, [])
        self.end = max((sum(row["vector"]) for row in rows if row["vector"]), default=0)
        self.file = open(self.path, "ab")
        self.file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
        if plan is None:
            self._line(self.stage.plan)
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def _line(self, row: Row) -> None:
        self.file.write(line_of(row).encode())
        self.file.flush()

    def add(self, done: Done) -> None:
        """Note an item as done; its vector is on the disk before its line."""
        place = None
        if done.vector is not None:
            data = np.ascontiguousarray(done.vector, np.float32).tobytes()
            place = [self.end, len(data)]
            descriptor = os.open(self.path.with_suffix(".f32"), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, data, self.end)
            finally:
                os.close(descriptor)
            self.end += len(data)
        self._line({"key": done.key, "row": done.row, "vector": place})


def read_rows(folder: Path, stage: str, kind: type[T]) -> list[T]:
    """The rows of a finished stage, checked one by one.

    Raises:
        UserError: the stage is not finished, or a row is not a `kind`; names file and line.
    """
    path = folder / f"{stage}.jsonl"
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise UserError(
            f"{path}: not there, or not finished; run dfdbench data curate {stage} first"
        )
    remedy = f"correct that line, or run dfdbench data curate {stage} again"
    return [row for _, row in read_jsonl(path, kind, remedy)]
