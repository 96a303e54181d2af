"""The score store: one SQLite file that holds what was scored, on which video, by which version.

Used by scoring (writes, one commit a video) and report (reads). Scores belong to a video's bytes,
not to its path: `samples` says which paths of which suite had those bytes.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dfdbench.errors import UserError
from dfdbench.metrics import GroupValue

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    suite TEXT NOT NULL, path TEXT NOT NULL, prompt_id TEXT NOT NULL, prompt TEXT, seed INTEGER,
    method TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (suite, path));
CREATE TABLE IF NOT EXISTS scores (
    sha256 TEXT NOT NULL, metric TEXT NOT NULL, version INTEGER NOT NULL, weights TEXT NOT NULL,
    policy TEXT NOT NULL, decoder TEXT NOT NULL, dtype TEXT NOT NULL, device TEXT NOT NULL,
    value REAL, data BLOB,
    PRIMARY KEY (sha256, metric, version, weights, policy, decoder, dtype, device));
CREATE TABLE IF NOT EXISTS groups (
    suite TEXT NOT NULL, method TEXT NOT NULL, prompt_id TEXT NOT NULL, metric TEXT NOT NULL,
    version INTEGER NOT NULL, value REAL NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (suite, method, prompt_id, metric, version));
CREATE TABLE IF NOT EXISTS failures (
    suite TEXT NOT NULL, path TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (suite, path));
"""
TABLE_COLUMNS = ["suite", "method", "prompt_id", "seed", "metric", "value", "level", "n"]
ARRAY_COLUMNS = ["suite", "path", "method", "prompt_id", "seed", "array"]


class Key(NamedTuple):
    """What makes a score the same score (DESIGN: score key)."""

    sha256: str
    metric: str
    version: int
    weights: str
    policy: str
    decoder: str
    dtype: str
    device: str


class Row(NamedTuple):
    """A sample as the store knows it; `path` is relative to the store's input."""

    suite: str
    path: str
    prompt_id: str
    prompt: str | None
    seed: int | None
    method: str
    sha256: str


class Store:
    """A score store at `path`; use as a context manager. Created with its folder when absent.

    A value is a float (NULL where the clip has no such value) or a 1-D float64 array. Write-ahead
    logging lets a report read while a run writes; a killed run loses only the unfinished video.

    Raises:
        UserError: the file is no score store, or one of a newer schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
            version = int(self.meta().setdefault("schema", str(SCHEMA_VERSION)))
            self.set_meta({"schema": str(version)})
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a score store ({error}); name another file") from error
        if version > SCHEMA_VERSION:
            raise UserError(f"{path}: written by a newer dfdbench; update dfdbench to read it")

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; its write-ahead log is folded in."""
        self._db.close()

    def meta(self) -> dict[str, str]:
        """Free text by key: schema, versions, suite versions."""
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Set some of `meta`."""
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def known(self, sha256: str) -> set[Key]:
        """Keys of every score of one video."""
        columns = ", ".join(Key._fields)
        rows = self._db.execute(f"SELECT {columns} FROM scores WHERE sha256 = ?", (sha256,))
        return {Key(*row) for row in rows}

    def add_sample(self, row: Row) -> None:
        """Record that `row.path` holds these bytes; forget that it failed earlier."""
        with self._db:
            self._insert_sample(row)

    def _insert_sample(self, row: Row) -> None:
        self._db.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._db.execute("DELETE FROM failures WHERE suite = ? AND path = ?", (row.suite, row.path))

    def add_scores(self, row: Row, scores: Mapping[Key, float | np.ndarray | None]) -> None:
        """Record a sample and its new scores in one commit; existing keys are left as they are."""
        with self._db:
            self._insert_sample(row)
            self._db.executemany(
                "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*key, *_split(value)) for key, value in scores.items()],
            )

    def add_failure(self, suite: str, path: str, reason: str) -> None:
        """Record a video that cannot be scored; it leaves the suite's samples."""
        with self._db:
            self._db.execute("DELETE FROM samples WHERE suite = ? AND path = ?", (suite, path))
            self._db.execute(
                "INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", (suite, path, reason)
            )

    def keep_samples(self, suite: str, paths: set[str]) -> None:
        """Forget the samples and failures of `suite` at other paths; their scores stay."""
        with self._db:
            for table in ("samples", "failures"):
                rows = self._db.execute(f"SELECT path FROM {table} WHERE suite = ?", (suite,))
                gone = [(suite, path) for (path,) in rows.fetchall() if path not in paths]
                self._db.executemany(f"DELETE FROM {table} WHERE suite = ? AND path = ?", gone)

    def failures(self) -> pd.DataFrame:
        """Videos that could not be scored: suite, path, reason."""
        return pd.read_sql_query("SELECT * FROM failures ORDER BY suite, path", self._db)

    def samples(self, suite: str | None = None) -> pd.DataFrame:
        """The scored samples, with the columns of `Row`; `seed` is a nullable integer."""
        frame = pd.read_sql_query("SELECT * FROM samples ORDER BY suite, path", self._db)
        frame["seed"] = frame["seed"].astype("Int64")
        return frame if suite is None else frame[frame["suite"] == suite].reset_index(drop=True)

    def values(self, suite: str, metrics: Iterable[str]) -> pd.DataFrame:
        """One row a sample of `suite`: the columns of `Row` and one column a metric (NaN: none)."""
        frame = self.samples(suite)
        scores = self._newest("value")
        for metric in metrics:
            of_video = scores[scores["metric"] == metric].set_index("sha256")["value"]
            frame[metric] = frame["sha256"].map(of_video).astype(float)
        return frame

    def set_groups(
        self,
        suite: str,
        versions: Mapping[str, int],
        groups: Mapping[tuple[str, str], Mapping[str, GroupValue]],
    ) -> None:
        """Replace the group values of `suite` in one commit.

        groups: (method, prompt_id) -> metric -> value and number of clips.
        """
        rows = [
            (suite, method, prompt_id, metric, versions[metric], value, n)
            for (method, prompt_id), values in groups.items()
            for metric, (value, n) in values.items()
        ]
        with self._db:
            self._db.execute("DELETE FROM groups WHERE suite = ?", (suite,))
            self._db.executemany("INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _newest(self, column: str) -> pd.DataFrame:
        """sha256, metric and `column` of the newest version of every score, one row each."""
        frame = pd.read_sql_query(
            f"SELECT sha256, metric, version, {column} FROM scores WHERE {column} IS NOT NULL "
            "ORDER BY version, decoder, device, dtype, weights, policy",
            self._db,
        )
        return frame.drop_duplicates(["sha256", "metric"], keep="last")

    def table(self, suite: str | None = None) -> pd.DataFrame:
        """All scores in long form: TABLE_COLUMNS; level "video" (n = 1) or "prompt" (seed <NA>).

        Readings (class indices) are in it too; dfdbench.metrics tells them apart. A value that does
        not exist has no row.
        """
        samples, scores = self.samples(), self._newest("value")
        videos = samples.merge(scores, on="sha256").assign(level="video", n=1)
        groups = pd.read_sql_query("SELECT * FROM groups", self._db)
        groups = groups.sort_values("version").drop_duplicates(
            ["suite", "method", "prompt_id", "metric"], keep="last"
        )
        groups = groups.assign(level="prompt", seed=pd.array([pd.NA] * len(groups), dtype="Int64"))
        parts = [frame[TABLE_COLUMNS] for frame in (videos, groups) if len(frame)]
        table = pd.concat(parts) if parts else videos[TABLE_COLUMNS]
        if suite is not None:
            table = table[table["suite"] == suite]
        keys = ["suite", "metric", "method", "prompt_id", "seed"]
        return table.sort_values(keys, kind="stable").reset_index(drop=True)

    def arrays(self, metric: str, suite: str | None = None) -> pd.DataFrame:
        """Array values (such as saturation_histogram): ARRAY_COLUMNS, `array` float64 (bins,)."""
        scores = self._newest("data")
        scores = scores[scores["metric"] == metric]
        frame = self.samples(suite).merge(scores, on="sha256")
        arrays = [np.frombuffer(data, "<f8") for data in frame["data"]]
        frame["array"] = pd.Series(arrays, index=frame.index, dtype=object)
        return frame[ARRAY_COLUMNS]

    def provenance(self) -> dict[str, Any]:
        """What the scores depend on, each value once: decoders, policies, versions, weights …"""
        facts: dict[str, Any] = {
            column: [r[0] for r in self._db.execute(f"SELECT DISTINCT {column} FROM scores")]
            for column in ("decoder", "policy", "weights", "dtype", "device")
        }
        facts["metric_versions"] = dict(
            self._db.execute("SELECT metric, MAX(version) FROM scores GROUP BY metric")
        )
        return json.loads(json.dumps(facts)) | {"meta": self.meta()}


def _split(value: float | np.ndarray | None) -> Sequence[float | bytes | None]:
    if isinstance(value, np.ndarray):
        return None, value.astype("<f8").tobytes()
    # SQLite has no NaN: it stores NULL, which reads back as missing
    return (None if value is None else float(value)), None
