"""Motion smoothness as VBench defines it: how well AMT-S predicts odd frames from the even ones.

Huang et al., "VBench", CVPR 2024, motion_smoothness; Li et al., "AMT: All-Pairs Multi-Field
Transforms for Efficient Frame Interpolation" (2304.09790). With the even frames E_k the network
predicts the frame halfway between E_k and E_{k+1}; e_k is the mean |prediction − frame 2k + 1| over
pixels and channels, the prediction cut to whole levels. Score: (255 − mean e_k) / 255. Always at
full size: VBench's Python interface shrinks clips on a GPU of little memory, its command does not.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting, is_shared
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.weights import AMT, frozen
from dfdbench.utils.assets import digest
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from torch import Tensor

NETWORK = {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}  # AMT-S.yaml
MULTIPLE = 16  # sides are padded to it
DEFINITION = "vbench_amt"  # the asset with the network's code


def load_network(device: str) -> Any:
    """AMT-S with its weights, all of them, in evaluation mode.

    Raises:
        MissingWeights: the checkpoint or the network's definition is not here.
        UserError: they are others.
    """
    from dfdbench.evaluate.metrics.vbench.nets.definitions import load_definition

    definition: Any = load_definition(DEFINITION, "third_party.amt.networks.AMT-S")
    definition.BidirCorrBlock = both_ways
    network = definition.Model(**NETWORK)
    with AMT.tensors() as state:
        network.load_state_dict(state["state_dict"])
    return frozen(network, device)


def both_ways(first: "Tensor", second: "Tensor", radius: int, num_levels: int) -> Any:
    """Instead of AMT's own correlation, which takes 1.2 s of 2.7 s a pair of 832 × 480 frames.

    Args:
        first, second: features of both frames (B C h w).

    Returns:
        What looks at the values around places in the second and in the first frame.
    """
    from dfdbench.evaluate.metrics.vbench.nets.correlation import Correlation

    forth = Correlation(first, second, num_levels, radius)
    back = Correlation(second, first, num_levels, radius)
    return lambda places_second, places_first: (forth(places_second), back(places_first))


def interpolated(network: Any, before: "Tensor", after: "Tensor") -> "Tensor":
    """The frames halfway, cut to whole levels.

    Args:
        before, after: float32 (B 3 H W), 0 to 255.

    Returns:
        uint8 (B 3 H W).
    """
    from dfdbench.evaluate.metrics.vbench.nets.pairs import cropped, padded

    height, width = before.shape[-2:]
    first, second = (padded(images / 255, MULTIPLE) for images in (before, after))
    middle = first.new_full((len(first), 1, 1, 1), 0.5)
    images = network(first, second, middle, eval=True)["imgt_pred"]
    return (cropped(images, height, width, MULTIPLE) * 255).clamp(0, 255).byte()


def errors_of(network: Any, before: "Tensor", between: "Tensor", after: "Tensor") -> "Tensor":
    """Mean |prediction − frame| of each frame between two others: (B,) float64, on the CPU.

    Args:
        before, between, after: uint8 (B H W 3).
    """
    from dfdbench.evaluate.metrics.vbench.nets.pairs import floats

    predicted = interpolated(network, floats(before), floats(after))
    return (predicted - floats(between)).abs().double().mean((1, 2, 3)).cpu()


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    import torch

    from dfdbench.evaluate.metrics.joint import Joint
    from dfdbench.evaluate.metrics.vbench.nets import pairs as frames_of

    network, device = load_network(setting.device), setting.device
    joint = Joint(
        lambda before, between, after: errors_of(network, before, between, after),
        lambda frames, *_: frames_of.fit_together(frames.shape[1:3], frames.device),
        shared=is_shared(device),
    )

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        total, height, width = clip.frames.shape[:3]
        if not frames_of.is_large_enough(height, width, MULTIPLE):
            return {}  # AMT's prediction is NaN there, which VBench takes for a black frame
        errors = list[float]()
        pairs = [(i, i + 2) for i in range(0, total - 2, 2)]
        for batch in frames_of.batches(pairs, height, width, device):
            first, last = batch[0][0], batch[-1][1]
            even = frames_of.on_device(clip.frames[first : last + 1 : 2], device)
            odd = frames_of.on_device(clip.frames[first + 1 : last : 2], device)
            errors += joint(even[:-1], odd, even[1:]).tolist()
        return {"motion_smoothness": float((255 - np.mean(errors)) / 255)}

    return compute


FAMILY = dimension_family(
    "vbench_motion_smoothness",
    dimension(
        "motion_smoothness",
        "VBench (CVPR 2024), motion_smoothness; AMT-S; none below 113 pixels a side",
        "How well AMT-S predicts each odd frame from its two neighbours: (255 − mean |prediction − "
        "frame|) / 255. Jerks lower it, and so does fast smooth motion.",
    ),
    load=load,
    weights=(AMT,),
    code=lambda: digest(DEFINITION),
    min_frames=3,
)
