"""VBench's weights for the families `vbench_*`: their place, their digest, their tensors.

They are entries of the one registry (assets.toml, names "vbench/…"); nothing is downloaded here.
"""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfdbench.utils.assets import ASSETS, Asset, find_file, home_of, readable
from dfdbench.utils.errors import MissingWeights, UserError, pass_out_of_memory
from dfdbench.utils.files import sha256_cached

_CODE = ASSETS["vbench/cotracker2-code"]
(_DEFINITION,) = _CODE.files
COTRACKER = Path(_DEFINITION).parent.name  # as torch hub names its copy
COTRACKER_SOURCE = _CODE.url
(COTRACKER_CHECKPOINT,) = ASSETS["vbench/cotracker2"].files


def cotracker_folder() -> Path:
    """Where torch hub keeps CoTracker's repository, which defines the network."""
    return home_of(_DEFINITION, clone=True).parent


def vbench_file(*paths: str, what: str) -> Path:
    """The first of the paths that is in one of `cache_folders`, as `find_file` finds it.

    Args:
        paths: inside VBench's cache, the preferred first, which is a file of the registry.
        what: what it is, in a few words, for the error.

    Raises:
        MissingWeights: it is nowhere; the message names the file and how to get it.
    """
    if path := find_file(*paths):
        return path
    asset, file = _entry(Path(paths[0]))
    raise MissingWeights(
        f"no {Path(file).name} ({what}; {readable(asset.size)}, {asset.licence}); get it with "
        f"`{asset.remedy}`, or from {asset.url} and put it at {home_of(file)}"
    )


def vbench_digest(*files: Path) -> str:
    """sha256 over the files, for the key of a score; large files are hashed once."""
    return sha256_cached(files)


def vbench_unusable(file: Path, what: str) -> UserError:
    """The error for a file that is here but is not `what`."""
    return UserError(f"{file}: not {what}; get it again from {_entry(file)[0].url}")


def _entry(file: Path) -> tuple[Asset, str]:
    """The asset and path of a file of any suffix."""
    stem = file.name.split(".")[0]
    return next(
        (asset, path)
        for asset in ASSETS.values()
        for path in asset.files
        if asset.url and Path(path).name.split(".")[0] == stem
    )


def read_state(file: Path, what: str) -> Mapping[str, Any]:
    """The tensors of a checkpoint by name, or whatever dict of tensors it holds, on the CPU.

    safetensors, torch's own files as far as `weights_only` reads them, and TorchScript archives
    such as OpenAI's CLIP, of which only the tensors are taken; no code in them is run.

    Raises:
        UserError: it is none of these, or damaged.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if _is_torchscript(file):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is deprecated; OpenAI has no other file
                return torch.jit.load(file, map_location="cpu").state_dict()
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise vbench_unusable(file, what) from error
    if not isinstance(found, Mapping):
        raise vbench_unusable(file, what)
    return found


def _is_torchscript(file: Path) -> bool:
    """Whether torch.save would not have written the zip file: it has TorchScript's constants."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
