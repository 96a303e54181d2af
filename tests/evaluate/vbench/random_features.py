"""Random checkpoints of the published architectures, laid out as VBench's cache has them.

For parity with the official code, which reads the same files. Values are drawn so that frames
differ in their features: with the usual small initial weights all cosines are next to 1.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

DINO = "vit_base_patch16_224.dino"
GAIN = 3.0  # of matrices, over 1 / √(inputs): sharp attention, so that the class token sees a place


def draw(shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A tensor for each name and shape, float16 values in float32, in the order of the names."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(shapes):
        shape = shapes[name].shape
        noise = torch.randn(shape, generator=generator)
        if name == "logit_scale":
            noise = torch.tensor(4.6052)
        elif "norm" in name or "ln_" in name or "pos_drop" in name:
            noise = (1.0 if name.endswith("weight") else 0.0) + 0.2 * noise
        elif name.endswith("bias"):
            noise = 0.2 * noise
        elif noise.ndim >= 2 and "embedding" not in name and "token" not in name:
            noise = noise * GAIN / noise[0].numel() ** 0.5 if "pos_embed" not in name else noise
        found[name] = noise.half().float()
    return found


def _on_meta(build: type | object, *args: object, **options: object) -> dict[str, Tensor]:
    with torch.device("meta"):
        return build(*args, **options).state_dict()  # type: ignore[operator]


def write_dino(cache: Path, model: str = DINO, seed: int = 0) -> Path:
    """DINO's backbone, as published: a plain dict of tensors. model: timm's name."""
    shapes = _on_meta(timm.create_model, model, num_classes=0)
    file = cache / "dino_model" / "dino_vitbase16_pretrain.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(draw(shapes, seed), file)
    return file


def one_text_layer(name: str) -> dict[str, Any]:
    """open_clip's configuration, with a smaller text tower for dimensions that do not use it."""
    config = open_clip.get_model_config(f"{name}-quickgelu")
    return config | {"text_cfg": config["text_cfg"] | {"layers": 1}}


def write_clip(cache: Path, name: str, config: dict[str, Any] | None = None, seed: int = 1) -> Path:
    """OpenAI's archive of ViT-B-32 or ViT-L-14: TorchScript, float16, with its three numbers."""
    config = config or open_clip.get_model_config(f"{name}-quickgelu")
    state = draw(_on_meta(open_clip.CLIP, **config), seed)
    archive = _modules({key: value.half() for key, value in state.items()})
    for key, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        archive.register_buffer(key, torch.tensor(value))
    file = cache / "clip_model" / f"{name}.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(archive), str(file))
    return file


class _Module(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def _modules(state: Mapping[str, Tensor]) -> nn.Module:
    """Modules within modules whose state dict is `state`."""
    root = _Module()
    for name, value in state.items():
        *path, last = name.split(".")
        place: nn.Module = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, _Module())
            place = place._modules[part]  # type: ignore[assignment]
        place.register_parameter(last, nn.Parameter(value, requires_grad=False))
    return root.eval()


def write_head(cache: Path, seed: int = 2) -> Path:
    """LAION's linear head; a bias near what it scores."""
    generator = torch.Generator().manual_seed(seed)
    file = cache / "aesthetic_model" / "emb_reader" / "sa_0_4_vit_l_14_linear.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    weight = torch.randn(1, 768, generator=generator)
    torch.save({"weight": weight, "bias": torch.tensor([5.0])}, file)
    return file


def write_dreamsim(cache: Path, model: str = DINO, seed: int = 3) -> Path:
    """The ensemble's folder, without DINO's backbone: two towers and the LoRA of all three.

    model: timm's name of a network of the towers' size.
    """
    folder = cache / "dreamsim"
    (folder / "ensemble_lora").mkdir(parents=True, exist_ok=True)
    shapes = _on_meta(timm.create_model, model, num_classes=0)
    width = shapes["norm.weight"].numel()
    blocks = sum(name.endswith("attn.qkv.weight") for name in shapes)
    shapes |= {f"pos_drop.{key}": torch.empty(width, device="meta") for key in ("weight", "bias")}
    shapes["proj"] = torch.empty(width, width * 2 // 3, device="meta")
    for i, name in enumerate(("clip_vitb16", "open_clip_vitb16")):
        torch.save({"state_dict": draw(shapes, seed + i)}, folder / f"{name}_pretrain.pth.tar")
    # the package reads DINO's head as well, and uses nothing of it
    head = {f"mlp.{i}.{key}": torch.zeros(1) for i in (0, 2, 4) for key in ("weight", "bias")}
    head["last_layer.weight"] = torch.zeros(1)
    student = {f"module.head.{key}": value for key, value in head.items()}
    torch.save({"student": student}, folder / "dino_vitb16_pretrain.pth")
    prefix, rank = "base_model.model.extractor_list.{}.model.blocks.{}.attn.qkv.", 16
    generator = torch.Generator().manual_seed(seed + 2)
    adapter = {}
    for network in range(3):
        for block in range(blocks):
            key = prefix.format(network, block)
            adapter[f"{key}lora_A.weight"] = (
                torch.randn(rank, width, generator=generator) / width**0.5
            )
            adapter[f"{key}lora_B.weight"] = torch.randn(3 * width, rank, generator=generator)
    save_file(adapter, folder / "ensemble_lora" / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": 8, "lora_dropout": 0.3, "bias": "none",
        "target_modules": ["qkv"], "task_type": None, "inference_mode": True,
    }  # fmt: skip
    (folder / "ensemble_lora" / "adapter_config.json").write_text(json.dumps(config))
    return folder
