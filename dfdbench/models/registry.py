"""Model families by the pipeline class of their checkpoints: adapters over diffusers folders.

`load_family` is the only way in; training, generation and scoring use it and never name a family.
A new family is one file with a subclass of `ModelFamily`, plus one line of `register`.
"""

from importlib import import_module
from pathlib import Path

import torch
from pydantic import Field

from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import MEND, PartLoader, load_part
from dfdbench.utils.errors import UserError, pass_out_of_memory, unknown_name
from dfdbench.utils.reading import Open, read_json

PACKAGED = ("toy-t2v", "toy-i2v")
MODEL_FILES = (
    "*.json",
    "*.safetensors",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.spm",
    "*.codes",
    "*.tokenizer",
)
"""What a checkpoint's parts are read from: configs, weights, vocabularies, chat templates."""
FAMILIES: dict[str, str] = {}  # pipeline class -> "module:class", imported when it is wanted


class ModelIndex(Open):
    """model_index.json of a checkpoint, as far as it is read here."""

    pipeline: str = Field(alias="_class_name")


def register(pipeline: str, place: str) -> None:
    """Make `place` ("package.module:Class", a `ModelFamily`) the family of a pipeline class."""
    FAMILIES[pipeline] = place


register("WanPipeline", "dfdbench.models.wan:Wan")
register("Cosmos2_5_PredictBasePipeline", "dfdbench.models.cosmos:Cosmos")


def _family_at(place: str) -> type[ModelFamily]:
    module, _, name = place.partition(":")
    family: type[ModelFamily] = getattr(import_module(module), name)
    return family


def _family_in(folder: Path) -> type[ModelFamily]:
    """The family of a checkpoint folder; UserError where it is broken or of an unknown one."""
    path = folder / "model_index.json"
    pipeline = read_json(path, ModelIndex, MEND).pipeline
    if pipeline not in FAMILIES:
        raise unknown_name(f"pipeline class in {path}", pipeline, FAMILIES)
    return _family_at(FAMILIES[pipeline])


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
            f"model folder {name} does not exist; give a diffusers folder, a hub id OWNER/NAME "
            f"or {', '.join(PACKAGED)}"
        )
    from huggingface_hub import snapshot_download

    from dfdbench.utils.assets import find_repository

    if here := find_repository(repository):
        return here
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=[*MODEL_FILES])
        )
    except Exception as error:
        pass_out_of_memory(error)
        raise UserError(
            f"model {name} is neither a folder nor reachable on the hub "
            f"({type(error).__name__}); check the name, or give the folder of a download by --model"
        ) from None


def takes_first_frame(model: str) -> bool:
    """Whether a model continues a given first frame: asks its family, and no family says no.

    Args:
        model: as in `load_family`; one that is not here is told by its hub id alone.
    """
    folder = resolve_folder(model) if model in PACKAGED else Path(model)
    if (folder / "model_index.json").is_file():
        return _family_in(folder).conditioning_frames > 0
    families = (_family_at(place) for place in FAMILIES.values())
    return any(f.conditioning_frames > 0 and model.startswith(f.hub_ids) for f in families)


def load_family(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    part: PartLoader = load_part,
) -> ModelFamily:
    """The adapter for a checkpoint, chosen by `_class_name` of its model_index.json.

    Args:
        name_or_path: a packaged name ("toy-t2v"), a diffusers folder or a hub id.
        dtype: of the frozen teacher; trainable copies are always float32.
        part: loads denoiser and autoencoder; their stored weights by default.

    Raises:
        UserError: the checkpoint is missing, unreachable or of an unknown family.
    """
    folder = resolve_folder(name_or_path)
    return _family_in(folder)(folder, dtype, torch.device(device), part)
