"""VBench's temporal_style and overall_consistency: ViCLIP cosine of a clip and its prompt.

Huang et al., "VBench" (2311.17982): f and g the embeddings of 8 frames (middles of equal parts) and
of the prompt, f·g / (|f| |g|), neither scaled nor clamped. The two dimensions differ in the prompts
that VBench asks them of: those of temporal_style end in a manner of filming such as "in super slow
motion". One number is both, so each clip is encoded once.
"""

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets import viclip
from dfdbench.evaluate.metrics.vbench.nets.weights import VICLIP
from dfdbench.utils.video import Clip

NAMES = {
    "temporal_style": "prompt, one that names a manner of filming",
    "overall_consistency": "prompt",
}  # dimension -> what it is asked of


def load(setting: Setting) -> Compute:
    """The family's function, with ViCLIP on the setting's device."""
    import torch

    network = viclip.load_network(setting.device)

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        if clip.prompt is None:
            return {}
        pixels = viclip.preprocess(clip.frames).to(setting.device)
        video = viclip.encode_video(network, pixels)
        text = viclip.encode_text(network, clip.prompt)
        return dict.fromkeys(NAMES, float(torch.cosine_similarity(video, text, dim=0)))

    return compute


FAMILY = dimension_family(
    "vbench_viclip",
    *(
        dimension(
            name,
            f"VBench (CVPR 2024), {name}: ViCLIP-L cosine of 8 frames and the prompt",
            f"How well a clip fits its {prompts}: ViCLIP's cos(8 frames, prompt).",
            low=-1.0,
        )
        for name, prompts in NAMES.items()
    ),
    load=load,
    weights=(VICLIP,),
    policy="middle8",
    needs=("prompt",),
    min_frames=1,
    cuts=viclip.is_cut,
)
