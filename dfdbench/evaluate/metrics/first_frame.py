"""How well an image-to-video clip keeps the picture that it was given: PSNR of its first frame.

    PSNR = 10 log10(255² / mean (frame 1 − picture)²)

over all pixels and channels of 8-bit RGB. A picture of another size is fitted as it was for the
model: resized to cover the frame, centre kept. The autoencoder alone bounds it: compare with the
arm `real`.
"""

import numpy as np

from dfdbench.evaluate.metrics.base import Metric, MetricFamily, plain
from dfdbench.utils.video import Clip

MOST = 100.0  # dB, of equal pictures, whose ratio is infinite


def psnr(frames: np.ndarray, given: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures; infinite if they are equal."""
    error = np.mean((frames.astype(np.float64) - given) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def compute(clip: Clip) -> dict[str, float]:
    """The family's one value of a clip; none without a picture."""
    from dfdbench.utils.video import fit

    if clip.image is None:
        return {}
    first = clip.frames[0]
    return {"first_frame_psnr": min(psnr(first, fit(clip.image[None], *first.shape[:2])[0]), MOST)}


FAMILY = MetricFamily(
    "first_frame",
    policy="all",
    metrics=(
        Metric(
            "first_frame_psnr", "higher", "dB", (0.0, MOST),
            "PSNR of the first frame against the given picture; 100 where they are equal",
            "How well a clip's first frame keeps the picture that it was given: "
            "10 log10(255² / mean squared error). The autoencoder alone bounds it.",
        ),
    ),
    load=plain(compute),
    needs=("image",),
    dtype="uint8",
    min_frames=1,
)  # fmt: skip
