"""What the families share: a diffusers folder with a transformer and Wan2.1's autoencoder.

Base of wan.py and cosmos.py, which add their conditions and the call of the transformer. Loading is
strict, a saved student is a whole folder of the same layout, and latents are normalised by the
statistics in the autoencoder's config.
"""

import json
import shutil
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import Defaults, read_defaults
from dfdbench.models.loading import load_part, loading, read_config
from dfdbench.utils.errors import UserError
from dfdbench.utils.folders import atomic_folder, link_tree

SHARED_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


class FolderFamily:
    """All of the protocol `models.family.ModelFamily` that does not depend on the transformer.

    A family adds encode_prompt and predict, and states: network, its transformer's class; encoder,
    the name of the text encoder's in transformers; block_list and first_layer, the names of the
    blocks and of the first weight inside the transformer.
    """

    name: str
    conditioning_frames: int = 0
    own_defaults: ClassVar[Defaults]
    network: ClassVar[Any]
    encoder: ClassVar[str]
    block_list: ClassVar[str]
    first_layer: ClassVar[str]

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        _quiet_libraries()
        self.path, self.dtype, self.device = folder, dtype, device
        self.defaults = read_defaults(folder, self.own_defaults)
        for part in ("transformer", *SHARED_PARTS):
            if not (folder / part).is_dir():
                raise UserError(
                    f"{folder} lacks {part}/; give a complete {self.name.capitalize()} diffusers "
                    "folder"
                )

    @cached_property
    def teacher(self) -> nn.Module:
        module = load_part(self.network, self.path / "transformer", self.dtype)
        return module.to(self.device).eval().requires_grad_(False)

    @cached_property
    def vae(self) -> Any:
        # The reference decodes in float32: bfloat16 shifts colours by more than a grey level.
        vae = load_part(AutoencoderKLWan, self.path / "vae", torch.float32)
        return vae.to(self.device).eval().requires_grad_(False)

    @cached_property
    def _vae_config(self) -> dict[str, Any]:
        return read_config(self.path / "vae", AutoencoderKLWan)

    @cached_property
    def text_encoder(self) -> tuple[Any, Any]:
        """Tokenizer and encoder."""
        import transformers

        with loading(self.path / "tokenizer"):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.path / "tokenizer", local_files_only=True
            )
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        encoder = load_part(getattr(transformers, self.encoder), self.path / "text_encoder", dtype)
        return tokenizer, nn.Module.to(encoder, self.device).eval().requires_grad_(False)

    def _warn_of_unknown_words(self, prompts: list[str], tokens: Tensor) -> None:
        """Name each prompt whose tokens (B L) hold the tokenizer's <unk>; some have none."""
        unknown = self.text_encoder[0].unk_token_id
        if unknown is None:
            return
        bad = (tokens == unknown).any(dim=1).tolist()
        for prompt in (p for p, unclear in zip(prompts, bad, strict=True) if unclear):
            warnings.warn(f"{self.path.name} does not know every word of {prompt!r}", stacklevel=3)

    def release(self, *parts: str) -> None:
        for part in parts:
            self.__dict__.pop(part, None)

    def new_module(self) -> nn.Module:
        return self.load_network(self.path / "transformer")

    def save_memory(self, module: nn.Module) -> None:
        module.enable_gradient_checkpointing()  # type: ignore[operator]

    def load_network(self, folder: Path) -> nn.Module:
        if not (folder / "config.json").is_file():
            raise UserError(f"no network in {folder}; give a finished run or a diffusers folder")
        module = load_part(self.network, folder, torch.float32)
        return module.to(self.device).train()

    def save_network(self, module: nn.Module, folder: Path) -> None:
        with atomic_folder(folder) as temporary:
            _save(module, temporary)

    def save_student(self, module: nn.Module, folder: Path) -> None:
        with atomic_folder(folder) as temporary:
            for part in SHARED_PARTS:
                link_tree(self.path / part, temporary / part)
            for file in self.path.glob("*.json"):
                shutil.copyfile(file, temporary / file.name)
            _save(module, temporary / "transformer")

    def load_student(self, folder: Path) -> nn.Module:
        return self.load_network(Path(folder) / "transformer")

    def weight_dtype(self, module: nn.Module) -> torch.dtype:
        """Of the module's weights."""
        return module.get_parameter(self.first_layer).dtype

    def feature_width(self, module: nn.Module) -> int:
        return module.get_parameter(self.first_layer).shape[0]

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        return list(module.get_submodule(self.block_list))  # type: ignore[call-overload, no-any-return]

    def block_count(self, module: nn.Module) -> int:
        return len(self.blocks(module))

    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        raise NotImplementedError

    def predict_with_features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> tuple[Tensor, list[Tensor]]:
        kept: dict[int, Tensor] = {}
        handles = [
            module.get_submodule(f"{self.block_list}.{block}").register_forward_hook(
                lambda _module, _inputs, output, block=block: kept.__setitem__(block, output)
            )
            for block in blocks
        ]
        try:
            v = self.predict(module, x_t, t, conditioning)
        finally:
            for handle in handles:
                handle.remove()
        return v, [self._free_tokens(kept[block], x_t.shape[2]) for block in blocks]

    def _free_tokens(self, hidden: Tensor, frames: int) -> Tensor:
        """Hidden states (B L D) without those of the clean frames, which come first."""
        if not self.conditioning_frames:
            return hidden
        return hidden.unflatten(1, (frames, -1))[:, self.conditioning_frames :].flatten(1, 2)

    def features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> list[Tensor]:
        return self.predict_with_features(module, x_t, t, conditioning, blocks)[1]

    def _latent_scale(self) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        mean, std = self._vae_config["latents_mean"], self._vae_config["latents_std"]
        return (
            torch.tensor(mean, device=self.device).view(shape),
            torch.tensor(std, device=self.device).view(shape),
        )

    @torch.no_grad()
    def encode_video(self, video: Tensor) -> Tensor:
        mean, std = self._latent_scale()
        latents = self.vae.encode(video.to(self.device, torch.float32)).latent_dist.mode()
        return (latents - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        mean, std = self._latent_scale()
        video = self.vae.decode(latents.to(self.device, torch.float32) * std + mean).sample
        return video.clamp(-1, 1)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        config = self._vae_config
        spatial = config.get("scale_factor_spatial") or 8
        temporal = config.get("scale_factor_temporal") or 4
        if (frames - 1) % temporal or height % (2 * spatial) or width % (2 * spatial):
            raise UserError(
                f"a clip of {frames} frames at {height}x{width} does not fit {self.path.name}; "
                f"frames must be 1 + a multiple of {temporal}, sides multiples of {2 * spatial}"
            )
        return config["z_dim"], 1 + (frames - 1) // temporal, height // spatial, width // spatial


def _quiet_libraries() -> None:
    """Their bars for loading and writing files would run through ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _save(module: nn.Module, folder: Path) -> None:
    module.save_pretrained(folder)  # type: ignore[operator]
    forget_origin(folder / "config.json")


def forget_origin(path: Path) -> None:
    """Leave out of a config what diffusers adds at load time: a local path, which would leak."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
