"""Writes a small Wan checkpoint in the folder layout of Wan-AI/Wan2.1-T2V-1.3B-Diffusers.

Used by toy training (`TOY`, the shipped model) and by tests (`TINY`, random weights in seconds).
Only sizes differ from the real model: classes, config keys and file names are the same, so the Wan
adapter and diffusers.WanPipeline cannot tell them apart.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # diffusers and transformers classes are untyped

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from dfdbench.models.loading import forget_origin
from dfdbench.toy import world
from dfdbench.utils.files import write_json
from dfdbench.utils.folders import atomic_folder

MAX_WORDS = 16  # text tokens; Wan2.1 pads to 512, which the toy has no use for


def clip_defaults(cfg: float, steps: int, tokens: int) -> dict[str, Any]:
    """`dfdbench.json` of a toy: its teacher's guidance and sampling grid, and the world's clips."""
    return {
        "negative_prompt": "",
        "cfg": cfg,
        "steps": steps,
        "shift": 5.0,
        "frames": world.FRAMES,
        "height": world.SIZE,
        "width": world.SIZE,
        "fps": world.FPS,
        "max_sequence_length": tokens,
    }


@dataclass(frozen=True)
class ToySpec:
    """Sizes of a small Wan.

    The VAE takes two options of AutoencoderKLWan that Wan2.2's checkpoint uses and Wan2.1's does
    not: 2×2 pixel patches (a quarter of the convolution cost at the same 8× spatial and 4× temporal
    compression) and residual up- and down-sampling (21 dB after 100 steps; without it, 1,000).
    Its teacher is best without guidance, which costs diversity (results/toy/teacher).
    """

    heads: int
    layers: int
    ffn_dim: int
    vae_dim: int
    vae_mult: tuple[int, ...]
    head_dim: int = 32
    text_dim: int = 64
    latent_channels: int = 6
    defaults: dict[str, Any] = field(default_factory=lambda: clip_defaults(1.0, 50, MAX_WORDS))


TOY = ToySpec(heads=4, layers=6, ffn_dim=512, vae_dim=24, vae_mult=(1, 2, 2))
TINY = ToySpec(
    heads=2,
    layers=2,
    ffn_dim=64,
    vae_dim=8,
    vae_mult=(1, 1, 1),
    head_dim=16,
    defaults=clip_defaults(3.0, 50, MAX_WORDS),  # guided, so that tests of it see guidance
)


def build_vae(spec: ToySpec) -> Any:
    """An untrained AutoencoderKLWan: (B 3 17 64 64) in [-1, 1] to latents (B C 5 8 8)."""
    return AutoencoderKLWan(
        base_dim=spec.vae_dim,
        z_dim=spec.latent_channels,
        dim_mult=list(spec.vae_mult),
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * spec.latent_channels,
        latents_std=[1.0] * spec.latent_channels,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def build_transformer(spec: ToySpec) -> Any:
    """An untrained WanTransformer3DModel over 1×2×2 latent patches."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=spec.heads,
        attention_head_dim=spec.head_dim,
        in_channels=spec.latent_channels,
        out_channels=spec.latent_channels,
        text_dim=spec.text_dim,
        freq_dim=256,
        ffn_dim=spec.ffn_dim,
        num_layers=spec.layers,
    )


def build_tokenizer() -> Any:
    """A word-level tokenizer over the world's captions; other words become <unk>."""
    words = sorted({word for text in world.phrasings() for word in text.split()})
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def build_text_encoder(spec: ToySpec, vocabulary: int) -> Any:
    """A small random UMT5 encoder. It stays frozen: random embeddings tell the words apart."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=spec.text_dim,
        d_kv=16,
        d_ff=2 * spec.text_dim,
        num_layers=1,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config).eval()


def write_checkpoint(
    folder: str | Path,
    spec: ToySpec = TOY,
    seed: int = 0,
    vae: Any = None,
    transformer: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint folder; parts that are not given get random weights from `seed`.

    The text encoder always comes from `seed`, so one seed gives one text embedding for good.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        text_encoder = build_text_encoder(spec, len(tokenizer))
        vae = vae or build_vae(spec)
        transformer = transformer or build_transformer(spec)
    pipeline: Any = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.to(dtype),
        vae=vae.to(dtype),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=spec.defaults["shift"]),
        transformer=transformer.to(dtype),
    )
    return write_folder(folder, pipeline, spec.defaults)


def write_folder(folder: str | Path, pipeline: Any, defaults: dict[str, Any]) -> Path:
    """Write a pipeline's folder with its `dfdbench.json`, whole or not at all; returns it."""
    folder = Path(folder)
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        name_tokenizer_portably(temporary)
        forget_origin(temporary / "vae" / "config.json")
        write_json(temporary / "dfdbench.json", defaults)
    return folder


def name_tokenizer_portably(folder: Path) -> None:
    """Name the tokenizer's class as transformers 4 and 5 both know it."""
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    write_json(folder / "model_index.json", index)
    config_file = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(config_file, config)
