"""samples.jsonl of a folder of clips, kept by one process or by many that make them together.

Used by clips.py; utils/manifest.py reads the result. A process appends each batch to a journal of
its own, which costs no more with thousands of clips, and at its end (or when it is stopped) joins
all journals into samples.jsonl, atomically. What a killed process left is found in its journal.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from dfdbench.utils.files import disk_faults, sha256_file, write_text
from dfdbench.utils.folders import locked
from dfdbench.utils.reading import Open, read_growing
from dfdbench.utils.shards import Shard

Row = dict[str, Any]
JOURNALS = "samples.shard-*.jsonl"
READERS = 8  # threads that hash files
REMEDY = "delete that line; its clip is made again"


class Clip(Open):
    """What is read of a row; its other columns are kept as they are."""

    path: str
    sha256: str = ""
    settings: dict[str, Any] | None = None
    image_sha256: str | None = None
    prompt: str | None = None
    generated_from: str | None = None


class SampleIndex:
    """The clips of one folder that were made with `settings`.

    shard: whose journal this process writes.
    """

    def __init__(self, folder: Path, shard: Shard, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings, self.shard = folder, settings, shard
        self.path = folder / "samples.jsonl"
        self.journal, self.broken = shard.store(self.path), set[str]()

    def intact(self, wanted: Mapping[str, Row]) -> set[str]:
        """Those of the paths `wanted` whose clip is there and unchanged since it was made.

        Alone, a process looks after the clips of earlier calls too.

        wanted: columns by path; a clip of another text, or that continues another first frame than
            the one there now, counts as none.
        """
        with self._locked():
            rows = self._rows()
        mine = set(rows) if self.shard.count == 1 else set(rows) & set(wanted)
        with ThreadPoolExecutor(READERS) as pool:
            paths = sorted(mine)
            fine = pool.map(lambda path: self._is_whole(rows[path]), paths)
            self.broken = {path for path, whole in zip(paths, fine, strict=True) if not whole}
        self.broken |= {
            p for p in mine & set(wanted) if _made_from(rows[p]) != _made_from(wanted[p])
        }
        return mine - self.broken

    def append(self, rows: Sequence[Row]) -> None:
        """Note clips whose files are whole."""
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        with (
            disk_faults(self.journal),
            self._locked(),
            open(self.journal, "a", encoding="utf-8") as file,
        ):
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.broken -= {row["path"] for row in rows}

    @contextmanager
    def kept(self, order: Sequence[str], changes: Mapping[str, Row]) -> Iterator[None]:
        """Join journals into samples.jsonl when the body ends, in whatever way.

        order: paths in their order; others follow. changes: columns to set anew, by path.
        """
        try:
            yield
        finally:
            with self._locked():
                rows = {p: row for p, row in self._rows().items() if p not in self.broken}
                for path in set(rows) & set(changes):
                    rows[path] |= changes[path]
                first = [path for path in order if path in rows]
                lines = [rows[path] for path in [*first, *sorted(set(rows) - set(first))]]
                text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in lines)
                write_text(self.path, text)
                for journal in self.folder.glob(JOURNALS):
                    journal.unlink()

    def _is_whole(self, row: Row) -> bool:
        path = self.folder / row["path"]
        return path.is_file() and sha256_file(path) == row.get("sha256")

    def _rows(self) -> dict[str, Row]:
        """All rows with these settings by path; journals are newer than what they will join."""
        rows: dict[str, Row] = {}
        for path in (self.path, *sorted(self.folder.glob(JOURNALS))):
            for row in read_growing(path, Clip, REMEDY) if path.is_file() else ():
                if row.get("settings") == self.settings:
                    rows[row["path"]] = row
        return rows

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder, "samples", wait=60)


def _made_from(row: Row) -> tuple[str | None, ...]:
    return tuple(row.get(name) for name in ("image_sha256", "prompt", "generated_from"))
