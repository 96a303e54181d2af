"""VBench's appearance_style: how well CLIP finds the prompt's style in each frame.

Huang et al., "VBench", CVPR 2024: frames through Pillow (bicubic, antialiased), centre crop 224,
CLIP ViT-B/32; logit of frame and style text over 100, mean over frames. The text is the style
alone: VBench's own prompts end in one of nine. VBench's score of several clips is frame-weighted:
Σ over all frames / Σ T, hence the second value. (On several GPUs its code averages each clip's last
frame; that is not imitated.)
"""

import numpy as np

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.embedding import batched
from dfdbench.evaluate.metrics.vbench.consistency import frames_reading
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, normalised, resized_by_pillow
from dfdbench.utils.vbench_weights import vbench_digest
from dfdbench.utils.video import Clip

FAMILY_NAME, NAME = "vbench_appearance_style", "appearance_style"
MODEL, SIDE = "ViT-B-32", openai_clip.SIDE
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
    """The family's function, with CLIP on the setting's device.

    Raises:
        MissingWeights: CLIP's archive is not here.
        UserError: the file holds other weights.
    """
    import open_clip
    import torch

    model = openai_clip.load_clip(MODEL, text=True).to(setting.device)
    with torch.inference_mode():
        texts = model.encode_text(open_clip.tokenize(list(STYLES)).to(setting.device))
        # 1 for the published weights, whose scale is 100
        factor = float(model.logit_scale.exp()) / 100
    units = torch.nn.functional.normalize(texts, dim=-1).cpu().numpy()
    embed = batched(
        lambda frames: model.visual(
            normalised(resized_by_pillow(frames, SIDE, crop=SIDE), CLIP).to(setting.device)
        ),
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


SOURCE = "VBench 0.1.5, appearance_style: CLIP ViT-B/32, cosine of frames and the style's text"

FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="all",
    metrics=(
        Metric(NAME, "higher", "", (-1.0, 1.0), SOURCE, FAMILY_NAME),
        frames_reading(NAME, FAMILY_NAME),
    ),
    load=load,
    find=lambda setting: vbench_digest(openai_clip.clip_file(MODEL)),
    model=True,
    needs=("prompt",),
    min_frames=1,
)
