"""Model families: adapters over diffusers folders behind one protocol, found by folder or name.

`load_family` is the only way in; training, generation and the toy use it and never name a family.
A new family is one file with a class that keeps this protocol, plus one line in `FAMILIES`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import UserError, unknown_name

PACKAGED = ("toy-t2v", "toy-i2v")


def resolve_folder(name_or_path: str | Path) -> Path:
    """The checkpoint folder of a packaged name, a path or a hub id, `owner/name` or with a branch
    or tag `owner/name@revision`.

    Raises:
        UserError: nothing is there, or the hub cannot be reached.
    """
    name = str(name_or_path)
    if name in PACKAGED:
        folder = Path(__file__).parents[1] / "toy" / "weights" / name
        if not (folder / "model_index.json").is_file():
            raise UserError(
                f"the packaged model '{name}' is missing; rebuild it: dfdbench toy train"
            )
        return folder
    folder = Path(name).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    if folder.exists():
        raise UserError(f"{folder} has no model_index.json; give a diffusers checkpoint folder")
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"model folder {name} does not exist; give a diffusers folder, a hub id such as "
            f"Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or {', '.join(PACKAGED)}"
        )
    from huggingface_hub import snapshot_download

    from dfdbench.utils.assets import find_repository

    if here := find_repository(repository):
        return here
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
        )
    except Exception as error:
        raise UserError(
            f"model {name} is neither a folder nor reachable on the hub "
            f"({type(error).__name__}); check the name, or give the folder of a download by --model"
        ) from None


def takes_image(model: str) -> bool:
    """Whether a model continues a given picture: by its pipeline's class, or by its hub id alone.

    Args:
        model: as in `load_family`; it need not be here.
    """
    try:
        index = Path(model) if model not in PACKAGED else resolve_folder(model)
        kind = json.loads((index / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, UserError):
        return model == "toy-i2v" or model.startswith("nvidia/Cosmos-Predict2.5")
    return bool(kind == "Cosmos2_5_PredictBasePipeline")


def _wan(folder: Path, dtype: torch.dtype, device: torch.device) -> ModelFamily:
    from dfdbench.models.wan import Wan

    return Wan(folder, dtype, device)


def _cosmos(folder: Path, dtype: torch.dtype, device: torch.device) -> ModelFamily:
    from dfdbench.models.cosmos import Cosmos

    return Cosmos(folder, dtype, device)


FAMILIES: dict[str, Callable[[Path, torch.dtype, torch.device], ModelFamily]] = {
    "WanPipeline": _wan,
    "Cosmos2_5_PredictBasePipeline": _cosmos,
}


def load_family(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ModelFamily:
    """The adapter for a checkpoint, chosen by `_class_name` of its model_index.json.

    Args:
        name_or_path: a packaged name ("toy-t2v"), a diffusers folder or a hub id.
        dtype: of the frozen teacher; trainable copies are always float32.

    Raises:
        UserError: the checkpoint is missing, unreachable or of an unknown family.
    """
    from dfdbench.models.loading import read_json

    folder = resolve_folder(name_or_path)
    kind = str(read_json(folder / "model_index.json").get("_class_name"))
    if kind not in FAMILIES:
        raise unknown_name(f"pipeline class in {folder}/model_index.json", kind, FAMILIES)
    return FAMILIES[kind](folder, dtype, torch.device(device))
