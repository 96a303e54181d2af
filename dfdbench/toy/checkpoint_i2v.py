"""Writes a small Cosmos-Predict2.5 in the folder layout of nvidia/Cosmos-Predict2.5-2B.

Used by toy training (`TOY_I2V`, the shipped image-to-video model) and by tests (`TINY_I2V`, random
weights in seconds). Only sizes differ from the real model: classes, config keys and file names are
those that diffusers' scripts/convert_cosmos_to_diffusers.py writes for Cosmos-2.5-Predict-Base-2B,
and the prompt goes through a chat template into a Qwen2.5-VL, all of whose layers are joined.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # diffusers and transformers classes are untyped

import torch
from diffusers import (
    AutoencoderKLWan,
    Cosmos2_5_PredictBasePipeline,
    CosmosTransformer3DModel,
    UniPCMultistepScheduler,
)
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from dfdbench.models.cosmos_text import SYSTEM
from dfdbench.toy import world
from dfdbench.toy.checkpoint import clip_defaults, write_folder

MAX_TOKENS = 36  # the system message takes 17, the longest caption 16; the real model pads to 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class ToyI2VSpec:
    """Sizes of a small Cosmos-Predict2.5.

    text_dim, text_layers: of the Qwen2.5-VL; the prompt embedding has text_dim · text_layers
    channels. vae_dim is of the random autoencoder that `build_vae` makes; the shipped model takes
    toy-t2v's.
    """

    heads: int
    layers: int
    adaln_lora_dim: int
    head_dim: int = 32
    mlp_ratio: float = 4.0
    text_dim: int = 32
    text_layers: int = 2
    cross_dim: int = 64
    vae_dim: int = 8
    latent_channels: int = 6
    defaults: dict[str, Any] = field(default_factory=lambda: clip_defaults(1.0, 36, MAX_TOKENS))


TOY_I2V = ToyI2VSpec(heads=4, layers=5, adaln_lora_dim=32)
TINY_I2V = ToyI2VSpec(
    heads=2,
    layers=2,
    adaln_lora_dim=8,
    head_dim=16,
    mlp_ratio=2.0,
    defaults=clip_defaults(3.0, 36, MAX_TOKENS),  # guided, so that tests of it see guidance
)


def build_transformer(spec: ToyI2VSpec) -> Any:
    """An untrained CosmosTransformer3DModel over 1×2×2 patches of latents and condition mask."""
    return CosmosTransformer3DModel(
        in_channels=spec.latent_channels + 1,
        out_channels=spec.latent_channels,
        num_attention_heads=spec.heads,
        attention_head_dim=spec.head_dim,
        num_layers=spec.layers,
        mlp_ratio=spec.mlp_ratio,
        text_embed_dim=spec.cross_dim,
        adaln_lora_dim=spec.adaln_lora_dim,
        max_size=(128, 240, 240),
        patch_size=(1, 2, 2),
        rope_scale=(1.0, 3.0, 3.0),
        concat_padding_mask=True,
        extra_pos_embed_type=None,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=spec.text_dim * spec.text_layers,
        encoder_hidden_states_channels=spec.cross_dim,
    )


def build_vae(spec: ToyI2VSpec) -> Any:
    """A random AutoencoderKLWan of Wan2.1's layout, with latents that are not normalised yet.

    toy-t2v's has 2×2 pixel patches, which Cosmos2_5_PredictBasePipeline does not count when it
    derives the spatial compression: give the plain pipeline `vae_scale_factor_spatial = 8` there.
    """
    channels = spec.latent_channels
    return AutoencoderKLWan(
        base_dim=spec.vae_dim,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=torch.linspace(-0.3, 0.3, channels).tolist(),
        latents_std=torch.linspace(0.5, 1.5, channels).tolist(),
    )


def build_tokenizer() -> Any:
    """A word-level tokenizer over the world's captions and the chat; other words become <unk>."""
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    chat = [*world.phrasings(), SYSTEM, "system user assistant"]
    words = {w for t in chat for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(t))}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_max_length=512,
    )


def build_text_encoder(spec: ToyI2VSpec, vocabulary: int) -> Any:
    """A small random Qwen2.5-VL, its vision tower as small as can be. It stays frozen."""
    text = {
        "vocab_size": vocabulary,
        "hidden_size": spec.text_dim,
        "intermediate_size": 2 * spec.text_dim,
        "num_hidden_layers": spec.text_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "max_window_layers": spec.text_layers,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "patch_size": 2,
        "window_size": 8,
        "out_hidden_size": spec.text_dim,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def build_scheduler() -> Any:
    """UniPC with the settings of the conversion script."""
    return UniPCMultistepScheduler(
        use_karras_sigmas=True,
        use_flow_sigmas=True,
        prediction_type="flow_prediction",
        sigma_max=200.0,
        sigma_min=0.01,
    )


class _NoChecker:
    """Stands in for the safety checker, which the pipeline's constructor insists on."""


def write_checkpoint_i2v(
    folder: str | Path,
    spec: ToyI2VSpec = TINY_I2V,
    seed: int = 0,
    vae: Any = None,
    transformer: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint folder; parts that are not given get random weights from `seed`.

    The text encoder always comes from `seed`, so one seed gives one text embedding for good. The
    safety checker is none, as far as the folder goes: diffusers wants one at load time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        text_encoder = build_text_encoder(spec, len(tokenizer))
        vae = vae or build_vae(spec)
        transformer = transformer or build_transformer(spec)
    pipeline: Any = Cosmos2_5_PredictBasePipeline(
        text_encoder=text_encoder.to(dtype),
        tokenizer=tokenizer,
        transformer=transformer.to(dtype),
        vae=vae.to(dtype),
        scheduler=build_scheduler(),
        safety_checker=_NoChecker(),
    )
    pipeline.register_modules(safety_checker=None)
    return write_folder(folder, pipeline, spec.defaults)
