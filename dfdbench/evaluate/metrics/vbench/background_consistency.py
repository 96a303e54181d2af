"""VBench's background_consistency: how alike CLIP finds a clip's frames, to the last and the first.

Huang et al., "VBench", CVPR 2024: shorter side to 224 (bicubic, not antialiased), centre crop,
image embedding of CLIP ViT-B/32; then as in subject_consistency.py, frame weights included.
"""

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.consistency import consistency_of
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family, frames_of
from dfdbench.evaluate.metrics.vbench.nets.clip import load_embed
from dfdbench.evaluate.metrics.vbench.nets.weights import CLIP_B32

NAME = "background_consistency"


def load(setting: Setting) -> Compute:
    """The family's function, with CLIP's vision tower on the setting's device."""
    return consistency_of(NAME, load_embed(CLIP_B32, setting.device))


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench 0.1.5, background_consistency: CLIP ViT-B/32, frames cropped to 224",
        "How alike CLIP finds a clip's frames as whole pictures: mean over frames t ≥ 2 of "
        "½([cos(f_t, f_{t−1})]₊ + [cos(f_t, f_1)]₊). A still clip has 1.",
    ),
    frames_of(NAME),
    load=load,
    weights=(CLIP_B32,),
)
