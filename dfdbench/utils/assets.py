"""Every external file that metrics and models need: where it lies, how large, which licence.

Used by the metric families (`locate`, `digest`), by fetch (which gets what is absent) and by the
commands doctor and assets. Nothing is downloaded here. An asset is looked for, in this order, in
$DFDBENCH_ASSETS/<name>/ (default ~/.cache/dfdbench/assets/<name>/), where files may be put by hand,
then where its package or the hub's cache keeps it; VBench's weights in `cache_folders`. A file
whose sha256 is known and differs, or that is cut short, is refused: it would score clips with
something else under the same name.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from dfdbench.utils.errors import MissingWeights, UserError, unknown_name
from dfdbench.utils.files import is_hashed, sha256_cached, sha256_file

SMALL = 64 * 2**20  # bytes that are hashed in a blink, so even the quick look does it

Look = Literal["quick", "cached", "full"]


class Package(NamedTuple):
    """One distribution of the package index: its wheel or sdist has this sha256."""

    project: str
    version: str
    sha256: str
    module: str

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class Asset:
    """One external thing: files of a package, a repository of the hub, a URL, or dfdbench itself.

    files: paths inside the package, repository or folder -> sha256, "" where it is not known here.
    size: bytes of all files, rounded unless all have a sha256. unlocks: metric families; use: what
    else works with it. packages: the first holds the files, the others code that reads them.
    repository: hub id; patterns: what is downloaded of it, if more than the files. shipped: folder
    inside dfdbench. url: of the one file, of a zip archive that holds the files, or with `clone` of
    a git repository; the files lie in VBench's cache. also: file -> another path of the same.
    dimensions: of VBench that need it. note: what is not verified, or must be done first.
    """

    name: str
    files: Mapping[str, str]
    size: int
    licence: str
    unlocks: tuple[str, ...] = ()
    use: str = ""
    packages: tuple[Package, ...] = ()
    repository: str = ""
    patterns: tuple[str, ...] = ()
    shipped: str = ""
    url: str = ""
    clone: bool = False
    also: Mapping[str, str] = field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    note: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        if self.shipped:
            return "shipped with dfdbench"
        if self.repository:
            return f"hub {self.repository}"
        if self.url:
            return self.url
        return "package " + ", ".join(package.requirement for package in self.packages)

    @property
    def remedy(self) -> str:
        """How to get it, in words."""
        if self.clone:
            return f"git clone {self.url} {home_of(next(iter(self.files)), clone=True).parent}"
        return "dfdbench toy train" if self.shipped else f"dfdbench assets get {self.name}"


@dataclass(frozen=True)
class Status:
    """What was found of an asset.

    folder: where its files lie; None if absent. wrong: files that are not what they should be.
    detail: why it is not present, else empty.
    """

    asset: Asset
    state: Literal["present", "absent", "wrong"]
    folder: Path | None = None
    wrong: tuple[str, ...] = ()
    detail: str = ""


def _read() -> dict[str, Asset]:
    """The assets of assets.toml."""
    listing = (Path(__file__).parent / "assets.toml").read_text(encoding="utf-8")
    assets = {}
    for name, entry in tomllib.loads(listing).items():
        entry["packages"] = tuple(Package(**package) for package in entry.get("packages", ()))
        entry |= {key: tuple(entry.get(key, ())) for key in ("unlocks", "patterns", "dimensions")}
        assets[name] = Asset(name=name, **entry)
    return assets


ASSETS = _read()


def assets_folder() -> Path:
    """Where anyone may put the files of an asset by hand, in a folder of its name."""
    default = Path("~/.cache/dfdbench/assets").expanduser()
    return Path(os.environ.get("DFDBENCH_ASSETS") or default)


def get_asset(name: str) -> Asset:
    """The asset called `name`; an unknown name is refused with near ones."""
    if name not in ASSETS:
        raise unknown_name("asset", name, ASSETS)
    return ASSETS[name]


def inspect(asset: Asset, look: Look = "quick") -> Status:
    """Whether the asset is here and whole; no network.

    look: "quick" hashes no large file that was not hashed before (safetensors show by themselves
    that they are complete), "cached" hashes every file not hashed before, "full" hashes all anew.
    """
    if asset.url:
        return _inspect_cached(asset)
    detail = ""
    for folder in _folders(asset):
        missing = [file for file in asset.files if not (folder / file).is_file()]
        if not missing:
            break
        if len(missing) < len(asset.files):
            some = f"{missing[0]} and {len(missing) - 1} more" if missing[1:] else missing[0]
            detail = f"{folder} lacks {some}"
    else:
        return Status(asset, "absent", detail=detail)
    for package in asset.packages[1:]:
        if not find_spec(package.module):
            return Status(asset, "absent", detail=f"package {package.project} is not installed")
    faults = {file: _fault(folder / file, sha, look) for file, sha in asset.files.items()}
    wrong = tuple(file for file, fault in faults.items() if fault)
    if wrong:
        return Status(asset, "wrong", folder, wrong, f"{folder / wrong[0]}: {faults[wrong[0]]}")
    return Status(asset, "present", folder)


def _inspect_cached(asset: Asset) -> Status:
    """The same for files of VBench's cache, which may lie in several folders; none has a sha256."""
    places = {file: find_cached(asset, file) for file in asset.files}
    absent = [Path(file).name for file, path in places.items() if path is None]
    if absent:
        some = f"no {' and no '.join(absent)}" if len(absent) < len(places) else ""
        return Status(asset, "absent", detail=some)
    first = next(path for path in places.values() if path)
    return Status(asset, "present", first.parent)


def cache_folders() -> list[Path]:
    """Folders that may hold VBench's weights, the preferred first; they need not exist."""
    torch_home = os.environ.get("TORCH_HOME")
    if not torch_home:
        torch_home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch")
    return [
        Path(os.environ.get("VBENCH_CACHE_DIR") or "~/.cache/vbench").expanduser(),
        Path(torch_home).expanduser() / "hub" / "checkpoints",
        Path("~/.cache/clip").expanduser(),
        Path("models").absolute(),
    ]


def find_file(*paths: str) -> Path | None:
    """The first of some paths, in VBench's cache or, without its folder there, in the others."""
    for folder in cache_folders():
        for path in paths:
            for name in (path, path.split("/", 1)[-1]):
                if (folder / name).is_file():
                    return folder / name
    return None


def find_cached(asset: Asset, file: str) -> Path | None:
    """Where a file of an asset with a URL lies; None if nowhere."""
    if asset.clone:
        return path if (path := home_of(file, clone=True)).is_file() else None
    return find_file(file, *filter(None, [asset.also.get(file)]))


def home_of(file: str, clone: bool = False) -> Path:
    """Where a file belongs: in VBench's cache, or, of a repository that torch hub clones, there."""
    vbench, checkpoints = cache_folders()[:2]
    return (checkpoints.parent if clone else vbench) / file


def readable(size: int) -> str:
    """Bytes in kB, MB or GB; 0 is not known."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB" if size else "size not known"


def locate(name: str) -> Path:
    """The folder in which every file of the asset lies, under its path in `Asset.files`.

    Raises:
        MissingWeights: it is not here; the message names the first file and how to get it.
        UserError: a file is not what it should be; the message names it and the remedy.
    """
    asset = get_asset(name)
    found = inspect(asset, "cached")
    if found.state == "wrong":
        raise UserError(f"{found.detail}; {mend(found)}")
    if found.folder is None:
        reason = found.detail or f"no {Path(next(iter(asset.files))).name}"
        raise MissingWeights(
            f"{reason} ({asset.size / 1e6:.1f} MB, {asset.licence}); get it with `{asset.remedy}`"
        )
    return found.folder


def find_repository(repository: str) -> Path | None:
    """The folder of a complete asset that is this repository of the hub; None if there is none.

    Raises:
        UserError: a file of it is not what it should be.
    """
    for asset in ASSETS.values():
        if asset.repository == repository:
            found = inspect(asset)
            if found.state == "wrong":
                raise UserError(f"{found.detail}; {mend(found)}")
            return found.folder
    return None


def mend(found: Status) -> str:
    """What to do about a wrong file: what was put there by hand is never overwritten."""
    if found.folder == assets_folder() / found.asset.name:
        return f"delete it, then `{found.asset.remedy}`"
    return f"replace it with `{found.asset.remedy}`"


def digest(*names: str) -> str:
    """sha256 over the files of some assets, for the key of a score.

    Raises:
        MissingWeights: one of them is not here.
        UserError: a file of one is not what it should be.
    """
    files = [locate(name) / file for name in names for file in get_asset(name).files]
    return sha256_cached(files)


def _folders(asset: Asset) -> list[Path]:
    """Folders that may hold the asset, the preferred first; nothing is imported."""
    if asset.shipped:
        return [Path(__file__).parents[1] / asset.shipped]
    folders = [assets_folder() / asset.name]
    if asset.packages:
        spec = find_spec(asset.packages[0].module)
        folders += [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    if asset.repository and _in_hub_cache(asset.repository):
        from huggingface_hub import try_to_load_from_cache

        for file in asset.files:
            cached = try_to_load_from_cache(asset.repository, file)
            if isinstance(cached, str):
                folders.append(Path(cached).parents[file.count("/")])
                break
    return folders


def _in_hub_cache(repository: str) -> bool:
    """Whether the hub's cache knows the repository; cheaper than the client, which takes 0.2 s."""
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}"
    return (Path(constants.HF_HUB_CACHE) / folder).is_dir()


def _fault(path: Path, sha256: str, look: Look) -> str:
    """What is wrong with a file, in words; empty if nothing is."""
    expected = sha256 or _name_of_blob(path)
    known = look != "quick" or path.stat().st_size <= SMALL or is_hashed(path)
    if expected and known:
        found = sha256_file(path) if look == "full" else sha256_cached([path])
        if found != expected:
            return f"not the file it should be (sha256 {found[:12]}…, not {expected[:12]}…)"
    elif path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):
                pass  # opening compares the file's length with what its header lists
        except SafetensorError as error:
            return f"not a whole safetensors file ({error})"
    elif path.stat().st_size == 0:
        return "not a whole file (it is empty)"
    return ""


def _name_of_blob(path: Path) -> str:
    """sha256 of a large file in the hub's cache, which links to blobs named by it; else empty."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else ""


def unusable(file: Path, name: str, what: str) -> UserError:
    """The error for a file of the asset `name` that is here but is not `what`."""
    return UserError(f"{file}: not {what}; get it again with `dfdbench assets get {name}`")
