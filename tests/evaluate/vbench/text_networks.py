"""Random ViCLIP and UMT checkpoints of any size, named as the published ones are."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from dfdbench.evaluate.metrics.vbench import human_action as umt
from dfdbench.evaluate.metrics.vbench.nets import viclip
from dfdbench.evaluate.metrics.vbench.nets.weights import UMT, VICLIP

TINY_NAME = "dfdbench-tiny-viclip-quickgelu"
TINY_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
    },
}  # fmt: skip
TINY_UMT = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def random_state(network: torch.nn.Module, scale: float, seed: int) -> dict[str, torch.Tensor]:
    """Random tensors of the names and shapes of the network, which may be on the meta device."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }


def viclip_state(model: str, scale: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """A ViCLIP whose towers have the sizes of open_clip's `model`."""
    config = open_clip.get_model_config(model)
    config["text_cfg"] = config["text_cfg"] | {"context_length": viclip.TOKENS}
    with torch.device("meta"):
        network = open_clip.CLIP(**config)
    state = {}
    for name, tensor in random_state(network, scale, seed).items():
        tower = "vision" if name.startswith("visual.") else "text"
        state[f"{tower}_encoder.{name.removeprefix('visual.')}"] = tensor
    del state["text_encoder.logit_scale"]
    state["temp"] = torch.tensor(0.01)
    state["vision_encoder.conv1.weight"] = state["vision_encoder.conv1.weight"].unsqueeze(2)
    width = state["vision_encoder.class_embedding"].shape[0]
    generator = torch.Generator().manual_seed(seed + 1)
    places = scale * torch.randn(1, viclip.FRAMES, width, generator=generator)
    state["vision_encoder.temporal_positional_embedding"] = places
    return state


def umt_state(size: dict[str, Any], scale: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """A UMT classifier of this size; its head spreads the probabilities over 0 to 1."""
    with torch.device("meta"):
        network = VisionTransformer(
            num_classes=400, global_pool="avg", class_token=False, pos_embed="none", **size
        )
    state = random_state(network, scale, seed)
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].unsqueeze(2)
    # features are about as large as `scale`: logits then have a deviation of about 2
    state["head.weight"] *= 2 / (scale**2 * size["embed_dim"] ** 0.5)
    for name in [name for name in state if name.endswith("qkv.bias")]:
        query, _, value = state.pop(name).chunk(3)
        state[name.replace("qkv.bias", "q_bias")] = query
        state[name.replace("qkv.bias", "v_bias")] = value
    generator = torch.Generator().manual_seed(seed + 1)
    places = (1, umt.FRAMES * 14 * 14, size["embed_dim"])
    state["pos_embed"] = scale * torch.randn(places, generator=generator)
    return state


def write_viclip(cache: Path, model: str = TINY_NAME, scale: float = 0.4, seed: int = 0) -> Path:
    """Write a random ViCLIP where VBench keeps it."""
    file = cache / VICLIP.path
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": viclip_state(model, scale, seed)}, file)
    return file


def write_umt(
    cache: Path, size: dict[str, Any] = TINY_UMT, scale: float = 0.4, seed: int = 0
) -> Path:
    """Write a random UMT where VBench keeps it."""
    file = cache / UMT.path
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(umt_state(size, scale, seed), file)
    return file


def expect_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the families ask for the tiny networks instead of the large ones."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, TINY_NAME, TINY_CLIP)
    monkeypatch.setattr(viclip, "MODEL", TINY_NAME)
    monkeypatch.setattr(umt, "ARCHITECTURE", TINY_UMT)
