"""Geometry of camera paths: figures of one clip's poses, distances between the clips of a prompt.

Used by the families that give poses (metrics/poses.py). A pose is a 4 × 4 matrix from camera to
world coordinates, in the convention of OpenCV (x right, y down, z forward), [[R, p], [0, 1]]. The
figures are those of 2606.18478, B.3.3. A path from one camera has no scale of its own, so each
distance also exists in a form that is divided by the length of the path.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation


class PathFigures(NamedTuple):
    """One clip's camera path.

    path_length: Σ ‖p_{t+1} − p_t‖. max_displacement: max ‖p_t − p_0‖. Both in the poses' unit.
    max_displacement_normalised: their quotient in [0, 1], 1 for a straight way out; NaN for a
    camera that stays where it is. total_rotation: Σ ∠(R_{t+1} R_tᵀ). max_rotation: max ∠(R_t R_0ᵀ),
    at most 180. Both in degrees.
    """

    path_length: float
    max_displacement: float
    max_displacement_normalised: float
    total_rotation: float
    max_rotation: float


class Spread(NamedTuple):
    """How far the paths of a prompt's clips lie apart, in the unit of the trajectories.

    endpoint_spread: ‖std_i e_i‖ of the last positions e_i, standard deviation of the L clips
    themselves (no L − 1). endpoint_distance: mean ‖e_i − e_j‖ over pairs. trajectory_distance: mean
    over pairs and frames of ‖p_t,i − p_t,j‖; NaN where clips differ in frames.
    """

    endpoint_spread: float
    endpoint_distance: float
    trajectory_distance: float


def relative_to_first(poses: np.ndarray) -> np.ndarray:
    """Poses (T, 4, 4) in the coordinates of their first camera: the first becomes the identity."""
    return np.linalg.inv(poses[0]) @ poses


def angles(rotations: np.ndarray) -> np.ndarray:
    """Rotation angles in degrees, 0 … 180, of matrices (N, 3, 3)."""
    return np.degrees(Rotation.from_matrix(rotations).magnitude())


def path_figures(poses: np.ndarray) -> PathFigures:
    """The figures of poses (T, 4, 4), T at least 2, whatever their world coordinates."""
    position, rotation = poses[:, :3, 3], poses[:, :3, :3]
    length = _length(position)
    furthest = float(np.linalg.norm(position - position[0], axis=1).max())
    return PathFigures(
        path_length=length,
        max_displacement=furthest,
        max_displacement_normalised=furthest / length if length > 0 else float("nan"),
        total_rotation=float(angles(rotation[1:] @ rotation[:-1].swapaxes(1, 2)).sum()),
        max_rotation=float(angles(rotation @ rotation[0].T).max()),
    )


def trajectory(poses: np.ndarray, normalised: bool = False) -> np.ndarray:
    """Positions (T, 3) seen from the first camera of poses (T, 4, 4), so they start at 0.

    normalised: in units of the path's length; a camera that stays where it is stays at 0.
    """
    position = relative_to_first(poses)[:, :3, 3]
    length = _length(position) if normalised else 1.0
    return position / length if length > 0 else position


def spread(trajectories: Sequence[np.ndarray]) -> Spread:
    """Distances between L trajectories (T, 3) that start at 0; clips may differ in T.

    An endpoint is a clip's own last position. Raises ValueError for fewer than two clips.
    """
    if len(trajectories) < 2:
        raise ValueError(f"{len(trajectories)} trajectories, need 2")
    ends = np.stack([t[-1] for t in trajectories])
    same = all(len(a) == len(b) for a, b in pairwise(trajectories))
    frames = np.stack(trajectories, axis=1) if same else ()
    return Spread(
        endpoint_spread=float(np.linalg.norm(ends.std(0))),
        endpoint_distance=float(pdist(ends).mean()),
        trajectory_distance=float(np.mean([pdist(f).mean() for f in frames]))
        if same
        else float("nan"),
    )


def _length(position: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(position, axis=0), axis=1).sum())
