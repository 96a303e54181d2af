"""VBench-I2V's i2v_background: how true DreamSim finds a clip to the image that it starts from.

Huang et al., "VBench++" (2411.13503): squeezed to 224 × 224 (bicubic, antialiased; the image by
Pillow, the frames as float tensors), DreamSim's ensemble; then as in vbench_i2v_subject.py.
"""

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.vbench.consistency import conformity_of
from dfdbench.evaluate.metrics.vbench.nets import dreamsim
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized, resized_by_pillow
from dfdbench.utils.vbench_weights import vbench_digest

FAMILY_NAME, NAME = "vbench_i2v_background", "i2v_background"
SIZE = (224, 224)


def load(setting: Setting) -> Compute:
    """The family's function, with DreamSim's ensemble on the setting's device.

    Raises:
        MissingWeights: a file of the ensemble is not here.
        UserError: a file is another one.
    """
    embedding = dreamsim.load_embed(setting.device)
    embed_frames = embedding(lambda frames: resized(frames, SIZE, "bicubic", antialias=True))
    embed_images = embedding(lambda images: resized_by_pillow(images, SIZE))
    return conformity_of(NAME, embed_images, embed_frames)


FAMILY = MetricFamily(
    FAMILY_NAME,
    policy="all",
    metrics=(
        Metric(
            NAME,
            "higher",
            "",
            (0.0, 1.0),
            "VBench-I2V 0.1.5, i2v_background: DreamSim ensemble, frames squeezed to 224",
            FAMILY_NAME,
        ),
    ),
    load=load,
    find=lambda setting: vbench_digest(*dreamsim.dreamsim_files()),
    model=True,
    needs=("image",),
)
