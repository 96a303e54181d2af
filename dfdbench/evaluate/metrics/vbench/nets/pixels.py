"""Frames as VBench's networks see them: torchvision's resize and crop, then a mean and a deviation.

Used by dino.py, clip.py and dreamsim.py. VBench resizes float32 frames of 0 to 255 and clamps
nothing: bicubic overshoot stays. Its T2V code resizes without antialiasing, its I2V code with.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def resized(
    frames: np.ndarray,
    size: int | tuple[int, int],
    mode: Literal["bilinear", "bicubic"],
    antialias: bool,
    crop: int | None = None,
) -> "Tensor":
    """Frames scaled to `size`, then the centre square cut out.

    Args:
        frames: uint8 (T H W 3).
        size: length of the shorter side (the longer is rounded down), or (height, width).
        crop: side of the square; None: the whole frame.

    Returns:
        float32 (T 3 h w), 0 to 255 and, for bicubic, somewhat beyond.
    """
    import torch
    from torchvision.transforms import InterpolationMode, functional

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    sides = [size] if isinstance(size, int) else list(size)
    scaled = functional.resize(pixels, sides, InterpolationMode(mode), antialias=antialias)
    return scaled if crop is None else functional.center_crop(scaled, [crop, crop])


def resized_by_pillow(
    frames: np.ndarray, size: int | tuple[int, int], crop: int | None = None
) -> "Tensor":
    """The same for what VBench reads as images: Pillow's bicubic, antialiased, rounded to uint8.

    Returns:
        float32 (T 3 h w), whole numbers from 0 to 255.
    """
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode, functional

    sides = [size] if isinstance(size, int) else list(size)
    images = []
    for frame in frames:
        image = functional.resize(Image.fromarray(frame), sides, InterpolationMode.BICUBIC)
        image = image if crop is None else functional.center_crop(image, [crop, crop])
        images.append(functional.pil_to_tensor(image))
    return torch.stack(images).float()


def normalised(pixels: "Tensor", statistics: Statistics) -> "Tensor":
    """(x / 255 − mean) / deviation for each channel of (T 3 H W)."""
    from torchvision.transforms import functional

    return functional.normalize(pixels / 255, *map(list, statistics))
