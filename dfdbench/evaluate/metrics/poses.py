"""What every family of camera poses shares: the figures of a clip, the spread of a prompt's seeds.

Used by camera.py (built-in estimator) and vipe.py (ViPE's saved poses); the formulas are those of
dfdbench.evaluate.metrics.camera_geometry, under the family's name.
"""

from collections.abc import Sequence

import numpy as np

from dfdbench.evaluate.metrics import camera_geometry as camera
from dfdbench.evaluate.metrics.base import GroupValue, Metric, Reading

B33 = "2606.18478 B.3.3"
MORE = "higher is more diverse"
FAR = 1e9  # no path has a longest length


def clip_values(name: str, poses: np.ndarray) -> dict[str, float | np.ndarray]:
    """The array of poses (T, 4, 4), float64, and the figures of its path."""
    figures = camera.path_figures(poses)._asdict()
    return {f"{name}_poses": poses, **{f"{name}_{key}": value for key, value in figures.items()}}


def group_values(name: str, readings: Sequence[Reading]) -> dict[str, GroupValue]:
    """Spread over the clips of one prompt that have poses; nothing for fewer than two."""
    arrays = (reading.get(f"{name}_poses") for reading in readings)
    poses = [array for array in arrays if isinstance(array, np.ndarray)]
    if len(poses) < 2:
        return {}
    raw = camera.spread([camera.trajectory(p) for p in poses])
    normalised = camera.spread([camera.trajectory(p, normalised=True) for p in poses])
    values = {f"{name}_{key}": value for key, value in raw._asdict().items()}
    values |= {f"{name}_{key}_normalised": value for key, value in normalised._asdict().items()}
    return {key: GroupValue(v, len(poses)) for key, v in values.items() if not np.isnan(v)}


def pose_metrics(name: str, unit: str, source: str) -> tuple[Metric, ...]:
    """The metrics of one source of poses: array, figures of a clip, spread of a prompt.

    unit: of lengths. source: where the poses come from, in a line.
    """

    def of_clip(suffix: str, unit: str, high: float, formula: str, what: str) -> Metric:
        return Metric(
            f"{name}_{suffix}", "nearest_reference", unit, (0.0, high),
            f"{B33}, {formula}; {source}", f"{what}: {formula}.",
        )  # fmt: skip

    def over_seeds(suffix: str, unit: str, high: float, formula: str) -> Metric:
        what = "How far the camera paths of one prompt's clips lie apart"
        return Metric(
            f"{name}_{suffix}", "higher", unit, (0.0, high), f"{B33}, {formula}; {MORE}; {source}",
            f"{what}: {formula}.", level="prompt",
        )  # fmt: skip

    spreads = {
        "endpoint_spread": "‖std‖ of the seeds' last positions",
        "endpoint_distance": "mean distance of two seeds' last positions",
        "trajectory_distance": "mean distance of two seeds' positions at equal frames",
    }
    per_path = "over the length of each path"
    return (
        Metric(
            f"{name}_poses", "nearest_reference", unit, (-np.inf, np.inf),
            f"{B33}, camera to world, 4 × 4; {source}",
            "The camera's pose in each frame: a matrix from camera to world coordinates.",
            kind="array",
        ),
        of_clip("path_length", unit, FAR, "Σ ‖p_{t+1} − p_t‖", "How far the camera travels"),
        of_clip(
            "max_displacement", unit, FAR, "max ‖p_t − p_0‖",
            "How far the camera gets from where it starts",
        ),
        of_clip(
            "max_displacement_normalised", "", 1.0, f"max ‖p_t − p_0‖ {per_path}",
            "How straight the camera's way out is, 1 for a line",
        ),
        of_clip("total_rotation", "°", FAR, "Σ ∠(R_{t+1} R_tᵀ)", "How much the camera turns"),
        of_clip(
            "max_rotation", "°", 180.0, "max ∠(R_t R_0ᵀ)",
            "How far the camera turns from where it first looks",
        ),
        *(over_seeds(key, unit, FAR, formula) for key, formula in spreads.items()),
        *(
            over_seeds(f"{key}_normalised", "", 2.0, f"{formula}, {per_path}")
            for key, formula in spreads.items()
        ),
    )  # fmt: skip
