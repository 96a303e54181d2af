"""What a page plays of a clip: the file itself, or a smaller copy, made once and kept in the cache.

Used by clips.py. A clip of the toy is played as it is; one of 832×480 would make a page of a
hundred clips hundreds of MB. Previews have halved chroma, which every browser plays.
"""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from dfdbench.utils.files import atomic_path, cache_folder, sha256_file

SMALL_SIDE = 160
"""Pixels: a clip whose long side is at most this is played as it is."""
PREVIEW_SIDE = 384
VERSION = 1  # raised whenever the same clip would get another preview
CRF = 27
UNREADABLE = (av.error.FFmpegError, OSError, ValueError, IndexError)


class Facts(NamedTuple):
    """Width and height in pixels, frames a second, frames of a clip."""

    width: int
    height: int
    fps: float
    frames: int


def facts_of(path: Path) -> Facts:
    """What a clip's head says.

    Raises:
        OSError, ValueError: it is no video that can be read.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        if rate <= 0 or not stream.width or not stream.height:
            raise ValueError("no frame rate or no size")
        return Facts(stream.width, stream.height, rate, stream.frames or 1)


def preview(path: Path) -> Path:
    """The file that a page plays for the clip at `path`; raises what `facts_of` does."""
    facts = facts_of(path)
    if max(facts.width, facts.height) <= SMALL_SIDE:
        return path
    name = f"{sha256_file(path)}-{PREVIEW_SIDE}-v{VERSION}.mp4"
    kept = cache_folder() / "previews" / name
    if not kept.is_file():
        _encode(path, kept, facts)
    return kept


def _encode(path: Path, target: Path, facts: Facts) -> None:
    scale = min(1.0, PREVIEW_SIDE / max(facts.width, facts.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in facts[:2])
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with (
        atomic_path(target) as temporary,
        av.open(str(path)) as source,
        av.open(str(temporary), "w", "mp4", options) as container,
    ):
        rate = Fraction(facts.fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(CRF), "preset": "veryfast", "threads": "1", "g": "24"}
        for number, frame in enumerate(source.decode(video=0)):
            small = frame.reformat(width, height, "yuv420p", interpolation="AREA")
            small.pts, small.time_base = number, 1 / rate
            container.mux(stream.encode(small))
        container.mux(stream.encode())


def middle_frame(path: Path, frames: int) -> np.ndarray:
    """The middle frame of a clip of so many frames, uint8 (H, W, 3) RGB; of a shorter one the last.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    shown = None
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            shown = frame
            if number >= frames // 2:
                break
    if shown is None:
        raise ValueError("no frames")
    return shown.to_ndarray(format="rgb24")
