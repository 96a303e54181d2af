"""VBench's aesthetic_quality: LAION's aesthetic predictor on every frame, over 10.

Huang et al., "VBench", CVPR 2024: frames as in background_consistency.py, image embedding of
CLIP ViT-L/14 scaled to length 1, LAION's linear head (about 1 to 10, unbounded), divided by 10,
mean over frames. VBench's score of several clips is their plain mean.
"""

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.clip import load_embed
from dfdbench.evaluate.metrics.vbench.nets.weights import AESTHETIC_HEAD, CLIP_L14
from dfdbench.utils.video import Clip

NAME = "aesthetic_quality"


def load_head() -> tuple[np.ndarray, float]:
    """Weight (768), float32, and bias of the linear head.

    Raises:
        MissingWeights: it is not here.
        UserError: the file holds anything else.
    """
    with AESTHETIC_HEAD.tensors() as state:
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != {"weight": (1, 768), "bias": (1,)}:
            raise ValueError("another head")
        return state["weight"][0].float().numpy(), float(state["bias"])


def aesthetic_quality(features: np.ndarray, weight: np.ndarray, bias: float) -> float:
    """Mean over frames of (w · f/|f| + b) / 10; features (T, D), weight (D)."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return float((unit.astype(np.float64) @ weight + bias).mean() / 10)


def load(setting: Setting) -> Compute:
    """The family's function, with CLIP's vision tower on the setting's device."""
    weight, bias = load_head()
    embed = load_embed(CLIP_L14, setting.device)

    def compute(clip: Clip) -> dict[str, float]:
        return {NAME: aesthetic_quality(embed(clip.frames), weight, bias)}

    return compute


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench 0.1.5, aesthetic_quality: CLIP ViT-L/14 and LAION's linear head, over 10",
        "How beautiful LAION's predictor, fitted to people's ratings of pictures, finds the "
        "frames: mean over frames of (w · f/|f| + b) / 10.",
        low=-np.inf,
        high=np.inf,
    ),
    load=load,
    weights=(CLIP_L14, AESTHETIC_HEAD),
    min_frames=1,
)
