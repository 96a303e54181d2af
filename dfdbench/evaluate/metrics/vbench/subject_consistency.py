"""VBench's subject_consistency: how alike DINO finds a clip's frames, to the last and the first.

Huang et al., "VBench", CVPR 2024: shorter side to 224 (bilinear, not antialiased), no crop, DINO
ViT-B/16 class token; per frame t ≥ 2 the mean of the clamped cosines to frame t − 1 and to frame 1.
VBench's score of several clips is frame-weighted: Σ s_t over Σ (T − 1), hence the second value.
"""

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.consistency import consistency_of
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family, frames_of
from dfdbench.evaluate.metrics.vbench.nets import dino
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized
from dfdbench.evaluate.metrics.vbench.nets.weights import DINO

NAME = "subject_consistency"


def load(setting: Setting) -> Compute:
    """The family's function, with DINO on the setting's device."""
    embed = dino.embedding(
        dino.load_network(setting.device),
        lambda frames: resized(frames, 224, "bilinear", False, device=setting.device),
        setting.device,
    )
    return consistency_of(NAME, embed)


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench 0.1.5, subject_consistency: DINO ViT-B/16, frames at 224, uncropped",
        "How alike DINO finds the subject in a clip's frames: mean over frames t ≥ 2 of "
        "½([cos(f_t, f_{t−1})]₊ + [cos(f_t, f_1)]₊). A still clip has 1.",
    ),
    frames_of(NAME),
    load=load,
    weights=(DINO,),
)
