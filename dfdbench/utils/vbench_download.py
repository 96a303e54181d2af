"""Gets weights of VBench by name into VBench's cache. Used by `dfdbench assets get vbench/NAME`.

Nothing half done stays: a file is moved to its place when it is complete.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.request import urlopen

from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path
from dfdbench.utils.progress import Bar
from dfdbench.utils.vbench_weights import PREFIX, WEIGHTS, Weights, find_weights, home_of

NAMES = tuple(dict.fromkeys(PREFIX + weights.name for weights in WEIGHTS))
NATIVE = tuple(dict.fromkeys(PREFIX + weights.name for weights in WEIGHTS if not weights.bridge))
"""All names that `fetch` takes; those that our own dimensions read."""

PIECE = 2**20  # bytes


def fetch(name: str) -> tuple[list[Path], bool]:
    """Download what is not here yet of the files called `name` (one of NAMES).

    Returns:
        Where they lie, and whether any is new.

    Raises:
        UserError: the source cannot be reached, breaks off, or lacks a file; names the place to
            put it by hand.
    """
    wanted = [weights for weights in WEIGHTS if PREFIX + weights.name == name]
    absent = [weights for weights in wanted if find_weights(weights) is None]
    if absent and absent[0].source.endswith(".zip"):
        with tempfile.TemporaryFile() as archive:
            _download(absent[0], archive)
            for weights in absent:
                _extract(archive, weights)
    elif absent:
        with atomic_path(home_of(absent[0])) as temporary, open(temporary, "wb") as file:
            _download(absent[0], file)
    return [find_weights(weights) or home_of(weights) for weights in wanted], bool(absent)


def _download(weights: Weights, file: IO[bytes]) -> None:
    try:
        with urlopen(weights.source, timeout=60) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            with Bar(size // PIECE, f"{weights.name}, MB") as bar:
                while piece := answer.read(PIECE):
                    file.write(piece)
                    bar.step()
    except OSError as error:  # of the network or the disk; URLError is one
        raise UserError(
            f"cannot get {weights.source} ({error}); give the same command again when it can be "
            f"reached, or {_by_hand(weights)}"
        ) from None
    if size and file.tell() != size:
        raise UserError(
            f"{weights.source} broke off after {file.tell()} of {size} bytes; give the same "
            f"command again, or {_by_hand(weights)}"
        )


def _extract(archive: IO[bytes], weights: Weights) -> None:
    """The file of the archive that has the name, in whatever folder it lies there."""
    names = {PurePosixPath(path).name for path in (weights.path, weights.also) if path}
    try:
        with zipfile.ZipFile(archive) as opened:
            member = next(m for m in opened.namelist() if PurePosixPath(m).name in names)
            target = home_of(weights).with_name(PurePosixPath(member).name)
            with (
                opened.open(member) as packed,
                atomic_path(target) as temporary,
                open(temporary, "wb") as file,
            ):
                shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise UserError(
            f"{weights.source} is not the archive that holds {' or '.join(sorted(names))}; "
            f"{_by_hand(weights)}"
        ) from error


def _by_hand(weights: Weights) -> str:
    return f"put it at {home_of(weights)}"
