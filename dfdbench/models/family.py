"""What a model family is: its recommended settings and what every room asks of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError

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


class ModelFamily(Protocol):
    """One kind of video model. Latents are normalised (B C T H W) float32, t is (B,) in (0, 1].

    conditioning_frames: first latent frames that conditioning.image_latents gives; `predict` keeps:
    its v̂ leads there to these latents, and losses leave them out. 0: everything is generated.
    """

    name: str
    conditioning_frames: int
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
