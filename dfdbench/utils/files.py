"""Atomic writes and hashes: a reader never sees half a file, a crash never leaves one."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`.

    The temporary file keeps the suffix of `path`, so writers that go by suffix work. On an
    exception it is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:64]}.", suffix=path.suffix)
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def trim_jsonl(path: Path, column: str, last: int) -> None:
    """Drop the lines of a log whose `column` is beyond `last`: a resumed run does them again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # A kill in the middle of a write leaves a broken last line, which is done again too.
        if line.endswith("\n") and json.loads(line)[column] <= last:
            kept.append(line)
    write_text(path, "".join(kept))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_cached(paths: Sequence[Path]) -> str:
    """SHA-256 over the hashes of several large files, remembered by path, size and time of change.

    One file: its own hash. The memory is ~/.cache/dfdbench/hashes.json; where it cannot be written
    the files are hashed again.
    """
    known = _remembered()
    keys = [_key(path) for path in paths]
    new = {key: sha256_file(p) for key, p in zip(keys, paths, strict=True) if key not in known}
    if new:
        with contextlib.suppress(OSError):
            write_json(_memory(), known | new)
    hashes = [(known | new)[key] for key in keys]
    if len(hashes) == 1:
        return str(hashes[0])
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def is_hashed(path: Path) -> bool:
    """Whether `sha256_cached` remembers the file as it is now, so that asking costs nothing."""
    return _key(path) in _remembered()


def _memory() -> Path:
    folder = os.environ.get("DFDBENCH_CACHE") or "~/.cache/dfdbench"
    return Path(folder).expanduser() / "hashes.json"


def _remembered() -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def _key(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
