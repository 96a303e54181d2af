"""Folders that appear whole or not at all, and folders that one process writes at a time.

Used for students, fake scores and training checkpoints; `locked` for run folders, latent sets and
boards.
"""

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dfdbench.utils.errors import UserError
from dfdbench.utils.files import disk_faults, reserve, sweep

LOCK = ".lock"
LONGEST_COMMAND = 120  # characters of a holder's command line that are shown


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success its files are fsynced and it replaces it.

    On an exception it is removed and `folder` stays as it was. A crash between the two renames of
    a replacement leaves no `folder`; writers that must not lose the old one use new names.
    """
    with disk_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, folder)
        temporary, held = reserve(folder, folder=True)
        try:
            mode = os.fstat(held).st_mode & 0o666  # as the umask leaves it
            yield temporary
            for path in temporary.rglob("*"):
                if path.is_file():
                    if path.stat().st_nlink == 1:  # a linked one is another folder's too
                        path.chmod(mode)
                    _sync(path)
            if folder.exists():
                old = temporary.with_name(temporary.name + ".old")
                os.replace(folder, old)
                os.replace(temporary, folder)
                shutil.rmtree(old)
            else:
                os.replace(temporary, folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(held)


@contextmanager
def locked(folder: Path, part: str = "", wait: float = 0) -> Iterator[None]:
    """Hold `folder`, made if need be, as its only writer; the lock ends with the process.

    Args:
        part: of the folder that is held alone, where several processes fill it together.
        wait: seconds for who holds it to end, where that is soon.

    Raises:
        UserError: another process holds it; the line says which.
    """
    file = folder / f"{LOCK}{part and f'-{part}'}"
    with disk_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=wait)
            while not _is_file_of(lock, file):  # the last holder took it away as we opened it
                lock.release()
                lock.acquire(timeout=wait)
        except Timeout:
            raise UserError(
                f"{folder} is in use by {_holder(file)}; wait until that has ended, or stop it, "
                "then give the same command again"
            ) from None
    try:
        with contextlib.suppress(OSError):
            words = " ".join(["dfdbench", *sys.argv[1:]])[:LONGEST_COMMAND]
            file.write_text(f"process {os.getpid()} on {platform.node()} ({words})", "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()


def _is_file_of(lock: FileLock, file: Path) -> bool:
    """Whether the file that is locked is the one that others find under its name."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(lock._context.lock_file_fd or 0))


def _holder(file: Path) -> str:
    """Who wrote its name into a lock's file."""
    try:
        return file.read_text(encoding="utf-8").strip() or "another process"
    except (OSError, ValueError):
        return "another process"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, through symbolic links as hub caches use; else by bytes."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
