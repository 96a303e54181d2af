"""CLIP ViT-L/14's class token before the final LayerNorm and the projection: DP-DMD's variant.

DP-DMD's released evaluation takes the last hidden state of transformers' CLIPVisionModel, which no
LayerNorm has touched. Its cosines are another scale than those of clip_vit_l14: never mix them.
"""

from functools import partial

from dfdbench.evaluate.metrics.clip_vit_l14 import ASSET, load
from dfdbench.evaluate.metrics.embedding import embedding_family
from dfdbench.utils.assets import digest

FAMILY = embedding_family(
    "clip_vit_l14_cls",
    "CLIP ViT-L/14 (OpenAI), 224 px, class token before LayerNorm and projection",
    partial(load, projected=False),
    lambda setting: digest(ASSET),
)
