"""DINOv2 ViT-L/14 features: the normalised class token (1024) of each frame.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2304.07193). The
checkpoint's processor takes the shorter side to 256 (bicubic) and the centre 224 × 224. Wide frames
lose their sides: 832 × 480 keeps the middle half of the picture.
"""

from dfdbench.evaluate.metrics import dino
from dfdbench.evaluate.metrics.embedding import embedding_family
from dfdbench.utils.assets import digest

ASSET = "dinov2_l"
ARCHITECTURE = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "patch_size": 14,
}

FAMILY = embedding_family(
    "dinov2_l",
    "DINOv2 ViT-L/14 without registers, the checkpoint's preprocessing, pooler output",
    lambda setting: dino.load(ASSET, ARCHITECTURE, setting),
    lambda setting: digest(ASSET),
    default=True,
)
