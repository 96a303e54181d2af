"""VBench's appearance_style: how well CLIP finds the prompt's style in each frame.

Huang et al., "VBench", CVPR 2024: frames through Pillow (bicubic, antialiased), centre crop 224,
CLIP ViT-B/32; logit of frame and style text over 100, mean over frames. The text is the style
alone: VBench's own prompts end in one of nine. VBench's score of several clips is frame-weighted:
Σ over all frames / Σ T, hence the second value. (On several GPUs its code averages each clip's last
frame; that is not imitated.)
"""

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.embedding import batched
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family, frames_of
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, normalised, resized_by_pillow
from dfdbench.evaluate.metrics.vbench.nets.weights import CLIP_B32
from dfdbench.utils.video import Clip

NAME, SIDE = "appearance_style", openai_clip.SIDE
STYLES = (
    "Van Gogh style",
    "oil painting",
    "by Hokusai, in the style of Ukiyo",
    "black and white",
    "pixel art",
    "in cyberpunk style",
    "animated style",
    "watercolor painting",
    "surrealism style",
)


def style_of(prompt: str) -> str | None:
    """The style that a prompt of VBench's dimension ends in; None for any other prompt."""
    return next((style for style in STYLES if prompt.endswith(style)), None)


def load(setting: Setting) -> Compute:
    """The family's function, with CLIP on the setting's device."""
    import open_clip
    import torch

    model = openai_clip.load_clip(CLIP_B32, setting.device, text=True)
    with torch.inference_mode():
        texts = model.encode_text(open_clip.tokenize(list(STYLES)).to(setting.device))
        # 1 for the published weights, whose scale is 100
        factor = float(model.logit_scale.exp()) / 100
    units = torch.nn.functional.normalize(texts, dim=-1).cpu().numpy()
    embed = batched(
        lambda frames: normalised(resized_by_pillow(frames, SIDE, SIDE, setting.device), CLIP),
        model.visual,
        setting.device,
    )

    def compute(clip: Clip) -> dict[str, float]:
        style = style_of(clip.prompt or "")
        if style is None:
            return {}
        features = embed(clip.frames)
        cosines = features @ units[STYLES.index(style)] / np.linalg.norm(features, axis=-1)
        score = factor * float(cosines.mean(dtype=np.float64))
        return {NAME: score, f"{NAME}_frames": float(len(clip.frames))}

    return compute


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench 0.1.5, appearance_style: CLIP ViT-B/32, cosine of frames and the style's text",
        "How well CLIP finds the style that the prompt ends in (such as “oil painting”) in the "
        "frames: mean over frames of cos(frame, text of the style).",
        low=-1.0,
    ),
    frames_of(NAME),
    load=load,
    weights=(CLIP_B32,),
    needs=("prompt",),
    min_frames=1,
)
