"""Camera path by a built-in monocular estimator: corner tracks and essential matrices (OpenCV).

An offline stand-in for ViPE, which 2606.18478 B.3.3 uses (vipe.py reads its poses); never to be
read as ViPE. For each two adjacent frames of 16 evenly spaced ones: corners spread evenly over the
picture are tracked (Lucas-Kanade, there and back), then the simplest motion is taken that the
majority of tracks follows:

  still      the median track moves less than 0.3 pixels: the same pose;
  rotation   y ~ K R K⁻¹ x explains nearly as many tracks as an essential matrix: no translation;
  general    essential matrix (five points, USAC with a fixed seed), R and t by points in front.

Otherwise the pair has failed: the camera is taken to stand still in it and `camera_failure_rate`
counts it. A clip that fails in more than half of its pairs has no poses.

Intrinsics are guessed: focal length 0.9 times the longer side (58° across), principal point in the
middle. A true focal length of 0.7 or 1.2 put the angle of pans, tilts and orbits in a rendered room
off by up to a third, directions of steps by at most 2°. Scale: t of each pair is divided by the
median depth of its tracks in the first of the two frames, so lengths count median scene depths,
pair by pair. Nothing is carried over a pair, so a failed one spoils no later one.

What it cannot do: a subject that moves in front of a fixed, far background looks in two frames like
a near one that a moving camera passes, so clips that moving subjects fill are unreliable.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from dfdbench.evaluate.metrics.base import GroupValue, Metric, MetricFamily, Reading, plain
from dfdbench.evaluate.metrics.poses import clip_values, group_values, pose_metrics
from dfdbench.utils.video import Clip

# Chosen by how well the 40 released clips, played backwards, give the same path, and on the toy.
SIDE = 512  # longer side that frames are brought to, pixels; all pixels below are of this picture
MAX_ENLARGEMENT = 4.0  # of small frames, whose corners are too near for the tracker's window
CELL, PER_CELL = 32, 4  # the picture's cells in pixels, and the most corners of a cell
TEXTURE = 5e-5  # least minimal eigenvalue (cv2.cornerMinEigenVal) of a corner; below is noise
BORDER = 5  # pixels along the edge without corners, whose windows would lie half outside
WINDOW, LEVELS = 21, 4  # of the tracker
ROUND_TRIP = 0.5  # pixels that a track there and back may miss its start
STILL = 0.3  # pixels
INLIER = 0.75  # pixels from the place, or the epipolar line, that a motion foretells
ROTATION_SHARE = 0.9  # of the essential matrix's inliers that make a rotation the better choice
MIN_TRACKS = 20
MIN_SHARE = 0.5  # of the tracks that must follow a motion
FOCAL = 0.9  # over the longer side
FAR = 1e6  # baselines; OpenCV's default of 50 drops the points of a slow camera as infinite
MAX_FAILURE_RATE = 0.5


def _prepared(frames: np.ndarray) -> tuple[list[np.ndarray], float]:
    """uint8 (T, H, W, 3) to grey pictures of the working size, and their enlargement."""
    import cv2

    height, width = frames.shape[1:3]
    scale = min(SIDE / max(height, width), MAX_ENLARGEMENT)
    size = round(width * scale), round(height * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    greys = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    return [cv2.resize(grey, size, interpolation=method) for grey in greys], scale


def corners(grey: np.ndarray, enlargement: float = 1.0) -> np.ndarray:
    """The strongest corners of each cell: uint8 (H, W) -> float32 (N, 2), x and y.

    An even spread lets the background outvote a sharp subject.
    """
    import cv2

    strength = cv2.cornerMinEigenVal(grey, 5)
    # Enlarging divides gradients by the factor, so the eigenvalue by its square.
    peak = strength > TEXTURE / max(enlargement, 1.0) ** 2
    peak &= strength == cv2.dilate(strength, np.ones((7, 7), np.uint8))
    y, x = np.nonzero(peak[BORDER:-BORDER, BORDER:-BORDER])
    y, x = y + BORDER, x + BORDER
    cell = y // CELL * grey.shape[1] + x // CELL
    order = np.lexsort((-strength[y, x], cell))
    rank = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    kept = order[rank < PER_CELL]
    return np.stack([x[kept], y[kept]], axis=1).astype(np.float32)


def _follow(
    first: np.ndarray, second: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where points (N, 2) of the first picture lie in the second, and whether each was found."""
    import cv2

    stop = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.01
    size = WINDOW, WINDOW
    end, tracked, _ = cv2.calcOpticalFlowPyrLK(
        first, second, places, np.empty_like(places), winSize=size, maxLevel=LEVELS, criteria=stop
    )
    return np.asarray(end), np.asarray(tracked)[:, 0] > 0


def tracks(
    first: np.ndarray, second: np.ndarray, enlargement: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the same points in two uint8 pictures (H, W): float64 (N, 2) each, x and y."""
    start = corners(first, enlargement)
    if not len(start):
        return np.empty((0, 2)), np.empty((0, 2))
    end, there = _follow(first, second, start)
    again, back = _follow(second, first, end)
    good = there & back & (np.linalg.norm(start - again, axis=1) < ROUND_TRIP)
    return start[good].astype(np.float64), end[good].astype(np.float64)


def rotation_fit(x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, int]:
    """Rotation R (3, 3) of y ~ K R K⁻¹ x for points (N, 2) in pixels, and its number of inliers.

    Least squares on the viewing directions, reweighted against outliers.
    """
    rays = [np.column_stack([p, np.ones(len(p))]) @ np.linalg.inv(intrinsics).T for p in (x, y)]
    a, b = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rays)
    weights = np.ones(len(x))
    for _ in range(10):
        matrix = Rotation.align_vectors(b, a, weights=weights)[0].as_matrix()
        seen = rays[0] @ (intrinsics @ matrix).T
        error = np.linalg.norm(seen[:, :2] / seen[:, 2:] - y, axis=1)
        weights = (1 + (error / max(float(np.median(error)), INLIER)) ** 2) ** -2
    return matrix, int((error < INLIER).sum())


def relative_pose(x: np.ndarray, y: np.ndarray, intrinsics: np.ndarray) -> np.ndarray | None:
    """Pose (4, 4) of the second camera in the first from points (N, 2) in pixels; None: failed.

    Translation in units of the points' median depth in the first camera.
    """
    import cv2

    least = max(MIN_TRACKS, MIN_SHARE * len(x))
    if len(x) < least:
        return None
    if np.median(np.linalg.norm(x - y, axis=1)) < STILL:
        return np.eye(4)
    parameters = cv2.UsacParams()
    parameters.threshold, parameters.confidence = INLIER, 0.999
    parameters.randomGeneratorState = 0  # one state a call: no thread changes another's result
    essential, mask = cv2.findEssentialMat(
        x, y, intrinsics, intrinsics, None, None, params=parameters
    )
    general = 0
    if essential is not None and essential.shape == (3, 3):
        general, turn, shift, mask, points = cv2.recoverPose(
            essential, x, y, intrinsics, distanceThresh=FAR, mask=mask
        )
    rotation, rotating = rotation_fit(x, y, intrinsics)
    motion = np.eye(4)  # from the first camera's coordinates to the second's
    if rotating >= max(least, ROTATION_SHARE * general):
        motion[:3, :3] = rotation
    elif general >= least:
        depth = (points[2] / points[3])[mask[:, 0] > 0]
        motion[:3, :3], motion[:3, 3] = turn, shift[:, 0] / np.median(depth)
    else:
        return None
    return np.linalg.inv(motion)


def estimate(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Poses (T, 4, 4) float64, the first the identity, and the share of failed pairs in [0, 1].

    frames: uint8 (T, H, W, 3) RGB, T at least 2.
    """
    greys, scale = _prepared(frames)
    height, width = greys[0].shape
    focal = FOCAL * max(height, width)
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    poses, failed = [np.eye(4)], 0
    for first, second in pairwise(greys):
        step = relative_pose(*tracks(first, second, scale), intrinsics)
        failed += step is None
        poses.append(poses[-1] if step is None else poses[-1] @ step)
    return np.stack(poses), failed / (len(poses) - 1)


def compute(clip: Clip) -> dict[str, float | np.ndarray]:
    """The failure rate, and where it is at most one half the poses and their figures."""
    poses, failure_rate = estimate(clip.frames)
    values: dict[str, float | np.ndarray] = {"camera_failure_rate": failure_rate}
    if failure_rate <= MAX_FAILURE_RATE:
        values |= clip_values("camera", poses)
    return values


def group(readings: Sequence[Reading], attributes: Mapping[str, str]) -> dict[str, GroupValue]:
    """Spread of a prompt's clips; those without poses are left out, `n` counts the others."""
    return group_values("camera", readings)


SOURCE = "built-in estimator (OpenCV tracks, essential matrix, guessed intrinsics)"
FAMILY = MetricFamily(
    "camera",
    policy="even16",
    metrics=(
        *pose_metrics("camera", "median depths", SOURCE),
        Metric(
            "camera_failure_rate", "lower", "", (0.0, 1.0),
            f"share of frame pairs without a pose; {SOURCE}",
            "Share of adjacent frames (of 16) between which the estimator finds no camera motion "
            "that most tracks follow; above one half a clip has no poses.",
        ),
    ),
    load=plain(compute),
    group=group,
    dtype="float64",
    default=True,
)  # fmt: skip
