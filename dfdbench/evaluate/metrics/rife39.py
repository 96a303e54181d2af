"""Motion smoothness by RIFE 3.9, whose weights come in a package; not to be read as VBench's.

Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022,
network IFNet_HDv3 of release 3.9, with the rule of VBench's motion_smoothness around it: each odd
frame is predicted from its two neighbours, e is the mean |prediction − frame| over pixels and
channels, and the score is (255 − mean e) / 255. VBench predicts with AMT-S, at full size. Here at
most 16 odd frames, evenly spaced, are predicted, and frames are reduced (pixel areas) to a short
side of at most 256; both save time. Fast smooth motion also has a larger e than slow: the error
relative to that of a plain blend of the neighbours tells the two apart.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Metric, MetricFamily, Setting
from dfdbench.utils.assets import digest, locate, unusable
from dfdbench.utils.errors import pass_out_of_memory
from dfdbench.utils.video import Clip, frame_indices, reduced

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 256  # pixels of the short side, at most
MULTIPLE = 64  # the coarsest scale that the network may choose needs sides divisible by it
PACKAGE = "_dfdbench_rife39"  # under which the network's files import each other
TEACHER = "block_tea."  # a part that only training uses


def middle_frames(total: int) -> np.ndarray:
    """Numbers of the odd frames that are predicted: at most 16, evenly spaced; int, rising."""
    odd = np.arange(1, total - 1, 2)
    return odd[frame_indices(len(odd), "even16")]


def load_network(device: str) -> Any:
    """IFNet with its packaged weights, every one of them, in evaluation mode.

    Raises:
        MissingWeights: its files are not here.
        UserError: they are others (by `locate`, so no other code is ever run).
    """
    import torch

    folder = locate("rife39")
    network = _definition(folder).IFNet(device)
    file = folder / "flownet.pkl"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        named = {key.removeprefix("module."): value for key, value in state.items()}
        network.load_state_dict({k: v for k, v in named.items() if not k.startswith(TEACHER)})
    except Exception as error:  # torch raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(file, "rife39", "the file of that release") from error
    return network.eval().requires_grad_(False).to(device)


def _definition(folder: Path) -> Any:
    """The module IFNet_HDv3, without its package's __init__, which needs VapourSynth.

    Its relative imports need a parent package: one of our own name, for as long as they run.
    """
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    try:
        return import_module(f"{PACKAGE}.IFNet_HDv3")
    finally:
        for name in [n for n in sys.modules if n == PACKAGE or n.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]


def _tensor(frame: np.ndarray) -> "Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255


def interpolate(network: Any, before: "Tensor", after: "Tensor") -> "Tensor":
    """The frame halfway between two, each (1, 3, H, W) in [0, 1]; borders are repeated to fit."""
    import torch

    height, width = before.shape[-2:]
    pair = torch.cat((before, after), 1).to(network.device)
    margin = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    padded = torch.nn.functional.pad(pair, margin, mode="replicate")
    # The network changes this list where motion is large. It decides so for a whole batch: with
    # one pair a batch, no pair's prediction depends on another.
    scales = [8, 4, 2, 1]
    merged = network(padded, 0.5, scales)[2][3]
    return merged[..., :height, :width].to(before.device)


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    import torch

    network = load_network(setting.device)

    def error(prediction: "Tensor", truth: "Tensor") -> float:
        # Rounded, as frames of a video are: a still clip's small errors vanish, all but a few.
        levels = (prediction.clamp(0, 1) * 255).round() - (truth * 255).round()
        return float(levels.abs().double().mean())

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        rife, blend = [], []
        for i in middle_frames(len(clip.frames)):
            before, truth, after = (
                _tensor(reduced(clip.frames[j], SIDE)) for j in (i - 1, i, i + 1)
            )
            rife.append(error(interpolate(network, before, after), truth))
            blend.append(error((before + after) / 2, truth))
        values = {"rife39_motion_smoothness": float((255 - np.mean(rife)) / 255)}
        if sum(blend) > 0:
            values["rife39_error_to_blend"] = sum(rife) / sum(blend)
        return values

    return compute


SOURCE = "RIFE 3.9 at a short side of 256, at most 16 odd frames predicted from their neighbours"

FAMILY = MetricFamily(
    "rife39",
    policy="all",
    metrics=(
        Metric(
            "rife39_motion_smoothness", "higher", "", (0.0, 1.0),
            f"{SOURCE}; VBench's formula of motion_smoothness",
            "How well RIFE predicts odd frames from their two neighbours: (255 − mean |prediction "
            "− frame|) / 255. Jerks lower it, and so does fast smooth motion.",
        ),
        Metric(
            "rife39_error_to_blend", "lower", "", (0.0, np.inf),
            f"{SOURCE}; its error over that of the neighbours' mean; none for a still clip",
            "RIFE's error in predicting odd frames over that of the plain mean of their two "
            "neighbours: low for smooth motion, however fast.",
        ),
    ),
    load=load,
    find=lambda setting: digest("rife39"),
    model=True,
    min_frames=3,
    default=True,
)  # fmt: skip
