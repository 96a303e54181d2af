"""CLIP ViT-L/14 features with OpenAI's weights: the projected image embedding (768) of each frame.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
(2103.00020), as open_clip builds and prepares it: shorter side to 224 (bicubic, by PIL), centre
crop, CLIP's mean and standard deviation. clip_vit_l14_cls.py shares the loader.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dfdbench.evaluate.metrics.base import Setting
from dfdbench.evaluate.metrics.embedding import Embed, batched, embedding_family
from dfdbench.utils.assets import digest, locate, unusable
from dfdbench.utils.errors import pass_out_of_memory

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer
    from torch import Tensor

ASSET, WEIGHTS = "clip_vit_l14", "open_clip_model.safetensors"
MODEL = "ViT-L-14-quickgelu"  # OpenAI trained with QuickGELU; open_clip's plain ViT-L-14 has GELU


def load_tower(file: Path) -> "VisionTransformer":
    """The vision tower of `MODEL` with the weights in `file`; the text tower is never read.

    Raises:
        UserError: the file holds anything but these weights.
    """
    import open_clip
    import torch
    from safetensors import SafetensorError, safe_open

    with torch.device("meta"):
        tower = open_clip.CLIP(**open_clip.get_model_config(MODEL)).visual
    prefix = "visual."
    try:
        with safe_open(file, "pt") as weights:
            names = [name for name in weights.keys() if name.startswith(prefix)]  # noqa: SIM118
            state = {name.removeprefix(prefix): weights.get_tensor(name) for name in names}
        tower.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        pass_out_of_memory(error)
        raise unusable(file, ASSET, f"open_clip's weights of {MODEL}") from error
    return tower.float().eval().requires_grad_(False)


def preprocess(frames: np.ndarray, size: int | tuple[int, int]) -> "Tensor":
    """uint8 (T H W 3) RGB to float32 (T 3 size size), -1.8 to 2.1, by open_clip's pipeline."""
    import open_clip
    import torch
    from PIL import Image

    prepare = open_clip.image_transform(size, is_train=False)  # the defaults are OpenAI's
    return torch.stack([prepare(Image.fromarray(frame)) for frame in frames])


def load(setting: Setting, projected: bool = True) -> Embed:
    """The embedding of frames, float32 on any device.

    Args:
        projected: the embedding shared with text (768); else the class token as the last block
            leaves it (1024), before the final LayerNorm and the projection.

    Raises:
        MissingWeights: the file is not here.
        UserError: it holds other weights.
    """
    import torch

    tower = load_tower(locate(ASSET) / WEIGHTS)
    if not projected:
        tower.ln_post, tower.proj = torch.nn.Identity(), None
    tower.to(setting.device)

    return batched(
        lambda frames: preprocess(frames, tower.image_size).to(setting.device),
        tower,
        setting.device,
    )


FAMILY = embedding_family(
    "clip_vit_l14",
    "CLIP ViT-L/14 (OpenAI), 224 px, projected image embedding",
    load,
    lambda setting: digest(ASSET),
    default=True,
)
