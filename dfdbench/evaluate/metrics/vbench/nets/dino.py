"""DINO ViT-B/16 as VBench uses it, for subject_consistency and i2v_subject; DreamSim's is like it.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, with timm's
definition of the network and the original checkpoint (strictly). Two things differ from timm's
forward pass: sides that are no multiple of the patch lose the rest, and position embeddings of
another grid are interpolated as in DINO's own code.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.embedding import Embed, batched
from dfdbench.evaluate.metrics.vbench.nets.pixels import IMAGENET, normalised
from dfdbench.evaluate.metrics.vbench.nets.weights import DINO, frozen

if TYPE_CHECKING:
    from torch import Tensor

Resize = Callable[[np.ndarray], "Tensor"]

MODEL = "vit_base_patch16_224.dino"


def load_network(device: str) -> Any:
    """The backbone with the checkpoint's weights, all of them, in evaluation mode.

    Raises:
        MissingWeights: the checkpoint is not here.
        UserError: it holds anything but these weights.
    """
    import timm
    import torch

    with torch.device("meta"):
        network = timm.create_model(MODEL, pretrained=False, num_classes=0)
    with DINO.tensors() as state:
        network.load_state_dict(state, assign=True)
    return frozen(network, device)


def positions(embedding: "Tensor", grid: tuple[int, int]) -> "Tensor":
    """The position embedding of a grid of patches (rows, columns): (1, 1 + rows · columns, D).

    Args:
        embedding: that of the square grid the network was trained on, (1, 1 + n², D).
    """
    import torch

    side = round((embedding.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return embedding
    first, rest = embedding[:, :1], embedding[:, 1:]
    square = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # DINO adds 0.1 so that rounding loses no row; the scale, and with it every sample, moves too
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    stretched = torch.nn.functional.interpolate(square, scale_factor=scale, mode="bicubic")
    return torch.cat((first, stretched.flatten(2).transpose(1, 2)), 1)


def tokens(network: Any, pixels: "Tensor") -> "Tensor":
    """What the last block leaves, before the final LayerNorm: (B, 1 + patches, D), class first.

    Args:
        pixels: normalised (B 3 H W) of any size from one patch on.
    """
    import torch

    patches = network.patch_embed.proj(pixels)
    grid = (patches.shape[2], patches.shape[3])
    first = network.cls_token.expand(len(pixels), -1, -1)
    x = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1)
    x = network.norm_pre(x + positions(network.pos_embed, grid))
    return network.blocks(x)


def embedding(network: Any, resize: Resize, device: str) -> Embed:
    """The class token of each frame: uint8 (T H W 3) -> float32 (T, 768).

    Args:
        network: on `device`.
        resize: uint8 (B H W 3) -> float32 (B 3 h w), 0 to 255, there.
    """
    return batched(
        lambda frames: normalised(resize(frames), IMAGENET),
        lambda pixels: network.norm(tokens(network, pixels))[:, 0],
        device,
    )
