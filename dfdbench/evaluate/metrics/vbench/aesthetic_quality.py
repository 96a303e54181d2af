"""VBench's aesthetic_quality: LAION's aesthetic predictor on every frame, over 10.

Huang et al., "VBench", CVPR 2024: frames as in vbench_background_consistency.py, image embedding of
CLIP ViT-L/14 scaled to length 1, LAION's linear head (about 1 to 10, unbounded), divided by 10,
mean over frames. VBench's score of several clips is their plain mean.
"""

from pathlib import Path

import numpy as np

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.utils.vbench_weights import read_state, vbench_digest, vbench_file, vbench_unusable
from dfdbench.utils.video import Clip

FAMILY_NAME, NAME = "vbench_aesthetic_quality", "aesthetic_quality"
MODEL = "ViT-L-14"
HEAD = "sa_0_4_vit_l_14_linear.pth"


def head_file() -> Path:
    """LAION's linear head, in VBench's cache.

    Raises:
        MissingWeights: it is not there.
    """
    return vbench_file(f"aesthetic_model/emb_reader/{HEAD}", what="LAION's aesthetic head")


def load_head() -> tuple[np.ndarray, float]:
    """Weight (768), float32, and bias of the linear head.

    Raises:
        MissingWeights: it is not here.
        UserError: the file holds anything else.
    """
    file, what = head_file(), "LAION's aesthetic head for CLIP ViT-L/14"
    state = read_state(file, what)
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if shapes != {"weight": (1, 768), "bias": (1,)}:
        raise vbench_unusable(file, what)
    return state["weight"][0].float().numpy(), float(state["bias"])


def aesthetic_quality(features: np.ndarray, weight: np.ndarray, bias: float) -> float:
    """Mean over frames of (w · f/|f| + b) / 10; features (T, D), weight (D)."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return float((unit.astype(np.float64) @ weight + bias).mean() / 10)


def load(setting: Setting) -> Compute:
    """The family's function, with CLIP's vision tower on the setting's device.

    Raises:
        MissingWeights: CLIP's archive or the head is not here.
        UserError: a file holds other weights.
    """
    weight, bias = load_head()
    embed = openai_clip.load_embed(MODEL, setting.device)

    def compute(clip: Clip) -> dict[str, float]:
        return {NAME: aesthetic_quality(embed(clip.frames), weight, bias)}

    return compute


FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="all",
    metrics=(
        Metric(
            NAME,
            "higher",
            "",
            (-np.inf, np.inf),
            "VBench 0.1.5, aesthetic_quality: CLIP ViT-L/14 and LAION's linear head, over 10",
            FAMILY_NAME,
        ),
    ),
    load=load,
    find=lambda setting: vbench_digest(openai_clip.clip_file(MODEL), head_file()),
    model=True,
    min_frames=1,
)
