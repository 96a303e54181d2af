"""VBench's temporal_style and overall_consistency: ViCLIP cosine of a clip and its prompt.

Huang et al., "VBench" (2311.17982): f and g the embeddings of 8 frames (middles of equal parts) and
of the prompt, f·g / (|f| |g|), neither scaled nor clamped. The two dimensions differ in the prompts
that VBench asks them of: those of temporal_style end in a manner of filming such as "in super slow
motion". One number is both, so each clip is encoded once.
"""

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.nets import viclip
from dfdbench.utils.vbench_weights import vbench_digest
from dfdbench.utils.video import Clip

FAMILY_NAME = "vbench_viclip"
NAMES = ("temporal_style", "overall_consistency")


def load(setting: Setting) -> Compute:
    """The family's function.

    Raises:
        MissingWeights: the checkpoint is not here.
        UserError: it holds other weights.
    """
    import torch

    network = viclip.load_network(viclip.weights_file(), setting.device)

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        if clip.prompt is None:
            return {}
        pixels = viclip.preprocess(clip.frames).to(setting.device)
        video = viclip.encode_video(network, pixels)
        text = viclip.encode_text(network, clip.prompt)
        return dict.fromkeys(NAMES, float(torch.cosine_similarity(video, text, dim=0)))

    return compute


FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="middle8",
    metrics=tuple(
        Metric(
            name,
            "higher",
            "",
            (-1.0, 1.0),
            f"VBench (CVPR 2024), {name}: ViCLIP-L cosine of 8 frames and the prompt",
            FAMILY_NAME,
        )
        for name in NAMES
    ),
    load=load,
    find=lambda setting: vbench_digest(viclip.weights_file()),
    model=True,
    needs=("prompt",),
    min_frames=1,
)
