"""DINOv3 ViT-L/16 features (LVD-1689M): the normalised class token (1024) of each frame.

Siméoni et al., "DINOv3" (2508.10104). The checkpoint's processor squeezes the whole frame to
224 × 224 (bilinear). DP-DMD's released evaluation takes the same output of the same checkpoint.
"""

from dfdbench.evaluate.metrics import dino
from dfdbench.evaluate.metrics.embedding import embedding_family
from dfdbench.utils.assets import digest

ASSET = "dinov3_l"
ARCHITECTURE = {
    "model_type": "dinov3_vit",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "patch_size": 16,
}

FAMILY = embedding_family(
    "dinov3_l",
    "DINOv3 ViT-L/16 (LVD-1689M), the checkpoint's preprocessing, pooler output",
    lambda setting: dino.load(ASSET, ARCHITECTURE, setting),
    lambda setting: digest(ASSET),
    default=True,
)
