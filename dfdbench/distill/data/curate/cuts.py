"""Where a video is cut: PySceneDetect on frames of our own decoder. Used by shots.py.

The frames and their numbers are those that every other stage decodes.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from dfdbench.utils.errors import UserError

DETECTORS = ("adaptive", "content", "none")
PACKAGE = "scenedetect-headless"
Detect = Callable[[int, np.ndarray], list[int]]


def detector(name: str, fps: float) -> Detect:
    """A function of frame number and uint8 (H W 3) RGB, in order, that gives cuts as it finds them.

    A cut is the number of the first frame after it.

    Args:
        name: "adaptive" (change against its neighbours'), "content" (change of hue, saturation and
            lightness), "none" (a video is one shot).

    Raises:
        UserError: PySceneDetect is not here.
    """
    if name == "none":
        return lambda number, picture: []
    library = _library()
    kind = library.AdaptiveDetector if name == "adaptive" else library.ContentDetector
    found = kind()

    def detect(number: int, picture: np.ndarray) -> list[int]:
        timecode = library.FrameTimecode(number, fps=fps)
        bgr = np.ascontiguousarray(picture[:, :, ::-1])
        return [cut.frame_num for cut in found.process_frame(timecode, bgr)]

    return detect


def _library() -> Any:
    try:
        import scenedetect
    except ImportError:
        raise UserError(
            "shots: PySceneDetect is not installed; pip install 'dfdbench[curate]', or pass "
            "--cuts none for videos of one shot each"
        ) from None
    return scenedetect


def pieces(cuts: list[int], total: int, longest: int) -> list[tuple[int, int]]:
    """(start, frames) of each shot; one longer than `longest` frames becomes equal pieces.

    longest: 0 leaves shots as they are.
    """
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < total}), total]
    found = []
    for start, end in pairwise(edges):
        count = -(-(end - start) // longest) if longest else 1
        inner = np.linspace(start, end, count + 1).astype(int).tolist()
        found += [(a, b - a) for a, b in pairwise(inner)]
    return found
