"""OpenAI's CLIP as VBench uses it: open_clip's definition with OpenAI's own archives.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2103.00020). ViT-B/32 for background_consistency and appearance_style, ViT-L/14 for
aesthetic_quality. float32 on any device; VBench's code is float16 on a GPU, float32 on a CPU.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.embedding import Embed, batched
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, normalised, resized
from dfdbench.utils.vbench_weights import read_state, vbench_file, vbench_unusable

if TYPE_CHECKING:
    from torch import Tensor

# By the name of OpenAI's file; open_clip's names without "quickgelu" have another activation.
MODELS = {"ViT-B-32": "ViT-B-32-quickgelu", "ViT-L-14": "ViT-L-14-quickgelu"}
SIDE = 224
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # numbers kept beside them


def clip_file(name: str) -> Path:
    """OpenAI's archive, in VBench's cache or CLIP's.

    Args:
        name: one of MODELS.

    Raises:
        MissingWeights: it is in neither.
    """
    return vbench_file(f"clip_model/{name}.pt", what=f"CLIP {name}")


def load_clip(name: str, text: bool = False) -> Any:
    """open_clip's CLIP with OpenAI's weights in evaluation mode, on the CPU.

    Args:
        name: one of MODELS.
        text: the whole model; else only its vision tower.

    Raises:
        MissingWeights: the archive is not here.
        UserError: it holds other weights.
    """
    import open_clip
    import torch

    file, what = clip_file(name), f"OpenAI's weights of CLIP {name}"
    state = {k: v for k, v in read_state(file, what).items() if k not in NO_WEIGHTS}
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(MODELS[name]))
    network = model if text else model.visual
    if text:  # not a weight, so no file has it
        model.attn_mask = torch.full(model.attn_mask.shape, -torch.inf).triu_(1)
    else:
        state = {k[7:]: v for k, v in state.items() if k.startswith("visual.")}
    try:
        network.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError) as error:
        raise vbench_unusable(file, what) from error
    return network.float().eval().requires_grad_(False)


def preprocess(frames: np.ndarray) -> "Tensor":
    """uint8 (T H W 3) to float32 (T 3 224 224): bicubic without antialiasing, centre crop."""
    return normalised(resized(frames, SIDE, "bicubic", antialias=False, crop=SIDE), CLIP)


def load_embed(name: str, device: str) -> Embed:
    """The projected image embedding of each frame: uint8 (T H W 3) -> float32 (T, D)."""
    tower = load_clip(name).to(device)
    return batched(lambda frames: tower(preprocess(frames).to(device)), device)
