"""OpenAI's CLIP as VBench uses it: open_clip's definition with OpenAI's own archives.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2103.00020). ViT-B/32 for background_consistency and appearance_style, ViT-L/14 for
aesthetic_quality. float32 on any device; VBench's code is float16 on a GPU, float32 on a CPU.
"""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.embedding import Embed, batched
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, normalised, resized
from dfdbench.evaluate.metrics.vbench.nets.weights import Checkpoint, frozen

if TYPE_CHECKING:
    from torch import Tensor

# By the stem of OpenAI's file; open_clip's names without "quickgelu" have another activation.
MODELS = {"ViT-B-32": "ViT-B-32-quickgelu", "ViT-L-14": "ViT-L-14-quickgelu"}
SIDE = 224
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers kept beside them


def load_clip(checkpoint: Checkpoint, device: str, text: bool = False) -> Any:
    """open_clip's CLIP with OpenAI's weights in evaluation mode.

    Args:
        checkpoint: OpenAI's archive, CLIP_B32 or CLIP_L14.
        text: the whole model; else only its vision tower.

    Raises:
        MissingWeights: the archive is not here.
        UserError: it holds other weights.
    """
    import open_clip
    import torch

    name = MODELS[PurePosixPath(checkpoint.path).stem]
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    network, prefix = (model, "") if text else (model.visual, "visual.")
    if text:  # not a weight, so no file has it
        model.attn_mask = torch.full(model.attn_mask.shape, -torch.inf).triu_(1)
    with checkpoint.tensors() as state:
        own = {k: v for k, v in state.items() if k.startswith(prefix) and k not in NO_WEIGHTS}
        network.load_state_dict({k.removeprefix(prefix): own[k] for k in own}, assign=True)
    return frozen(network, device)


def preprocess(frames: np.ndarray, device: str = "cpu") -> "Tensor":
    """uint8 (T H W 3) to float32 (T 3 224 224): bicubic without antialiasing, centre crop."""
    return normalised(resized(frames, SIDE, "bicubic", False, SIDE, device), CLIP)


def load_embed(checkpoint: Checkpoint, device: str) -> Embed:
    """The projected image embedding of each frame: uint8 (T H W 3) -> float32 (T, D)."""
    tower = load_clip(checkpoint, device)
    return batched(lambda frames: preprocess(frames, device), tower, device)
