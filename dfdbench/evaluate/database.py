"""The SQLite file of a score store: opened to read, which touches nothing, or to write.

Used by store.py. A file is opened only if it is whole and has the tables of a store; another
program's database, an empty file or a damaged one is refused as it is.
"""

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pandas as pd

from dfdbench.evaluate.schema import ADD_BLOCKS, SCHEMA, SCHEMA_VERSION, UPGRADE
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path

MAGIC = b"SQLite format 3\0"
LARGEST = 1e100  # of a score's size; beyond it sums are no numbers any more
WAIT = 10  # seconds for another process to finish its commit
AGAIN = "restore it from a copy, or score the clips again into another --out"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
FAULTS = (sqlite3.Error, pd.errors.DatabaseError, UnicodeDecodeError)  # the last: names in tables
TYPES = {"TEXT": ("text",), "INTEGER": ("integer",), "REAL": ("real", "integer"), "BLOB": ("blob",)}


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, also from a read-only place, and an older schema as today's.

    Raises:
        UserError: no such file, no score store, a damaged one, or one of a newer schema.
    """
    _check_file(path)
    with faults_of(path):
        db = _connect(path)
        try:
            db = _as_today(db, path)
            _check(db, path)
        except BaseException:
            db.close()
            raise
    return db


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes; the file and its folder are made if need be.

    Raises:
        UserError: what is there is no score store that can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    elif not path.is_file() or path.stat().st_size:
        open_reader(path).close()
    with faults_of(path):
        db = sqlite3.connect(path, timeout=WAIT)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            _upgrade(db)
        except BaseException:
            db.close()
            raise
    return db


def _create(path: Path) -> None:
    """A store without rows that appears whole: nobody opens one that is half made."""
    db = sqlite3.connect(":memory:")
    _upgrade(db)
    try:
        # Where another process was quicker, its store may have rows by now.
        with suppress(FileExistsError), atomic_path(path, replace=False) as temporary:
            temporary.write_bytes(db.serialize())
    except OSError as error:
        raise as_line(path, error) from error
    finally:
        db.close()


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Turn an error of SQLite in the body into the one line that says what to do about `path`."""
    try:
        yield
    except FAULTS as error:
        raise as_line(path, error) from error


def as_line(path: Path, error: BaseException) -> UserError:
    """The one line for an error of the disk or of SQLite, also for one that pandas wrapped."""
    if isinstance(error, OSError):
        text = str(error.strerror)
    else:
        cause = error if isinstance(error, sqlite3.Error) else error.__cause__ or error
        text = " ".join(str(cause).split())[:160]
    if "locked" in text or "busy" in text:
        return UserError(
            f"{path}: in use by another process; wait until that has ended, then give the same "
            "command again"
        )
    if "full" in text or "disk I/O" in text or getattr(error, "errno", None) in NO_ROOM:
        return UserError(
            f"{path}: {text}; make room there and give the same command again; what was finished "
            "is kept"
        )
    if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
        return UserError(
            f"{path}: cannot be written ({text}); name another place, or change who may write there"
        )
    return UserError(f"{path}: not a score store, or damaged ({text}); {AGAIN}")


def at_rest(path: Path) -> tuple[int, int] | None:
    """What a write into the file would change; None while a writer's files lie beside it."""
    if any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal")):
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _check_file(path: Path) -> None:
    """Refuse what no SQLite file is before SQLite makes one of it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a file; name a score store (.sqlite)")
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        raise UserError(
            f"{path}: no score store that can be read ({error.strerror}); check the path"
        ) from None
    if not head:
        raise UserError(f"{path}: an empty file, not a score store; run `dfdbench eval` first")
    if head != MAGIC:
        raise UserError(f"{path}: not a score store (no SQLite file); name another file")


def _connect(path: Path) -> sqlite3.Connection:
    """Without a write: a store that nobody writes as it lies, one in use by its own rules.

    What a killed writer left beside it (a log that is not folded in) is read in a copy.
    """
    uri = path.resolve().as_uri()
    if at_rest(path):
        return sqlite3.connect(f"{uri}?immutable=1", uri=True)
    beside = {end: path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")}
    there = {end for end, file in beside.items() if file.exists()}
    if there != {"-wal"}:
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=WAIT)
        try:
            db.execute("BEGIN")  # what is read is of one moment
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            db.close()
            if "locked" in str(error):
                raise
        else:
            return db
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, *(beside[end] for end in there - {"-shm"})):
            shutil.copyfile(file, os.path.join(folder, file.name))
        copied = sqlite3.connect(os.path.join(folder, path.name))
        try:
            return _in_memory(copied)
        finally:
            copied.close()


def _in_memory(db: sqlite3.Connection) -> sqlite3.Connection:
    copied = sqlite3.connect(":memory:")
    db.backup(copied)
    return copied


def _as_today(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """`db`, or, of an older schema, what it would be today in memory."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"meta", "samples", "scores"} <= tables:
        raise UserError(f"{path}: not a score store (no scores in it); name another file")
    version = _version(db, path)
    if version > SCHEMA_VERSION:
        raise UserError(f"{path}: written by a newer dfdbench; update dfdbench to read it")
    if version == SCHEMA_VERSION and _columns(db) == _expected():
        return db
    copied = _in_memory(db)
    db.close()
    _upgrade(copied)
    return copied


def _version(db: sqlite3.Connection, path: Path) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    try:
        return SCHEMA_VERSION if row is None else int(row[0])
    except (TypeError, ValueError):
        raise UserError(
            f"{path}: not a score store, or damaged (schema {row[0]!r}); {AGAIN}"
        ) from None


def _upgrade(db: sqlite3.Connection) -> None:
    columns = [row[1] for row in db.execute("PRAGMA table_info(scores)")]
    if columns and "condition" not in columns:
        db.executescript(f"BEGIN; {UPGRADE.format(schema=SCHEMA)} COMMIT;")
    samples = [row[1] for row in db.execute("PRAGMA table_info(samples)")]
    if samples and "blocks" not in samples:
        db.execute(ADD_BLOCKS)
    db.executescript(SCHEMA)
    with db:
        values = ("schema", str(SCHEMA_VERSION))
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)


Columns = dict[str, list[tuple[str, str, int]]]
"""table → name, type and whether NOT NULL of each column."""


def _columns(db: sqlite3.Connection) -> Columns:
    """The columns of those tables of a store that `db` has."""
    return {table: rows for table in _expected() if (rows := _described(db, table))}


def _described(db: sqlite3.Connection, table: str) -> list[tuple[str, str, int]]:
    return [(row[1], row[2], row[3]) for row in db.execute(f"PRAGMA table_info({table})")]


@cache
def _expected() -> Columns:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = {name: _described(db, name) for (name,) in names}
    db.close()
    return columns


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Refuse other tables than a store's, broken pages, and values that no score can have."""
    if _columns(db) != _expected():
        raise UserError(f"{path}: not a score store (other tables); name another file")
    fault = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise UserError(f"{path}: damaged ({' '.join(str(fault).split())[:120]}); {AGAIN}")
    for table, columns in _expected().items():
        for name, kind, required in columns:
            allowed = TYPES[kind] if required else (*TYPES[kind], "null")
            wrong = f"typeof({name}) NOT IN ({', '.join(map(repr, allowed))})"
            if kind == "REAL":
                wrong += f" OR abs({name}) >= {LARGEST!r}"
            if db.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone():
                raise UserError(f"{path}: damaged ({table}.{name} holds what is none); {AGAIN}")
