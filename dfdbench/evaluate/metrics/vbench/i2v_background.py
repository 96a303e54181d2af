"""VBench-I2V's i2v_background: how true DreamSim finds a clip to the image that it starts from.

Huang et al., "VBench++" (2411.13503): squeezed to 224 × 224 (bicubic, antialiased; the image by
Pillow, the frames as float tensors), DreamSim's ensemble; then as in i2v_subject.py.
"""

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.consistency import conformity_of
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets import dreamsim
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized, resized_by_pillow
from dfdbench.evaluate.metrics.vbench.nets.weights import DREAMSIM

NAME = "i2v_background"
SIZE = (224, 224)


def load(setting: Setting) -> Compute:
    """The family's function, with DreamSim's ensemble on the setting's device."""
    device = setting.device
    embedding = dreamsim.load_embed(device)
    embed_frames = embedding(lambda frames: resized(frames, SIZE, "bicubic", True, device=device))
    embed_images = embedding(lambda images: resized_by_pillow(images, SIZE, device=device))
    return conformity_of(NAME, embed_images, embed_frames)


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench-I2V 0.1.5, i2v_background: DreamSim ensemble, frames squeezed to 224",
        "How true DreamSim finds the clip to the whole image it starts from: 0.4 · best cosine of "
        "a frame to the image + 0.3 · mean + 0.3 · least cosine of adjacent frames.",
    ),
    load=load,
    weights=DREAMSIM,
    needs=("image",),
)
