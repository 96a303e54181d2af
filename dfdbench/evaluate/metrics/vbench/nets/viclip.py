"""ViCLIP-L: the cosine of a clip and its prompt, two of VBench's dimensions.

Wang et al., "InternVid" (2307.06942); VBench (2311.17982). The network is OpenAI's CLIP ViT-L/14
whose vision tower attends over the patches of 8 frames at once, with an embedding of the frame's
place added, and one class token; its text tower reads 32 tokens. Both towers are open_clip's
modules, which the checkpoint's tensors fit by name. Used by the family vbench_viclip.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, normalised
from dfdbench.evaluate.metrics.vbench.nets.weights import VICLIP, frozen

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "ViT-L-14-quickgelu"  # open_clip's name of the two towers
FRAMES, SIZE, TOKENS = 8, 224, 32


class ViCLIP(NamedTuple):
    """The network. towers: open_clip's CLIP; place: (8, width), added to each patch of a frame."""

    towers: Any
    place: "Tensor"


def load_network(device: str) -> ViCLIP:
    """The network with every tensor of the checkpoint, in evaluation mode, float32.

    Raises:
        MissingWeights: the checkpoint is not here.
        UserError: it holds anything but these weights.
    """
    import open_clip
    import torch

    config = open_clip.get_model_config(MODEL)
    config["text_cfg"] = config["text_cfg"] | {"context_length": TOKENS}
    with torch.device("meta"):
        towers = open_clip.CLIP(**config)
    with VICLIP.tensors() as content:
        state = {
            name.replace("vision_encoder.", "visual.").removeprefix("text_encoder."): tensor
            for name, tensor in content["model"].items()
        }
        place = state.pop("visual.temporal_positional_embedding").float()[0]
        state["visual.conv1.weight"] = state["visual.conv1.weight"].squeeze(2)  # one frame deep
        state["logit_scale"] = -state.pop("temp").log()
        towers.load_state_dict(state, assign=True)
        if place.shape != (FRAMES, towers.visual.class_embedding.shape[0]):
            raise ValueError("another number of frames")
    # a mask is no weight, so assigning the weights left it on the meta device
    towers.attn_mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS)
    return ViCLIP(frozen(towers, device), place.to(device))


def preprocess(frames: np.ndarray) -> "Tensor":
    """uint8 (T H W 3) RGB to float32 (T 3 224 224), -1.8 to 2.2.

    VBench's: bicubic without antialiasing, rounded to uint8 again, centre crop.
    """
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as vision

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    pixels = vision.resize(pixels, [SIZE], InterpolationMode.BICUBIC, antialias=False)
    return normalised(vision.center_crop(pixels, [SIZE]).float(), CLIP)


def encode_video(network: ViCLIP, pixels: "Tensor") -> "Tensor":
    """Embedding (D,) of one clip's frames (8 3 224 224), not normalised."""
    import torch

    visual = network.towers.visual
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (8, patches, width)
    patches = patches + visual.positional_embedding[1:] + network.place[:, None]
    token = visual.class_embedding + visual.positional_embedding[0]
    x = torch.cat((token[None], patches.flatten(0, 1)))[None]
    x = visual.transformer(visual.ln_pre(x))
    return visual.ln_post(x[0, 0]) @ visual.proj


def encode_text(network: ViCLIP, text: str) -> "Tensor":
    """Embedding (D,) of a prompt, cut to 32 tokens, not normalised."""
    from open_clip.tokenizer import SimpleTokenizer

    tokens = SimpleTokenizer(context_length=TOKENS)(text).to(network.place.device)
    return network.towers.encode_text(tokens)[0]


def is_cut(text: str) -> bool:
    """Whether a prompt has more tokens than the text tower reads, its two marks included."""
    from open_clip.tokenizer import SimpleTokenizer

    return len(SimpleTokenizer().encode(text)) + 2 > TOKENS
