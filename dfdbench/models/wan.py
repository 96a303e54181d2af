"""The Wan2.1 text-to-video family over a diffusers folder: 1.3B, 14B and the toy alike.

Behind `load_family`. Follows WanPipeline of diffusers wherever a pixel could depend on it, so that
a student saved here samples the same in the plain pipeline.
"""

import json
import shutil
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from dfdbench.errors import UserError
from dfdbench.folders import atomic_folder, link_tree
from dfdbench.models import Defaults, read_defaults
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.loading import load_part, loading, read_config

# Wan2.1's published sampling settings; its negative prompt is the official one, in Chinese.
WAN_DEFAULTS = Defaults(
    negative_prompt=(
        "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
        "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
        "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
    ),
    cfg=5.0,
    steps=50,
    shift=5.0,
    frames=81,
    height=480,
    width=832,
    fps=16,
)
TIMESTEPS = 1000.0  # the transformer counts time from 0 to 1000
SHARED_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


class Wan:
    """Family adapter; see `dfdbench.models.Family` for the protocol."""

    name = "wan"

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        _quiet_libraries()
        self.path, self.dtype, self.device = folder, dtype, device
        self.defaults = read_defaults(folder, WAN_DEFAULTS)
        for part in ("transformer", *SHARED_PARTS):
            if not (folder / part).is_dir():
                raise UserError(f"{folder} lacks {part}/; give a complete Wan diffusers folder")

    @cached_property
    def teacher(self) -> nn.Module:
        module = load_part(WanTransformer3DModel, self.path / "transformer", self.dtype)
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
        from transformers import AutoTokenizer, UMT5EncoderModel

        with loading(self.path / "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(
                self.path / "tokenizer", local_files_only=True
            )
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        encoder = load_part(UMT5EncoderModel, self.path / "text_encoder", dtype)
        return tokenizer, nn.Module.to(encoder, self.device).eval().requires_grad_(False)

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
        module = load_part(WanTransformer3DModel, folder, torch.float32)
        return module.to(self.device).train()

    def save_network(self, module: nn.Module, folder: Path) -> None:
        with atomic_folder(folder) as temporary:
            _save(module, temporary)

    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        dtype: torch.dtype = module.get_parameter("patch_embedding.weight").dtype
        (v,) = module(
            hidden_states=x_t.to(dtype),
            # float32 whatever the weights: bfloat16 cannot tell 999 from 1000.
            timestep=(TIMESTEPS * t).float(),
            encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
            return_dict=False,
        )
        return v.float()

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
            module.get_submodule(f"blocks.{block}").register_forward_hook(
                lambda _module, _inputs, output, block=block: kept.__setitem__(block, output)
            )
            for block in blocks
        ]
        try:
            v = self.predict(module, x_t, t, conditioning)
        finally:
            for handle in handles:
                handle.remove()
        return v, [kept[block] for block in blocks]

    def features(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> list[Tensor]:
        return self.predict_with_features(module, x_t, t, conditioning, blocks)[1]

    def feature_width(self, module: nn.Module) -> int:
        return module.get_parameter("patch_embedding.weight").shape[0]

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        return list(module.blocks)  # type: ignore[arg-type]

    def block_count(self, module: nn.Module) -> int:
        return len(module.blocks)  # type: ignore[arg-type]

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        tokenizer, encoder = self.text_encoder
        length = self.defaults.max_sequence_length
        tokens = tokenizer(
            [prompt_clean(prompt) for prompt in prompts],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        if tokenizer.unk_token_id is not None:
            unknown = (tokens.input_ids == tokenizer.unk_token_id).any(dim=1).tolist()
            for prompt in (p for p, bad in zip(prompts, unknown, strict=True) if bad):
                warnings.warn(
                    f"{self.path.name} does not know every word of {prompt!r}", stacklevel=2
                )
        embeds = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        # WanPipeline cuts each prompt to its own tokens and pads with zeros again.
        return Conditioning(embeds * tokens.attention_mask.unsqueeze(-1).to(embeds.dtype))

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

    def save_student(self, module: nn.Module, folder: Path) -> None:
        with atomic_folder(folder) as temporary:
            for part in SHARED_PARTS:
                link_tree(self.path / part, temporary / part)
            for file in self.path.glob("*.json"):
                shutil.copyfile(file, temporary / file.name)
            _save(module, temporary / "transformer")

    def load_student(self, folder: Path) -> nn.Module:
        return self.load_network(Path(folder) / "transformer")


def _quiet_libraries() -> None:
    """Their bars for loading and writing files would run through ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _save(module: nn.Module, folder: Path) -> None:
    """Write a transformer with what diffusers adds to its config at load time left out."""
    module.save_pretrained(folder)  # type: ignore[operator]
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # a local path that would leak into shared students
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
