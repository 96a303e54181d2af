"""Diversity and distribution distances of feature vectors: pure functions of arrays.

For values over one prompt's seeds, and pooled over prompts against a reference; used by
metrics/embedding.py. All work in float64, whatever the features' type.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

NEIGHBOURS = 3  # k of precision/recall; few clips leave no larger one meaningful
VENDI_FLOOR = 1e-12  # eigenvalues below are rounding


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of unit length (…, D), float64; a zero row stays zero."""
    features = np.asarray(features, np.float64)
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(norm > 0, norm, 1)


def _check(features: np.ndarray, axes: int, least: int) -> None:
    if features.ndim != axes:
        raise ValueError(f"features have {features.ndim} axes, need {axes}")
    if len(features) < least:
        raise ValueError(f"{len(features)} samples, need {least}")


def pairwise_diversity(features_LD: np.ndarray) -> float:
    """1 − mean cosine over pairs of L clips' vectors (L, D): 0 for equal ones, 1 for orthogonal.

    Source: 2606.18478 Eq. 26. Raises ValueError for fewer than two clips.
    """
    _check(features_LD, 2, 2)
    unit, count = _unit(features_LD), len(features_LD)
    # Σ_{i<j} cos = (‖Σ x‖² − Σ ‖x‖²) / 2
    pairs = (np.square(unit.sum(0)).sum() - np.square(unit).sum()) / 2
    return float(1 - 2 * pairs / (count * (count - 1)))


def per_frame_diversity(features_LTD: np.ndarray) -> float:
    """Eq. 26 at each frame index, averaged over frames: (L, T, D), frames matched by index."""
    _check(features_LTD, 3, 2)
    return float(np.mean([pairwise_diversity(frame) for frame in np.moveaxis(features_LTD, 1, 0)]))


def vendi(features_LD: np.ndarray) -> float:
    """Vendi score exp(−Σ λ log λ), λ the eigenvalues of the cosine kernel over L: 1 … L.

    Source: Friedman & Dieng 2023 (2210.02410), Eq. 2. It is an effective number of distinct clips.
    """
    _check(features_LD, 2, 1)
    unit = _unit(features_LD)
    eigenvalues = linalg.eigvalsh(unit @ unit.T / len(unit))
    eigenvalues = eigenvalues[eigenvalues > VENDI_FLOOR]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class Manifold(NamedTuple):
    """How a set of generated clips lies beside real ones, each in [0, 1] but density.

    precision: share of generated clips inside the real manifold; recall: of real clips inside the
    generated one (1904.06991). density: mean number of real balls around a generated clip, over k;
    coverage: share of real balls with a generated clip in them (2002.09797).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(
    real_ND: np.ndarray, generated_MD: np.ndarray, neighbours: int = NEIGHBOURS
) -> Manifold:
    """Improved precision and recall, density and coverage, with balls of the k-th neighbour.

    Balls are open (distance < radius), as in the package prdc. 1904.06991 and torch-fidelity close
    them (≤), which differs only for clips exactly on a ball: k + 1 equal clips have radius 0, and
    contain each other there, not here.

    Raises ValueError where a set has no k-th neighbour.
    """
    for features in (real_ND, generated_MD):
        _check(features, 2, neighbours + 1)
    real, generated = (np.asarray(x, np.float64) for x in (real_ND, generated_MD))
    radius_real, radius_generated = (_radii(x, neighbours) for x in (real, generated))
    distance = cdist(real, generated)
    in_real = distance < radius_real[:, None]
    in_generated = distance < radius_generated[None, :]
    return Manifold(
        precision=float(in_real.any(0).mean()),
        recall=float(in_generated.any(1).mean()),
        density=float(in_real.sum(0).mean() / neighbours),
        coverage=float((distance.min(1) < radius_real).mean()),
    )


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance to the k-th nearest other sample (N,)."""
    distance = cdist(features, features)
    return np.partition(distance, neighbours, axis=1)[:, neighbours]


def frechet_distance(real_ND: np.ndarray, generated_MD: np.ndarray) -> float:
    """‖μ − μ'‖² + tr(Σ + Σ' − 2 (ΣΣ')^½) of two sets' Gaussians (1706.08500, Eq. 6).

    With fewer samples than dimensions it still exists but is biased upwards: compare only equal
    numbers of clips. tr (ΣΣ')^½ is the sum of the singular values of A Bᵀ with Σ = AᵀA, which
    needs no matrix root and is exact for singular covariances.
    """
    for features in (real_ND, generated_MD):
        _check(features, 2, 2)
    a, b = (np.asarray(x, np.float64) for x in (real_ND, generated_MD))
    shift = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    root = linalg.svdvals(a @ b.T).sum()
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * root)
