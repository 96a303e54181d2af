"""Model families: adapters over diffusers folders behind one protocol, found by folder or name.

`load_family` is the only way in; training, generation and the toy use it and never name a family.
A new family is one file with a class that keeps this protocol, plus one line in `FAMILIES`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dfdbench.errors import UserError, unknown_name
from dfdbench.models.conditioning import Conditioning, concatenate

__all__ = [
    "Conditioning",
    "Defaults",
    "Family",
    "concatenate",
    "load_family",
    "read_defaults",
    "resolve_folder",
    "takes_image",
]

PACKAGED = ("toy-t2v", "toy-i2v")
DEFAULTS_FILE = "dfdbench.json"


@dataclass(frozen=True)
class Defaults:
    """Recommended settings of a checkpoint; `dfdbench.json` in its folder overrides its family's.

    Attributes:
        negative_prompt: text of the CFG branch without the prompt.
        cfg: standard guidance scale g; 1 is none.
        steps, shift: the teacher's sampling grid.
        frames, height, width, fps: native clip.
        max_sequence_length: tokens the prompt is padded to.
    """

    negative_prompt: str
    cfg: float
    steps: int
    shift: float
    frames: int
    height: int
    width: int
    fps: int
    max_sequence_length: int = 512


class Family(Protocol):
    """One kind of video model. Latents are normalised (B C T H W) float32, t is (B,) in (0, 1].

    clean_frames: leading latent frames that conditioning.image_latents gives and `predict` keeps:
    its v̂ leads there to these latents, and losses leave them out. 0: everything is generated.
    """

    name: str
    clean_frames: int
    path: Path
    device: torch.device
    defaults: Defaults

    @property
    def teacher(self) -> nn.Module:
        """The frozen network of the checkpoint, in the family's dtype."""
        ...

    def new_module(self) -> nn.Module:
        """A trainable float32 copy of the teacher, for the student or the fake score."""
        ...

    def save_memory(self, module: nn.Module) -> None:
        """Turn on gradient checkpointing: less memory for one more forward pass."""
        ...

    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        """v̂ (B C T H W) float32 of `module` at x_t."""
        ...

    def predict_with_features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        """v̂ and the hidden states (B L D) after each of `blocks`, of one pass."""
        ...

    def features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> list[Tensor]:
        """Hidden states (B L D) after each of `blocks`, without the tokens of clean frames."""
        ...

    def feature_width(self, module: nn.Module) -> int:
        """D of the hidden states."""
        ...

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The transformer blocks in their order: what is cut, gathered and recomputed as one."""
        ...

    def block_count(self, module: nn.Module) -> int:
        """How many blocks `features` can tap."""
        ...

    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        """Conditioning of B prompts."""
        ...

    def encode_video(self, video: Tensor) -> Tensor:
        """Normalised latents (mode of the posterior) of (B 3 T H W) in [−1, 1]."""
        ...

    def decode_latents(self, latents: Tensor) -> Tensor:
        """(B 3 T H W) in [−1, 1], clamped."""
        ...

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the latents of such a clip."""
        ...

    def release(self, *parts: str) -> None:
        """Free the text encoder ("text_encoder") or the autoencoder ("vae") until needed again."""
        ...

    def save_student(self, module: nn.Module, folder: Path) -> None:
        """Write a complete diffusers folder with `module` as its denoiser."""
        ...

    def load_student(self, folder: Path) -> nn.Module:
        """The denoiser of a folder written by `save_student`, float32, ready to run or train."""
        ...

    def load_network(self, folder: Path) -> nn.Module:
        """A lone denoiser from its own folder (a run's `critic/`), float32."""
        ...

    def save_network(self, module: nn.Module, folder: Path) -> None:
        """Write a lone denoiser to its own folder."""
        ...


def read_defaults(folder: Path, family: Defaults) -> Defaults:
    """The family's defaults with what the folder's `dfdbench.json` overrides."""
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return family
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); correct or delete it") from None
    known = {field.name for field in fields(Defaults)}
    return Defaults(**{**vars(family), **{k: v for k, v in given.items() if k in known}})


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

    from dfdbench.assets import find_repository

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


def _wan(folder: Path, dtype: torch.dtype, device: torch.device) -> Family:
    from dfdbench.models.wan import Wan

    return Wan(folder, dtype, device)


def _cosmos(folder: Path, dtype: torch.dtype, device: torch.device) -> Family:
    from dfdbench.models.cosmos import Cosmos

    return Cosmos(folder, dtype, device)


FAMILIES: dict[str, Callable[[Path, torch.dtype, torch.device], Family]] = {
    "WanPipeline": _wan,
    "Cosmos2_5_PredictBasePipeline": _cosmos,
}


def load_family(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Family:
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
