"""VBench's formulas over the features of a clip's frames (T, D), and the means over clips.

Huang et al., "VBench", CVPR 2024 (2311.17982), and VBench++ (2411.13503) for I2V. Used by the
families of subject_consistency, background_consistency, i2v_subject and i2v_background.
"""

from collections.abc import Sequence

import numpy as np

from dfdbench.evaluate.metrics.base import Compute
from dfdbench.evaluate.metrics.embedding import Embed
from dfdbench.utils.video import Clip

WEIGHT_MAX, WEIGHT_MEAN, WEIGHT_MIN = 0.4, 0.3, 0.3


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[cos(a_t, b_t)]₊ for rows of a (T, D) and of b, (T, D) or (D)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.maximum(0, (a * b).sum(-1) / norms)


def consistency(features: np.ndarray) -> float:
    """Mean over t ≥ 2 of s_t = ½([cos(f_t, f_{t−1})]₊ + [cos(f_t, f_1)]₊), 0 to 1.

    Args:
        features: one vector a frame (T, D), T at least 2, none of them zero.
    """
    to_previous = _cosines(features[1:], features[:-1])
    to_first = _cosines(features[1:], features[0])
    return float((to_previous + to_first).mean() / 2)


def conformity(image: np.ndarray, features: np.ndarray) -> float:
    """0.4 max c + 0.3 mean k + 0.3 min k, 0 to 1: agreement with the image that the clip starts at.

    c_t = [cos(image, f_t)]₊ over all frames, k_t = [cos(f_{t−1}, f_t)]₊ over t ≥ 2.

    Args:
        image: the vector of the conditioning image (D).
        features: one vector a frame (T, D), T at least 2, none of them zero.
    """
    to_image = _cosines(features, image)
    to_previous = _cosines(features[1:], features[:-1])
    return float(
        WEIGHT_MAX * to_image.max()
        + WEIGHT_MEAN * to_previous.mean()
        + WEIGHT_MIN * to_previous.min()
    )


def consistency_of(dimension: str, embed: Embed) -> Compute:
    """A family's function: `consistency` of a clip, and the frames that it is the mean of."""

    def compute(clip: Clip) -> dict[str, float]:
        score = consistency(embed(clip.frames))
        return {dimension: score, f"{dimension}_frames": float(len(clip.frames) - 1)}

    return compute


def conformity_of(dimension: str, embed_images: Embed, embed_frames: Embed) -> Compute:
    """A family's function: `conformity` of a clip to its image; nothing for one without."""

    def compute(clip: Clip) -> dict[str, float]:
        if clip.image is None:
            return {}
        image = embed_images(clip.image[None])[0]
        return {dimension: conformity(image, embed_frames(clip.frames))}

    return compute


def frame_weighted(values: Sequence[float], frames: Sequence[float]) -> float:
    """Σ frames · value / Σ frames: what VBench calls the score of several clips of a dimension.

    Args:
        values: one mean over frames a clip. frames: over how many frames (`<dimension>_frames`).
    """
    return float(np.average(values, weights=frames))
