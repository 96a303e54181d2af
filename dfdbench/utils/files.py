"""Atomic writes and hashes: a reader never sees half a file, a crash never leaves one for good.

A temporary file lies hidden beside its target, `.NAME.1a2b3c4d.part.SUFFIX`, and its writer holds a
lock on it. What a killed writer left is known by that: it can be locked. The next write of the same
target takes it away.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dfdbench.utils.errors import UserError

_PART = re.compile(r"\.(.*)\.[0-9a-f]{8}\.part(\.[^.]*)?(?:\.old)?", re.DOTALL)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # of file systems that have none
_STEM_BYTES = 100  # of a target's name in that of its temporary


@contextmanager
def atomic_path(path: str | Path, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`.

    The temporary file keeps the suffix of `path`, so writers that go by suffix work. On an
    exception it is removed and `path` stays as it was.

    replace: False for a file that must be new: one that appeared meanwhile is left as it is.

    Raises:
        FileExistsError: with `replace` off, another process was quicker.
        OSError: the disk refuses; names `path`, also where a library hid it in an error of its own.
        UserError: `path` is a device or a pipe, which a rename would destroy.
    """
    path = Path(path)
    with disk_faults(path):
        _make_room(path)
        temporary, held = reserve(path)
        try:
            mode = os.fstat(held).st_mode & 0o777  # as the umask leaves it
            yield temporary
            temporary.chmod(mode)  # a library may have put another file there
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                _appear(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(held)


def _appear(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(temporary, path)  # nothing was there a moment ago


def check_output(path: str | Path) -> None:
    """Raise at once, before work of minutes, what `atomic_path` would raise after it."""
    path = Path(path)
    with disk_faults(path):
        _make_room(path)
        temporary, held = reserve(path)
        temporary.unlink()
        os.close(held)


def _make_room(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: a device or pipe, not a file; name a file")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path)


def reserve(path: Path, folder: bool = False) -> tuple[Path, int]:
    """A new temporary file or folder for `path`, and the descriptor that holds its lock."""
    stem = _short(path.stem)
    while True:
        temporary = path.with_name(f".{stem}.{secrets.token_hex(4)}.part{path.suffix}")
        if folder:
            temporary.mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        held = os.open(temporary, flags, 0o666)
        if _lock(held) is not False and os.path.lexists(temporary):
            return temporary, held
        os.close(held)  # a sweeper came between


def sweep(folder: Path, target: Path | None = None) -> None:
    """Delete temporaries in `folder` whose writer is gone: those of `target`, or all."""
    wanted = None if target is None else (_short(target.stem), target.suffix)
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".")]
    except OSError:
        return
    for name in names:
        match = _PART.fullmatch(name)
        if match and wanted in (None, (match[1], match[2] or "")):
            with contextlib.suppress(OSError):
                held = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if _lock(held):
                        _delete(folder / name)
                finally:
                    os.close(held)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock could be had; None where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _short(stem: str) -> str:
    return stem.encode("utf-8", "replace")[:_STEM_BYTES].decode("utf-8", "ignore")


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Let an error of the disk in the body be an OSError that names `path`.

    Also one without a file's name or with a temporary's, and one that a library (safetensors,
    torch, FFmpeg) raised in words of its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = _errno_of(error, path)
        if number is None:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            at = Path(os.fsdecode(error.filename))
            if not (at.parent == path.parent and _PART.fullmatch(at.name)):
                raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno_of(error: Exception, path: Path) -> int | None:
    """The number of the disk's fault behind an error; None where there is none."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return number
    text = str(error)
    if match := re.search(r"Os \{ code: (\d+)|\(os error (\d+)\)", text):  # safetensors
        return int(match[1] or match[2])
    if "PytorchStreamWriter" in text or "inline_container" in text or "No space left" in text:
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free > 2**20:
                return errno.EIO
        return errno.ENOSPC
    return None


def write_text(path: str | Path, text: str) -> None:
    r"""Write UTF-8 `text` to `path` atomically; a byte of a name that is not UTF-8 as \udc80."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def trim_jsonl(path: Path, column: str, last: int) -> None:
    """Drop the lines of a log whose `column` is beyond `last`: a resumed run does them again.

    Raises:
        UserError: a line is not JSON, or lacks the column.
    """
    if not path.is_file():
        return
    kept = []
    # A kill in the middle of a write leaves a broken last line, which is done again too.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            if json.loads(line)[column] <= last:
                kept.append(line + b"\n")
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}:{number}: not a line of this log (no '{column}'); correct that line"
            ) from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(kept))


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


def cache_folder() -> Path:
    """$DFDBENCH_CACHE, else ~/.cache/dfdbench."""
    return Path(os.environ.get("DFDBENCH_CACHE") or "~/.cache/dfdbench").expanduser()


def _memory() -> Path:
    return cache_folder() / "hashes.json"


def _remembered() -> dict[str, str]:
    """The memory; what is not a hash in it, or torn, is as if not there."""
    try:
        known = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {k: v for k, v in known.items() if re.fullmatch("[0-9a-f]{64}", str(v))}


def _key(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
