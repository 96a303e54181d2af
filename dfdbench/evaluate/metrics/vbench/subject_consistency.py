"""VBench's subject_consistency: how alike DINO finds a clip's frames, to the last and the first.

Huang et al., "VBench", CVPR 2024: shorter side to 224 (bilinear, not antialiased), no crop, DINO
ViT-B/16 class token; per frame t ≥ 2 the mean of the clamped cosines to frame t − 1 and to frame 1.
VBench's score of several clips is frame-weighted: Σ s_t over Σ (T − 1), hence the second value.
"""

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.consistency import consistency_of, frames_reading
from dfdbench.evaluate.metrics.vbench.nets import dino
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized
from dfdbench.utils.vbench_weights import vbench_digest

FAMILY_NAME, NAME = "vbench_subject_consistency", "subject_consistency"


def load(setting: Setting) -> Compute:
    """The family's function, with DINO on the setting's device.

    Raises:
        MissingWeights: DINO's checkpoint is not here.
        UserError: the file is another one.
    """
    network = dino.load_network().to(setting.device)
    embed = dino.embedding(
        network, lambda frames: resized(frames, 224, "bilinear", antialias=False), setting.device
    )
    return consistency_of(NAME, embed)


SOURCE = "VBench 0.1.5, subject_consistency: DINO ViT-B/16, frames at 224, uncropped"

FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="all",
    metrics=(
        Metric(NAME, "higher", "", (0.0, 1.0), SOURCE, FAMILY_NAME),
        frames_reading(NAME, FAMILY_NAME),
    ),
    load=load,
    find=lambda setting: vbench_digest(dino.dino_file()),
    model=True,
)
