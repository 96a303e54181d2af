"""DreamSim's ensemble as VBench-I2V uses it: three ViT-B/16 with LoRA, one embedding (1792).

Fu et al., "DreamSim: Learning New Dimensions of Human Visual Similarity", NeurIPS 2023
(2306.09344). DINO's class token before the final LayerNorm, and the projected embeddings of CLIP
and OpenCLIP, whose towers DreamSim ships in DINO's tensor names; timm defines all three. LoRA is
added into the weights, W + (alpha / r) B A, so no code of peft is needed.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dfdbench.evaluate.metrics.embedding import Embed, batched
from dfdbench.evaluate.metrics.vbench.nets import dino
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, IMAGENET, normalised
from dfdbench.evaluate.metrics.vbench.nets.weights import (
    DREAMSIM_CLIP,
    DREAMSIM_LORA,
    DREAMSIM_OPEN_CLIP,
    DREAMSIM_SETTINGS,
    Checkpoint,
    frozen,
)

if TYPE_CHECKING:
    from torch import Tensor

TOWERS = ((DREAMSIM_CLIP, "quick_gelu"), (DREAMSIM_OPEN_CLIP, "gelu"))  # after DINO, activation
SIZES: dict[str, Any] = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
ADAPTER = re.compile(r"base_model\.model\.extractor_list\.([012])\.model\.(.+)\.lora_[AB]\.weight")


def load_tower(checkpoint: Checkpoint, activation: str) -> "tuple[Any, Tensor]":
    """A CLIP vision tower in DINO's tensor names, and its projection (768, 512), on the CPU.

    Raises:
        MissingWeights: the file is not here.
        UserError: it holds anything else.
    """
    import torch
    from timm.layers import get_act_layer
    from timm.models.vision_transformer import VisionTransformer

    norm = partial(torch.nn.LayerNorm, eps=1e-5)  # CLIP's; DINO's is 1e-6
    with torch.device("meta"):
        network = VisionTransformer(
            num_classes=0,
            norm_layer=norm,
            act_layer=get_act_layer(activation),
            **SIZES,
        )
        network.norm_pre = norm(network.embed_dim)  # DreamSim's pos_drop
    with checkpoint.tensors() as content:
        state = dict(content["state_dict"])
        projection = state.pop("proj").float()
        named = {k.replace("pos_drop.", "norm_pre."): v for k, v in state.items()}
        network.load_state_dict(named, assign=True)
    return frozen(network, "cpu"), projection


def add_lora(networks: Sequence[Any], adapter: "Mapping[str, Tensor]", scale: float) -> None:
    """W + scale B A for every layer that the adapter has matrices for; in place.

    Args:
        networks: the ensemble in DreamSim's order.
        adapter: A (r, in) and B (out, r) under the names that ADAPTER matches.
        scale: alpha / r.

    Raises:
        KeyError: a matrix is missing, or is for another network.
        AttributeError: a network has no such layer.
    """
    if not adapter or not all(ADAPTER.fullmatch(name) for name in adapter):
        raise KeyError("lora_A")
    for stem in sorted({re.sub(r"[AB]\.weight$", "", name) for name in adapter}):
        down, up = adapter[f"{stem}A.weight"].float(), adapter[f"{stem}B.weight"].float()
        position, layer = ADAPTER.fullmatch(f"{stem}A.weight").groups()  # type: ignore[union-attr]
        networks[int(position)].get_submodule(layer).weight.add_(scale * (up @ down))


def load_embed(device: str) -> Callable[[dino.Resize], Embed]:
    """Gives, for a resize function, the embedding: uint8 (T H W 3) -> float32 (T, 1792), length 1.

    The resize function: uint8 (B H W 3) -> float32 (B 3 224 224), 0 to 255, on the device.

    Raises:
        MissingWeights: a file is not here.
        UserError: a file is not what it should be.
    """
    import torch

    towers = [load_tower(checkpoint, activation) for checkpoint, activation in TOWERS]
    networks = [dino.load_network("cpu"), *(network for network, _ in towers)]
    projections = [projection.to(device) for _, projection in towers]
    with DREAMSIM_SETTINGS.opened() as file:
        config = json.loads(file.read_text(encoding="utf-8"))
        if config.get("use_rslora"):
            raise ValueError("another scale")
        scale = float(config["lora_alpha"]) / int(config["r"])
    with DREAMSIM_LORA.tensors() as adapter:
        add_lora(networks, adapter, scale)
    for network in networks:
        network.to(device)

    def embed(pixels: "Tensor") -> "Tensor":
        for_dino, for_clip = (normalised(pixels, s) for s in (IMAGENET, CLIP))
        parts = [dino.tokens(networks[0], for_dino)[:, 0]]
        for network, projection in zip(networks[1:], projections, strict=True):
            parts.append(network.norm(dino.tokens(network, for_clip))[:, 0] @ projection)
        joined = torch.cat(parts, -1)
        return torch.nn.functional.normalize(joined - joined.mean(-1, keepdim=True), dim=-1)

    return lambda resize: batched(resize, embed, device)
