"""Imaging quality as VBench defines it: the mean over frames of MUSIQ trained on SPAQ.

Huang et al., "VBench", CVPR 2024, imaging_quality; Ke et al., "MUSIQ: Multi-scale Image Quality
Transformer", ICCV 2021. Frames whose longer side exceeds 512 are reduced to it (bilinear, without
antialiasing, both sides rounded down). MUSIQ gives 0 to 100; values here are divided by 100, as
VBench does with its total but not with the values of its clips.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.utils.assets import digest
from dfdbench.utils.vbench_weights import read_state, vbench_digest, vbench_file, vbench_unusable
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SIDE = 512  # pixels of the longer side, at most
BATCH = {"cpu": 1, "cuda": 32}  # frames at once
DEFINITION, WHAT = "pyiqa_musiq", "MUSIQ trained on SPAQ"


def musiq_file() -> "Path":
    """The checkpoint in VBench's cache; raises MissingWeights."""
    return vbench_file("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth", what=WHAT)


def find(setting: Setting) -> str:
    """sha256 of the weights; raises MissingWeights, for the network's definition too."""
    digest(DEFINITION)
    return vbench_digest(musiq_file())


def load_network(device: str) -> Any:
    """MUSIQ with the weights, all of them, in evaluation mode.

    Raises:
        MissingWeights: the checkpoint or the network's definition is not here.
        UserError: they are others.
    """
    from dfdbench.evaluate.metrics.vbench.nets.definitions import load_definition

    file = musiq_file()
    network = load_definition(DEFINITION, "archs.musiq_arch").MUSIQ(pretrained=False)
    state = {k.removeprefix("module."): v for k, v in read_state(file, WHAT).items()}
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise vbench_unusable(file, f"the checkpoint of {WHAT}") from error
    return network.eval().requires_grad_(False).to(device)


def preprocess(frames: np.ndarray) -> "Tensor":
    """uint8 (T H W 3) to float32 (T 3 h w) in [0, 1], the longer side at most 512."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    height, width = pixels.shape[-2:]
    scale = SIDE / max(height, width)
    if scale < 1:
        size = int(scale * height), int(scale * width)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear")
    return pixels / 255


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    import torch

    network, device = load_network(setting.device), setting.device
    size = BATCH[device.split(":")[0]]

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        scores = list[float]()
        for start in range(0, len(clip.frames), size):
            images = preprocess(clip.frames[start : start + size]).to(device)
            scores += network(images).flatten().tolist()
        return {"imaging_quality": float(np.mean(scores) / 100)}

    return compute


FAMILY = MetricFamily(
    "vbench_imaging_quality",
    policy="all",
    metrics=(
        Metric(
            "imaging_quality",
            "higher",
            "",
            (0.0, 1.0),
            "VBench (CVPR 2024), imaging_quality; MUSIQ, SPAQ, longer side at most 512; over 100",
            "vbench_imaging_quality",
        ),
    ),
    load=load,
    find=find,
    model=True,
    min_frames=1,
)
