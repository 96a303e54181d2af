"""Imaging quality as VBench defines it: the mean over frames of MUSIQ trained on SPAQ.

Huang et al., "VBench", CVPR 2024, imaging_quality; Ke et al., "MUSIQ: Multi-scale Image Quality
Transformer", ICCV 2021. Frames whose longer side exceeds 512 are reduced to it (bilinear, without
antialiasing, both sides rounded down). MUSIQ gives 0 to 100; values here are divided by 100, as
VBench does with its total but not with the values of its clips.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting, is_shared
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.weights import MUSIQ, frozen
from dfdbench.utils.assets import digest
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 512  # pixels of the longer side, at most
BATCH = {"cpu": 1, "cuda": 32}  # frames at once
DEFINITION = "pyiqa_musiq"  # the asset with the network's code


def load_network(device: str) -> Any:
    """MUSIQ with the weights, all of them, in evaluation mode.

    Raises:
        MissingWeights: the checkpoint or the network's definition is not here.
        UserError: they are others.
    """
    from dfdbench.evaluate.metrics.vbench.nets.definitions import load_definition

    network = load_definition(DEFINITION, "archs.musiq_arch").MUSIQ(pretrained=False)
    with MUSIQ.tensors() as state:
        network.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return frozen(network, device)


def preprocess(frames: np.ndarray, device: str = "cpu") -> "Tensor":
    """uint8 (T H W 3) to float32 (T 3 h w) in [0, 1], the longer side at most 512."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()
    height, width = pixels.shape[-2:]
    scale = SIDE / max(height, width)
    if scale < 1:
        size = int(scale * height), int(scale * width)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear")
    return pixels / 255


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    import torch

    from dfdbench.evaluate.metrics.joint import Joint

    network, device = load_network(setting.device), setting.device
    size = BATCH[device.split(":")[0]]
    joint = Joint(lambda x: network(x).flatten().cpu(), lambda _: size, is_shared(device))

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        scores = list[float]()
        for start in range(0, len(clip.frames), size):
            scores += joint(preprocess(clip.frames[start : start + size], device)).tolist()
        return {"imaging_quality": float(np.mean(scores) / 100)}

    return compute


FAMILY = dimension_family(
    "vbench_imaging_quality",
    dimension(
        "imaging_quality",
        "VBench (CVPR 2024), imaging_quality; MUSIQ, SPAQ, longer side at most 512; over 100",
        "Technical quality of the frames (blur, noise, exposure) as MUSIQ learned it from people's "
        "ratings of phone photographs: mean over frames of MUSIQ / 100. It can reward artefacts "
        "of distillation.",
    ),
    load=load,
    weights=(MUSIQ,),
    code=lambda: digest(DEFINITION),
    min_frames=1,
)
