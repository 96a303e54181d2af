"""Camera path from poses that ViPE saved beforehand, as 2606.18478 B.3.3 measures it.

ViPE (2508.10934, github.com/nv-tlabs/vipe) writes `pose/<clip stem>.npz` into its output folder:
`data` (N, 4, 4) float32, camera to world in OpenCV's axes, lengths near metres, and `inds` (N,) the
frame numbers. Nothing of ViPE is run or installed here.

The folder of --poses is searched for the file whose path shares the longest tail with the clip's:
for videos/ball-desert/3.mp4 that is videos/ball-desert/3.npz, ball-desert/3.npz, then 3.npz, each
also with the file in a folder `pose`, as ViPE leaves it. A name that is only a number is a seed and
says nothing without its folder, so 3.npz alone is not taken.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, GroupValue, MetricFamily, Reading, Setting
from dfdbench.evaluate.metrics.poses import clip_values, group_values, pose_metrics
from dfdbench.utils.errors import MissingWeights, UserError, pass_out_of_memory
from dfdbench.utils.files import sha256_file
from dfdbench.utils.video import Clip

ROTATION_TOLERANCE = 1e-2  # of R Rᵀ − 1; float32 leaves about 1e-6


def _folder(setting: Setting) -> Path:
    if setting.poses is None:
        raise MissingWeights("no poses of ViPE; name their folder with --poses FOLDER")
    if not setting.poses.is_dir():
        raise UserError(f"--poses {setting.poses}: no such folder; name the output folder of ViPE")
    return setting.poses


def find(setting: Setting) -> str:
    """sha256 over names and bytes of all pose files, so a new file makes a new score.

    Raises:
        MissingWeights: no folder of poses was named.
        UserError: the folder does not exist or has no pose file.
    """
    folder = _folder(setting)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.npz")}
    if not files:
        raise UserError(f"--poses {folder}: no .npz file in it; name the output folder of ViPE")
    text = "".join(f"{name}\n{sha256_file(files[name])}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def pose_file(folder: Path, clip: Path) -> Path | None:
    """The file in `folder` with the poses of the clip at `clip`; None where there is none."""
    *parents, _ = clip.resolve().relative_to(clip.resolve().anchor).parts
    name = f"{clip.stem}.npz"
    for start in range(len(parents) + (not clip.stem.isdigit())):
        for between in ((), ("pose",)):
            file = folder.joinpath(*parents[start:], *between, name)
            if file.is_file():
                return file
    return None


def read_poses(file: Path, frames: int) -> np.ndarray:
    """Poses (N, 4, 4) float64 of a clip of `frames` frames, N at least 2.

    Raises:
        UserError: it is no such file, or holds no rigid poses, or those of a longer clip.
    """
    remedy = "run ViPE on the clip again"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            poses, indices = arrays["data"].astype(np.float64), arrays["inds"].astype(int)
    except Exception as error:  # numpy and zipfile raise many kinds; the remedy is the same
        pass_out_of_memory(error)
        raise UserError(f"{file}: no arrays 'data' and 'inds' can be read; {remedy}") from error
    if poses.shape[1:] != (4, 4) or indices.shape != (len(poses),) or len(poses) < 2:
        shapes = f"{poses.shape} and {indices.shape}"
        raise UserError(f"{file}: shapes {shapes}, need (N, 4, 4) and (N,), N > 1; {remedy}")
    rotation = poses[:, :3, :3]
    skew = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max()
    # Written so that NaN fails too.
    rigid = skew < ROTATION_TOLERANCE and (np.linalg.det(rotation) > 0).all()
    if not (rigid and np.isfinite(poses).all() and (poses[:, 3] == [0, 0, 0, 1]).all()):
        raise UserError(f"{file}: not matrices of a rotation and a translation; {remedy}")
    if indices[0] < 0 or (np.diff(indices) <= 0).any() or indices[-1] >= frames:
        raise UserError(f"{file}: frame numbers do not fit the clip of {frames} frames; {remedy}")
    return poses


def load(setting: Setting) -> Compute:
    """Reads a clip's pose file; a clip without one has no values."""
    folder = _folder(setting)

    def compute(clip: Clip) -> dict[str, float | np.ndarray]:
        file = pose_file(folder, clip.path) if clip.path else None
        return clip_values("vipe", read_poses(file, len(clip.frames))) if file else {}

    return compute


def group(readings: Sequence[Reading], attributes: Mapping[str, str]) -> dict[str, GroupValue]:
    """Spread of a prompt's clips; those without poses are left out, `n` counts the others."""
    return group_values("vipe", readings)


FAMILY = MetricFamily(
    "vipe",
    policy="all",  # the poses are of all frames, and their number must fit
    metrics=pose_metrics("vipe", "m", "poses of ViPE (2508.10934), scale near metric"),
    load=load,
    find=find,
    group=group,
    dtype="float64",
)
