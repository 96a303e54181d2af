"""Tiny random CLIP, DINOv2 and DINOv3 checkpoints in the folders and layouts of the real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from dfdbench.evaluate.metrics import clip_vit_l14, dinov2_l, dinov3_l

CLIP_NAME = "dfdbench-tiny-quickgelu"
CLIP_CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 28,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
ALWAYS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
# As in facebook/dinov2-large and facebook/dinov3-vitl16-pretrain-lvd1689m
DINOV2_PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    **IMAGENET,
    **ALWAYS,
}
DINOV3_PROCESSOR = {
    "image_processor_type": "DINOv3ViTImageProcessorFast",
    "data_format": "channels_first",
    "size": {"height": 224, "width": 224},
    "default_to_square": True,
    "resample": 2,
    **IMAGENET,
    **ALWAYS,
}
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def draw(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that every input shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def write_clip(assets: Path) -> Path:
    """The whole CLIP, text tower included, as open_clip's hub repositories hold it."""
    folder = assets / "clip_vit_l14"
    folder.mkdir(parents=True)
    network = draw(open_clip.CLIP(**CLIP_CONFIG))  # type: ignore[arg-type]
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def write_dinov2(assets: Path) -> Path:
    config = Dinov2Config(**SIZES, image_size=518, patch_size=14)
    return _write(assets / "dinov2_l", draw(Dinov2Model(config)), DINOV2_PROCESSOR)


def write_dinov3(assets: Path) -> Path:
    config = DINOv3ViTConfig(**SIZES, intermediate_size=64, num_register_tokens=4)
    return _write(assets / "dinov3_l", draw(DINOv3ViTModel(config)), DINOV3_PROCESSOR)


def _write(folder: Path, network: Any, processor: dict[str, Any]) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "clip_vit_l14": write_clip,
    "clip_vit_l14_cls": write_clip,
    "dinov2_l": write_dinov2,
    "dinov3_l": write_dinov3,
}


def expect_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the families ask for the tiny networks instead of the large ones."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, CLIP_NAME, CLIP_CONFIG)
    monkeypatch.setattr(clip_vit_l14, "MODEL", CLIP_NAME)
    for module in (dinov2_l, dinov3_l):
        sizes = {"hidden_size": 32, "num_hidden_layers": 2}
        monkeypatch.setattr(module, "ARCHITECTURE", module.ARCHITECTURE | sizes)
