"""Camera motion as VBench-I2V defines it: does the camera move as the prompt says, by CoTracker2?

Huang et al., "VBench++" (2411.13503), camera_motion; Karaev et al., "CoTracker" (2307.07635). A
grid of 10 × 10 points is tracked through the clip; at the middle of each edge the point's way from
the first frame to the last is compared with 0.5 % of the short side. What opposite edges do
together names the motion. The score is 1 if the motion in the prompt is among those found, else 0;
a prompt that names none gives no value. VBench reads the motion from the file's name. Its middle
of ten points is the sixth, so that a strong zoom counts as a pan and a tilt too.
"""

from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from dfdbench.evaluate.metrics.base import Compute, Setting
from dfdbench.evaluate.metrics.vbench.family import dimension, dimension_family
from dfdbench.evaluate.metrics.vbench.nets.weights import COTRACKER2, frozen
from dfdbench.utils.errors import MissingWeights, UserError, pass_out_of_memory
from dfdbench.utils.vbench_weights import COTRACKER, COTRACKER_SOURCE, cotracker_folder
from dfdbench.utils.video import Clip

GRID = 10  # points a side
MIDDLE = GRID // 2
FACTOR = 0.005  # parts of the short side that count as movement

TARGETS = {
    "camera pans left": "pan_left",
    "camera pans right": "pan_right",
    "camera tilts up": "tilt_up",
    "camera tilts down": "tilt_down",
    "camera zooms in": "zoom_in",
    "camera zooms out": "zoom_out",
    "camera static": "static",
}
# What both of two opposite edges do. The picture moves against the camera.
TOGETHER = {
    ("left", "left"): "pan_right",
    ("right", "right"): "pan_left",
    ("down", "down"): "tilt_up",
    ("up", "up"): "tilt_down",
    ("static", "static"): "static",
}
TOP_DOWN = TOGETHER | {("up", "down"): "zoom_in", ("down", "up"): "zoom_out"}
LEFT_RIGHT = TOGETHER | {("left", "right"): "zoom_in", ("right", "left"): "zoom_out"}


def target(prompt: str) -> str | None:
    """The motion that the prompt asks for; None if it asks for none."""
    return next((motion for words, motion in TARGETS.items() if words in prompt), None)


def directions(way: np.ndarray, side: int) -> list[str]:
    """Where a point went: right or left, down or up, both, or static.

    Args:
        way: pixels in x (to the right) and y (downwards), (2,).
        side: pixels of the clip's short side.
    """
    threshold, (x, y) = FACTOR * side, way
    moved = []
    if abs(x) > threshold:
        moved.append("right" if x > 0 else "left")
    if abs(y) > threshold:
        moved.append("down" if y > 0 else "up")
    return moved or ["static"]


def motions(first: np.ndarray, last: np.ndarray, side: int) -> set[str]:
    """The camera's motions, values of TARGETS; none if the edges agree on nothing.

    Args:
        first: whole pixels x, y of the points in the first frame, (10, 10, 2), rows from the top.
        last: those in the last frame.
        side: pixels of the clip's short side.
    """
    way = last - first
    top, down, left, right = (
        directions(way[row, column], side)
        for row, column in ((0, MIDDLE), (GRID - 1, MIDDLE), (MIDDLE, 0), (MIDDLE, GRID - 1))
    )
    vertical = {TOP_DOWN[pair] for pair in product(top, down) if pair in TOP_DOWN}
    horizontal = {LEFT_RIGHT[pair] for pair in product(left, right) if pair in LEFT_RIGHT}
    if vertical == horizontal == {"static"}:
        return {"static"}
    return (vertical | horizontal) - {"static"}


def repository() -> Path:
    """`cotracker_folder`, in which the network's definition is.

    Raises:
        MissingWeights: it is not there.
    """
    folder = cotracker_folder()
    if not (folder / "hubconf.py").is_file():
        raise MissingWeights(
            f"no {COTRACKER} (code of CoTracker2, CC BY-NC 4.0); clone {COTRACKER_SOURCE} to "
            f"{folder}"
        )
    return folder


def load_tracker(device: str) -> Any:
    """CoTracker2 with its weights, all of them: the definition is run from torch hub's copy.

    Raises:
        MissingWeights: the checkpoint or the repository is not here.
        UserError: they are others.
    """
    import torch

    folder = repository()
    with COTRACKER2.tensors() as state:
        tracker = torch.hub.load(str(folder), "cotracker2", source="local", pretrained=False)
        try:
            tracker.model.load_state_dict(state)
        except RuntimeError as error:  # revisions of autumn 2024 build CoTracker3 under this name
            pass_out_of_memory(error)
            raise UserError(
                f"{COTRACKER2.file()}: not the checkpoint of the CoTracker2 that {folder} defines; "
                f"update that clone or get the checkpoint again from {COTRACKER_SOURCE}"
            ) from error
    return frozen(tracker, device)


def load(setting: Setting) -> Compute:
    """The family's function, with the tracker on the setting's device."""
    import torch

    from dfdbench.evaluate.metrics.vbench.nets.pairs import pixels

    tracker = load_tracker(setting.device)
    lock = Lock()  # the tracker may keep what it saw of a clip

    @torch.inference_mode()
    def compute(clip: Clip) -> dict[str, float]:
        wanted = target(clip.prompt or "")
        if wanted is None:
            return {}
        video = pixels(clip.frames, setting.device)[None]
        with lock:
            tracks = tracker(video, grid_size=GRID)[0][0]
        points = tracks.long().cpu().numpy().reshape(-1, GRID, GRID, 2)
        seen = motions(points[0], points[-1], min(clip.frames.shape[1:3]))
        return {"camera_motion": float(wanted in seen)}

    return compute


FAMILY = dimension_family(
    "vbench_camera_motion",
    dimension(
        "camera_motion",
        "VBench++ (2411.13503), camera_motion; CoTracker2, 10 × 10 points",
        "1 if the camera moves as the prompt says (pan, tilt, zoom or static), by the way of "
        "tracked points at the middle of each edge from the first frame to the last, else 0.",
    ),
    load=load,
    weights=(COTRACKER2,),
    code=repository,
    needs=("prompt",),
)
