"""LPIPS between a prompt's seeds: perceptual distance of matched frames, AlexNet, heads v0.1.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018:
d(a, b) = Σ_l mean_hw Σ_c w_lc (â_lchw − b̂_lchw)², with features of unit length over channels. As
w ≥ 0, this is ‖u(a) − u(b)‖² for u = √(w_lc / (H_l W_l)) · â, so one vector a frame holds all that
pairs need. Frames are squeezed to 64 × 64 (means over pixel areas), the size of the patches on
which the heads were trained.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dfdbench.evaluate.metrics.base import (
    Compute,
    GroupValue,
    Metric,
    MetricFamily,
    Reading,
    Setting,
)
from dfdbench.utils.assets import digest, locate, unusable
from dfdbench.utils.errors import pass_out_of_memory
from dfdbench.utils.pickles import read_plain_pickle
from dfdbench.utils.video import Clip

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 64
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in −1 … 1; LPIPS v0.1
EPSILON = 1e-10
# channels in and out, kernel, stride, padding, and whether a 3 × 3 pooling of stride 2 comes first
LAYERS = (
    (3, 64, 11, 4, 2, False),
    (64, 192, 5, 1, 2, True),
    (192, 384, 3, 1, 1, True),
    (384, 256, 3, 1, 1, False),
    (256, 256, 3, 1, 1, False),
)
FEATURES = "lpips_alex_features"
Embed = Callable[[np.ndarray], np.ndarray]  # uint8 (T 64 64 3) -> float32 (T, D)


def load_backbone() -> list[tuple["Tensor", "Tensor"]]:
    """Kernels (out, in, k, k) and biases (out,) of AlexNet's five convolutions, float32."""
    import torch

    file = locate("lpips_alexnet") / "weights/alexnet.ckpt"
    try:
        layers = read_plain_pickle(file)["AlexNet_0"]
        weights = []
        for i, (channels, out, size, *_) in enumerate(LAYERS):
            kernel = np.ascontiguousarray(layers[f"Conv_{i}"]["kernel"].transpose(3, 2, 0, 1))
            bias = layers[f"Conv_{i}"]["bias"]
            if (kernel.shape, bias.shape) != ((out, channels, size, size), (out,)):
                raise ValueError(f"Conv_{i} has another shape")
            weights.append((torch.from_numpy(kernel).float(), torch.tensor(bias).float()))
    except Exception as error:  # a broken pickle raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(file, "lpips_alexnet", "the file of that release") from error
    return weights


def load_heads() -> list["Tensor"]:
    """√w of each layer's channels, (1, channels, 1, 1), float32; w is never negative."""
    import torch

    file = locate("lpips_heads") / "weights/v0.1/alex.pth"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        heads = [state[f"lin{i}.model.1.weight"].float() for i in range(len(LAYERS))]
        shapes = [(1, out, 1, 1) for _, out, *_ in LAYERS]
        if [tuple(head.shape) for head in heads] != shapes or min(h.min() for h in heads) < 0:
            raise ValueError("other heads")
    except Exception as error:  # torch raises many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise unusable(file, "lpips_heads", "the file of that release") from error
    return [head.sqrt() for head in heads]


def load_embed(device: str) -> Embed:
    """u: ‖u(a) − u(b)‖² is LPIPS of two frames. Raises MissingWeights, or UserError for others."""
    import torch
    from torch.nn import functional

    weights = [(kernel.to(device), bias.to(device)) for kernel, bias in load_backbone()]
    heads = [head.to(device) for head in load_heads()]
    shift, scale = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (SHIFT, SCALE))

    @torch.inference_mode()
    def embed(frames: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float()
        x = (pixels / 127.5 - 1 - shift) / scale
        parts = []
        for (*_, stride, padding, pool), (kernel, bias), head in zip(
            LAYERS, weights, heads, strict=True
        ):
            x = functional.max_pool2d(x, 3, 2) if pool else x
            x = functional.conv2d(x, kernel, bias, stride, padding).relu()
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)
            parts.append((unit * head / x[0, 0].numel() ** 0.5).flatten(1))
        return torch.cat(parts, 1).cpu().numpy()

    return embed


def squeezed(frames: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) at 64 × 64, means over pixel areas."""
    import cv2

    size = SIZE, SIZE
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def load(setting: Setting) -> Compute:
    """The family's function, with the network on the setting's device."""
    embed = load_embed(setting.device)

    def compute(clip: Clip) -> dict[str, np.ndarray]:
        return {FEATURES: embed(squeezed(clip.frames)).astype(np.float16)}

    return compute


def mean_pairwise(clips: Sequence[np.ndarray]) -> float:
    """Mean ‖u_i − u_j‖² over pairs of L clips' frames, each clip (T, D): twice Σ_D of the variance.

    In float64, one frame at a time: L × T × D numbers would be large.
    """
    frames = zip(*clips, strict=True)
    return float(np.mean([2 * np.var(u_LD, 0, np.float64, ddof=1).sum() for u_LD in frames]))


def group(readings: Sequence[Reading], attributes: Mapping[str, str]) -> dict[str, GroupValue]:
    """LPIPS over pairs of seeds; left out for fewer than two, or where they differ in frames."""
    clips = [r[FEATURES] for r in readings if isinstance(r[FEATURES], np.ndarray)]
    if len(clips) < 2 or len({clip.shape for clip in clips}) > 1:
        return {}
    return {"lpips_alex_diversity": GroupValue(mean_pairwise(clips), len(clips))}


SOURCE = "LPIPS v0.1 (CVPR 2018), AlexNet, 64 px"

FAMILY = MetricFamily(
    "lpips_alex",
    policy="even16",
    metrics=(
        Metric(
            FEATURES, "nearest_reference", "", (0.0, np.inf),
            SOURCE,
            "One vector a frame; the squared distance of two is LPIPS of their frames.",
            kind="array",
        ),
        Metric(
            "lpips_alex_diversity", "higher", "", (0.0, np.inf),
            f"{SOURCE}, mean over pairs of a prompt's seeds and matched frames",
            "How different the clips of one prompt look from seed to seed: mean LPIPS of frames of "
            "equal number over all pairs of seeds.",
            level="prompt",
        ),
    ),
    load=load,
    find=lambda setting: digest("lpips_alexnet", "lpips_heads"),
    group=group,
    model=True,
    min_frames=1,
    default=True,
)  # fmt: skip
