"""VBench-I2V's i2v_subject: how true DINO finds a clip to the image that it starts from.

Huang et al., "VBench++" (2411.13503): shorter side to 256 (bicubic, antialiased; the image by
Pillow, the frames as float tensors), centre crop 224, DINO ViT-B/16 class token; 0.4 times the
largest cosine to the image, 0.3 times the mean and 0.3 times the least of adjacent frames. VBench's
score of several clips is their plain mean.
"""

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.consistency import conformity_of
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets import dino
from dfdbench.evaluate.metrics.vbench.nets.pixels import resized, resized_by_pillow
from dfdbench.evaluate.metrics.vbench.nets.weights import DINO

NAME = "i2v_subject"
SIDE, CROP = 256, 224


def load(setting: Setting) -> Compute:
    """The family's function, with DINO on the setting's device."""
    network = dino.load_network(setting.device)
    embed_frames = dino.embedding(
        network,
        lambda frames: resized(frames, SIDE, "bicubic", True, CROP, setting.device),
        setting.device,
    )
    embed_images = dino.embedding(
        network,
        lambda images: resized_by_pillow(images, SIDE, CROP, setting.device),
        setting.device,
    )
    return conformity_of(NAME, embed_images, embed_frames)


FAMILY = dimension_family(
    f"vbench_{NAME}",
    dimension(
        NAME,
        "VBench-I2V 0.1.5, i2v_subject: DINO ViT-B/16, frames cropped to 224",
        "How true DINO finds the clip to the subject of the image it starts from: 0.4 · best "
        "cosine of a frame to the image + 0.3 · mean + 0.3 · least cosine of adjacent frames.",
    ),
    load=load,
    weights=(DINO,),
    needs=("image",),
)
