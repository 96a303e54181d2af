"""Writing a site, and proof of one: its bytes are those that its entries render to.

A site's folder holds nothing else. What a former rendering left there (files.json names it) goes;
a folder with other files is refused. Used by cli/leaderboard.py.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dfdbench.report.site.render import LISTING, Files, bytes_of, listing, site_files
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path
from dfdbench.utils.folders import locked
from dfdbench.utils.reading import read_json

WAIT = 60  # seconds for another rendering of the folder to end


def write_site(folder: Path, site: Path) -> list[Path]:
    """Write the site of the leaderboards in `folder`; returns its files.

    Raises:
        UserError: there is no entry, or `site` holds files that no rendering wrote.
    """
    if not (folder / "entries").is_dir():
        raise UserError(f"{folder}: no entries; make one with `dfdbench leaderboard submit`")
    if site.resolve() == folder.resolve() or site.resolve() in folder.resolve().parents:
        raise UserError(f"--site {site} holds the leaderboards; choose another folder")
    former = _former(site)
    files = site_files(folder)
    with locked(site, wait=WAIT):
        for name in sorted(files):
            _write(site / name, files[name])
        for name in former - files.keys():
            (site / name).unlink(missing_ok=True)
            _without_empty(site, (site / name).parent)
        _write(site / LISTING, listing(files))
    return [site / name for name in [*sorted(files), LISTING]]


def site_faults(folder: Path, site: Path) -> list[str]:
    """How a site differs from a fresh rendering, a line a file.

    Raises:
        UserError: it is no site, or there is no entry.
    """
    if not (site / LISTING).is_file():
        raise UserError(
            f"--site {site}: no site; make it with `dfdbench leaderboard render --site`"
        )
    files = site_files(folder)
    files[LISTING] = listing(files)
    return list(_differences(site, files))


def _differences(site: Path, files: Files) -> Iterator[str]:
    again = "run dfdbench leaderboard render --site"
    for name in sorted(files):
        path = site / name
        if not path.is_file() or path.is_symlink():
            yield f"{name}: missing; {again}"
        elif path.read_bytes() != bytes_of(files[name]):
            yield f"{name}: not what the entries render to; {again}"
    for name in sorted(_present(site) - files.keys()):
        yield f"{name}: of no entry; remove it"


def _present(site: Path) -> set[str]:
    """The files in a folder, but for locks and temporary files."""
    found = (p for p in site.rglob("*") if p.is_file() or p.is_symlink())
    return {p.relative_to(site).as_posix() for p in found if not p.name.startswith(".")}


def _former(site: Path) -> set[str]:
    """The files that the last rendering of a folder wrote and that are still as it wrote them.

    Raises:
        UserError: the folder holds others.
    """
    if site.exists() and not site.is_dir():
        raise UserError(f"--site {site} is no folder; choose another")
    present = _present(site) if site.is_dir() else set()
    if not present:
        return set()
    remedy = "choose an empty folder"
    if LISTING not in present:
        raise UserError(f"--site {site} holds files that are no site; {remedy}")
    sums = read_json(site / LISTING, dict[str, str], remedy)
    known = {name for name in sums if ".." not in PurePosixPath(name).parts}
    if other := sorted(present - known - {LISTING}):
        raise UserError(f"--site {site} holds {other[0]}, which no rendering wrote; {remedy}")
    return {
        name
        for name in present & known
        if hashlib.sha256((site / name).read_bytes()).hexdigest() == sums[name]
    }


def _write(path: Path, content: bytes | Path) -> None:
    with atomic_path(path) as temporary:
        if isinstance(content, Path):
            shutil.copyfile(content, temporary)
        else:
            temporary.write_bytes(content)


def _without_empty(site: Path, folder: Path) -> None:
    """Remove a folder that has become empty, and those above it within the site."""
    while folder != site and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
