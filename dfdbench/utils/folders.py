"""Folders that appear whole or not at all; used for students, critics and training checkpoints."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success its files are fsynced and it replaces it.

    On an exception it is removed and `folder` stays as it was. A crash between the two renames of
    a replacement leaves no `folder`; writers that must not lose the old one use new names.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    temporary.chmod(0o755)
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete what a killed writer left under `folder`: the hidden leftovers of `atomic_folder`."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, through symbolic links as hub caches use; else by bytes."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
