"""The score store: one SQLite file that holds what was scored, on which video, by which version.

Used by engine.py and merge.py, which write one commit a video, and by the report. Scores belong to
a video's bytes, not to its path: `samples` says which paths of which suite had those bytes.
"""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from dfdbench.evaluate.database import AGAIN, FAULTS, as_line, at_rest, open_reader, open_writer
from dfdbench.evaluate.metrics import GroupValue
from dfdbench.evaluate.schema import MERGED, NEWEST, Key, Row, Shape, condition_of
from dfdbench.utils.errors import UserError, pass_out_of_memory

TABLE_COLUMNS = ["suite", "method", "prompt_id", "seed", "metric", "value", "level", "n"]
ARRAY_COLUMNS = ["suite", "path", "method", "prompt_id", "seed", "array"]
POOLED_COLUMNS = ["suite", "method", "reference", "metric", "value", "n"]


class Store:
    """A score store at `path`; use as a context manager.

    `Store(path)` writes, and makes the file with its folder when absent; `Store.reading(path)`
    never writes, so that it reads what lies in a read-only place too.

    A value is a float (NULL where the clip has no such value) or a float array. Of several scores
    of one video and metric, readers get that of the weights and settings used last. Write-ahead
    logging lets a report read while a run writes; a killed run loses only the unfinished video.

    Raises:
        UserError: the file is no score store, a damaged one, one of a newer schema, or in use; at
            the end of the body too, for what SQLite refuses there.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._seen = at_rest(self.path) if read_only and self.path.is_file() else None
        self._db = (open_reader if read_only else open_writer)(self.path)

    @classmethod
    def reading(cls, path: str | Path) -> "Store":
        """An existing store to read only."""
        return cls(path, read_only=True)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, FAULTS):
            raise as_line(self.path, error) from error
        if error is None and self._seen and self._seen != at_rest(self.path):
            raise UserError(f"{self.path}: written to while it was read; give the command again")

    def close(self) -> None:
        """Close the file; a writer's log is folded in."""
        self._db.close()

    def name_of(self, clip: Path) -> str:
        """The clip's path as the store has it: relative to the store's folder."""
        return Path(os.path.relpath(clip, self.path.parent)).as_posix()

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

    def counted(self, sha256: str) -> set[Key]:
        """The keys of one video whose weights and settings are those used last."""
        columns = "metric, version, weights, policy, dtype, device"
        used = {row[0]: row for row in self._db.execute(f"SELECT {columns} FROM current")}
        setting = {
            key: (key.metric, key.version, key.weights, key.policy, key.dtype, key.device)
            for key in self.known(sha256)
        }
        return {key for key, own in setting.items() if own == used.get(key.metric, own)}

    def add_sample(self, row: Row) -> None:
        """Record that `row.path` holds these bytes; forget that it failed earlier."""
        with self._db:
            self._insert_sample(row)

    def _insert_sample(self, row: Row) -> None:
        self._db.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._db.execute("DELETE FROM failures WHERE suite = ? AND path = ?", (row.suite, row.path))

    def add_scores(
        self, row: Row, scores: Mapping[Key, float | np.ndarray | None], shape: Shape | None = None
    ) -> None:
        """Record a sample and its new scores in one commit; existing keys are left as they are."""
        with self._db:
            self._insert_sample(row)
            if shape:
                video = (row.sha256, *shape)
                self._db.execute("INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?, ?)", video)
            self._db.executemany(
                "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        prompts = frame["prompt"].astype(object)
        frame["prompt"] = prompts.where(prompts.notna(), None)
        return frame if suite is None else frame[frame["suite"] == suite].reset_index(drop=True)

    def values(self, suite: str, metrics: Iterable[str] | Mapping[str, int]) -> pd.DataFrame:
        """One row a sample of `suite`: the columns of `Row` and one column a metric (NaN: none).

        metrics: names; or name -> the version of which scores are wanted.
        """
        frame = self.samples(suite)
        scores = _of_samples(frame, self._newest("value"))
        if isinstance(metrics, Mapping):
            scores = scores[scores["version"] == scores["metric"].map(metrics)]
        for metric in metrics:
            of_clip = scores[scores["metric"] == metric].set_index("path")["value"]
            frame[metric] = frame["path"].map(of_clip).astype(float)
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
        self._replace("groups", suite, rows)

    def set_current(self, keys: Iterable[Key]) -> None:
        """Say which weights and settings of each metric readers should get."""
        rows = [(k.metric, k.version, k.weights, k.policy, k.dtype, k.device) for k in keys]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _newest(self, column: str, metric: str | None = None) -> pd.DataFrame:
        """sha256, metric, version and `column` of the score that counts, one row each."""
        where, values = ("s.metric = ?", (metric,)) if metric else ("1", ())
        query = NEWEST.format(column=column, where=where)
        frame = pd.read_sql_query(query, self._db, params=values)
        return frame.drop_duplicates(["sha256", "metric", "condition"], keep="last")

    def array(self, sha256: str, metric: str, condition: str = "") -> np.ndarray | None:
        """One array of one video, None where there is none."""
        where = "s.sha256 = ? AND s.metric = ? AND s.condition = ?"
        query = NEWEST.format(column="data", where=where)
        rows = self._db.execute(query, (sha256, metric, condition)).fetchall()
        return _array(rows[-1][-1], self.path) if rows else None

    def shapes(self) -> dict[str, Shape]:
        """Size and length of every scored video, by sha256."""
        rows = self._db.execute("SELECT sha256, width, height, frames, fps FROM videos")
        return {sha256: Shape(*shape) for sha256, *shape in rows}

    def set_pooled(
        self,
        suite: str,
        reference: str,
        versions: Mapping[str, int],
        pooled: Mapping[str, Mapping[str, GroupValue]],
    ) -> None:
        """Replace the pooled values of `suite` in one commit: method -> metric -> value, clips."""
        rows = [
            (suite, method, reference, metric, versions[metric], value, n)
            for method, values in pooled.items()
            for metric, (value, n) in values.items()
        ]
        self._replace("pooled", suite, rows)

    def _replace(self, table: str, suite: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._db:
            self._db.execute(f"DELETE FROM {table} WHERE suite = ?", (suite,))
            self._db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def pooled(self, suite: str | None = None) -> pd.DataFrame:
        """Values of all clips of a method against a reference: POOLED_COLUMNS, n clips."""
        columns = ", ".join(POOLED_COLUMNS)
        frame = pd.read_sql_query(f"SELECT {columns} FROM pooled ORDER BY {columns}", self._db)
        return frame if suite is None else frame[frame["suite"] == suite].reset_index(drop=True)

    def table(self, suite: str | None = None) -> pd.DataFrame:
        """All scores in long form: TABLE_COLUMNS; level "video" (n = 1) or "prompt" (seed <NA>).

        Readings (class indices) are in it too; metrics/ tells them apart. A value that does
        not exist has no row.
        """
        samples, scores = self.samples(), self._newest("value")
        videos = _of_samples(samples, scores).assign(level="video", n=1)
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

    def arrays(
        self, metric: str, suite: str | None = None, size: int | None = None
    ) -> pd.DataFrame:
        """Array values of every clip (such as saturation_histogram): ARRAY_COLUMNS.

        size: what each must have, if given.
        """
        frame = _of_samples(self.samples(suite), self._newest("data", metric))
        arrays = [_array(data, self.path) for data in frame["data"]]
        if size is not None and any(array.shape != (size,) for array in arrays):
            raise UserError(f"{self.path}: damaged (a {metric} of another size); {AGAIN}")
        frame["array"] = pd.Series(arrays, index=frame.index, dtype=object)
        return frame[ARRAY_COLUMNS]

    def absorb(self, stores: Sequence[Path]) -> None:
        """Add samples, scores and failures of other stores, all of them or none.

        Raises:
            UserError: a store contradicts another: other scores, another suite version, other
                families or another reference.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for path in stores:
                with Store.reading(path) as other:
                    self._absorb(other)

    def _absorb(self, other: "Store") -> None:
        def move(name: str) -> str:
            absolute = (other.path.parent / name).resolve()
            return Path(os.path.relpath(absolute, self.path.parent.resolve())).as_posix()

        for table, keys in MERGED.items():
            rows = other._db.execute(f"SELECT * FROM {table}").fetchall()
            if table in ("samples", "failures"):
                rows = [(suite, move(path), *rest) for suite, path, *rest in rows]
            for row in rows:
                where = " AND ".join(f"{column} = ?" for column in keys)
                query = f"SELECT * FROM {table} WHERE {where}"
                mine = self._db.execute(query, row[: len(keys)]).fetchone()
                if mine is None:
                    marks = ", ".join("?" * len(row))
                    self._db.execute(f"INSERT INTO {table} VALUES ({marks})", row)
                elif mine != row:
                    item = " ".join(str(value) for value in row[: len(keys)])
                    raise UserError(
                        f"{other.path}: its {table} of {item} contradict another store's; score "
                        "all parts with the same files, settings and version of dfdbench"
                    )
        # A clip that one part could not read and another could counts as read.
        self._db.execute(
            "DELETE FROM failures WHERE (suite, path) IN (SELECT suite, path FROM samples)"
        )

    def provenance(self) -> dict[str, Any]:
        """What the scores depend on: decoders, policies, weights …, and those of each metric."""
        facts: dict[str, Any] = {
            column: [r[0] for r in self._db.execute(f"SELECT DISTINCT {column} FROM scores")]
            for column in ("decoder", "policy", "weights", "dtype", "device")
        }
        for table in ("scores", "groups", "pooled"):
            query = f"SELECT metric, MAX(version) FROM {table} GROUP BY metric"
            facts.setdefault("metric_versions", {}).update(self._db.execute(query))
        columns = ("version", "weights", "policy", "dtype", "device")
        rows = self._db.execute(f"SELECT metric, {', '.join(columns)} FROM current ORDER BY metric")
        facts["metrics"] = {metric: dict(zip(columns, rest, strict=True)) for metric, *rest in rows}
        return facts | {"meta": self.meta()}


def _of_samples(samples: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Samples with their scores; of those that depend on a condition, their own."""
    scored = samples.merge(scores, on="sha256")
    if not scored["condition"].any():
        return scored
    kinds = ((), ("prompt",), ("image",), ("prompt", "image"), ("blocks",))
    own = [
        {condition_of(needs, row["prompt"], row["image"], row["blocks"]) for needs in kinds}
        for row in samples.to_dict("records")
    ]
    of_path = dict(zip(zip(samples["suite"], samples["path"], strict=True), own, strict=True))
    keys = zip(scored["suite"], scored["path"], scored["condition"], strict=True)
    return scored[[condition in of_path[suite, path] for suite, path, condition in keys]]


def _split(value: float | np.ndarray | None) -> Sequence[float | bytes | None]:
    """A value as the columns value and data; arrays are NPY bytes, which know type and shape."""
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(value), allow_pickle=False)
        return None, buffer.getvalue()
    # SQLite has no NaN: it stores NULL, which reads back as missing
    return (None if value is None else float(value)), None


def _array(data: bytes, path: Path) -> np.ndarray:
    """The array of some bytes; a UserError that names the store where they are none."""
    try:
        if not data.startswith(np.lib.format.MAGIC_PREFIX):
            return np.frombuffer(data, "<f8")  # schema 1: flat float64
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy parses its header as Python text: any error may come
        pass_out_of_memory(error)
        raise UserError(
            f"{path}: damaged (an array of {len(data)} bytes is none); {AGAIN}"
        ) from error
