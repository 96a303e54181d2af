"""EfficientNet-Lite2 features: ImageNet weights that come in a package, so they work offline.

Never to be read as CLIP or DINO: another network, other distances. Frames are squeezed to 260 × 260
(bicubic, antialiased), (x − 127) / 128; the vector is the mean of the last feature map (1280).
"""

from typing import TYPE_CHECKING

import numpy as np

from dfdbench.evaluate.metrics.base import Setting
from dfdbench.evaluate.metrics.embedding import Embed, batched, embedding_family
from dfdbench.utils.assets import digest, locate, unusable
from dfdbench.utils.errors import pass_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

SIZE, DIMENSION = 260, 1280
WEIGHTS = "models/efficientnet-lite2-9656183e.pth"


def preprocess(frames: np.ndarray) -> "Tensor":
    """uint8 (T H W 3) RGB to float32 (T 3 260 260) in [-0.993, 1]; bicubic overshoot is clipped."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="bicubic", antialias=True)
    return (resized.clamp(0, 255) - 127) / 128


def load(setting: Setting) -> Embed:
    """The network with its packaged weights, in evaluation mode.

    Raises:
        MissingWeights: the weights or the package of the network's code are not installed.
        UserError: the file holds other weights.
    """
    import torch

    file = locate("effnet_lite2") / WEIGHTS
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite2")
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(file, "effnet_lite2", "the weights of EfficientNet-Lite2") from error
    network.eval().requires_grad_(False).to(setting.device)

    return batched(
        lambda frames: preprocess(frames).to(setting.device),
        lambda pixels: network.extract_features(pixels).mean((2, 3)),
        setting.device,
    )


FAMILY = embedding_family(
    "effnet_lite2",
    "EfficientNet-Lite2, ImageNet, 260 px, mean of the last feature map",
    load,
    lambda setting: digest("effnet_lite2"),
    default=True,
)
