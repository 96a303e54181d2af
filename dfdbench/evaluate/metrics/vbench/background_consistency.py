"""VBench's background_consistency: how alike CLIP finds a clip's frames, to the last and the first.

Huang et al., "VBench", CVPR 2024: shorter side to 224 (bicubic, not antialiased), centre crop,
image embedding of CLIP ViT-B/32; then as in vbench_subject_consistency.py, frame weights included.
"""

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.consistency import consistency_of, frames_reading
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.utils.vbench_weights import vbench_digest

FAMILY_NAME, NAME = "vbench_background_consistency", "background_consistency"
MODEL = "ViT-B-32"


def load(setting: Setting) -> Compute:
    """The family's function, with CLIP's vision tower on the setting's device.

    Raises:
        MissingWeights: CLIP's archive is not here.
        UserError: the file holds other weights.
    """
    embed = openai_clip.load_embed(MODEL, setting.device)
    return consistency_of(NAME, embed)


SOURCE = "VBench 0.1.5, background_consistency: CLIP ViT-B/32, frames cropped to 224"

FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="all",
    metrics=(
        Metric(NAME, "higher", "", (0.0, 1.0), SOURCE, FAMILY_NAME),
        frames_reading(NAME, FAMILY_NAME),
    ),
    load=load,
    find=lambda setting: vbench_digest(openai_clip.clip_file(MODEL)),
    model=True,
)
