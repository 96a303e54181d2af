"""VBench's human_action: a video classifier sees the action of the prompt in the clip.

Huang et al., "VBench" (2311.17982); Li et al., "Unmasked Teacher" (2303.16058), UMT-L/16 fine-tuned
on Kinetics-400, 16 frames. The value is 1 if the prompt's action is among the five most probable
classes, with a probability of at least 0.85 (each class has its own sigmoid), else 0. The network
is timm's vision transformer over the patches of all frames at once, with the checkpoint's own
embedding of their places; its queries and values have biases, its keys none.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.pixels import IMAGENET, normalised
from dfdbench.evaluate.metrics.vbench.nets.weights import UMT, frozen
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
FRAMES, SHORT_SIDE, SIZE, PATCH = 16, 256, 224, 16
TOP, LEAST = 5, 0.85
CATEGORIES = Path(__file__).with_name("kinetics400.txt")


class Classifier(NamedTuple):
    """The network. transformer: timm's; places: (1, 16 · 196, width), added to the patches."""

    transformer: Any
    places: "Tensor"


@cache
def categories() -> tuple[str, ...]:
    """The 400 classes in the order of the network's outputs, lower case."""
    return tuple(CATEGORIES.read_text(encoding="utf-8").splitlines())


def action_of(prompt: str) -> str | None:
    """The class that a prompt names: what VBench reads from a file called after it.

    That is what follows "person is ", up to the first "-" or "_". None where it is no class;
    VBench scores such a clip 0.
    """
    action = prompt.lower().split("-")[0].split("person is ")[-1].split("_")[0]
    return action if action in categories() else None


def load_network(device: str) -> Classifier:
    """The network with every tensor of the checkpoint, in evaluation mode, float32.

    Raises:
        MissingWeights: the checkpoint is not here.
        UserError: the file holds anything but these weights.
    """
    import torch
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        transformer = VisionTransformer(
            img_size=SIZE,
            patch_size=PATCH,
            num_classes=len(categories()),
            global_pool="avg",
            class_token=False,
            pos_embed="none",
            weight_init="skip",
            **ARCHITECTURE,
        )
    with UMT.tensors() as state:
        places = state.pop("pos_embed").float()
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)
        for name in [name for name in state if name.endswith("attn.q_bias")]:
            query, value = state.pop(name), state.pop(name.replace("q_bias", "v_bias"))
            bias = torch.cat((query, torch.zeros_like(query), value))
            state[name.replace("q_bias", "qkv.bias")] = bias
        transformer.load_state_dict(state, assign=True)
        patches = FRAMES * (SIZE // PATCH) ** 2
        if places.shape != (1, patches, ARCHITECTURE["embed_dim"]):
            raise ValueError("places of another number of frames")
    return Classifier(frozen(transformer, device), places.to(device))


def preprocess(frames: np.ndarray) -> "Tensor":
    """uint8 (T H W 3) RGB to float32 (T 3 224 224), -2.1 to 2.7.

    VBench's: shorter side to 256 by OpenCV (bilinear, uint8), the longer rounded down, centre crop.
    """
    import cv2
    import torch

    height, width = frames.shape[1:3]
    short = min(height, width)
    size = int(SHORT_SIDE * width / short), int(SHORT_SIDE * height / short)
    resized = np.stack(
        [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames]
    )
    left, top = (round((side - SIZE) / 2) for side in size)
    cropped = resized[:, top : top + SIZE, left : left + SIZE]
    return normalised(torch.from_numpy(cropped).permute(0, 3, 1, 2).float(), IMAGENET)


def probabilities(network: Classifier, pixels: "Tensor") -> "Tensor":
    """Probability of each class, (400,), of one clip's frames (16 3 224 224)."""
    transformer, places = network
    patches = transformer.patch_embed(pixels).flatten(0, 1)[None] + places
    return transformer.forward_head(transformer.norm(transformer.blocks(patches)))[0].sigmoid()


def seen(probability: "Tensor") -> set[str]:
    """The classes that count as seen: at most five, each of at least 0.85, rounded to 4 digits."""
    highest, classes = probability.topk(TOP)
    # VBench rounds before it compares
    return {
        categories()[i]
        for p, i in zip(highest.tolist(), classes.tolist(), strict=True)
        if round(p, 4) >= LEAST
    }


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    import torch

    network = load_network(setting.device)

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        action = action_of(clip.prompt or "")
        if action is None:
            return {}
        pixels = preprocess(clip.frames).to(setting.device)
        return {"human_action": float(action in seen(probabilities(network, pixels)))}

    return compute


FAMILY = dimension_family(
    "vbench_human_action",
    dimension(
        "human_action",
        "VBench (CVPR 2024), human_action: UMT-L/16 sees the prompt's Kinetics-400 class; "
        "none where the prompt names no class",
        "1 if a video classifier has the prompt's action among its five most probable of 400 with "
        "p ≥ 0.85, else 0; its mean is the share of clips that show their action.",
    ),
    load=load,
    weights=(UMT,),
    policy="middle16",
    needs=("prompt",),
    min_frames=1,
)
