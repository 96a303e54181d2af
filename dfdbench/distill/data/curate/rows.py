"""The rows of each stage's file, as typed models: what one stage writes and the next reads.

Fields that others add are kept out of the way: they are allowed and not used.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dfdbench.utils.reading import Name, Open, Text

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Shot(Open):
    """A piece of a video, shown in one go; a row of shots.jsonl.

    Attributes:
        id: unlike any other; names files and members of tars.
        path: of the video, relative to the folder of the curation.
        start, frames: its first frame in the video, from 0, and how many it has.
        total: frames of the video. fps: of the video. height, width: pixels.
        motion: mean change from frame to frame, in grey levels of 255, at 256 pixels across.
        bars: share of the area that stays black along the edges.
        text: share of the area that letters lie over, see letters.py; None in the shortest.
        hashes: perceptual hashes, 64 bits in hexadecimal, at 1/6, 1/2 and 5/6 of its length.
        caption: what came beside the video. left_out: why it is not used; None: it is.
    """

    id: Name
    path: Annotated[Text, Field(max_length=4096)]
    start: Count
    frames: Positive
    total: Positive
    fps: Annotated[float, Field(gt=0)]
    height: Positive
    width: Positive
    motion: float
    bars: float
    text: float | None = None
    hashes: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]]
    caption: Text | None = None
    left_out: Text | None = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.fps

    def video(self, folder: Path) -> Path:
        """The video's path."""
        return folder / self.path


class Captions(Open):
    """Captions of a shot at three lengths, or why there are none; a row of caption.jsonl."""

    id: Name
    long: Text | None = None
    medium: Text | None = None
    short: Text | None = None
    left_out: Text | None = None


class Feature(Open):
    """Row number `row` of features.npy, or why there is none; a row of features.jsonl."""

    id: Name
    row: Count | None = None
    left_out: Text | None = None


class Member(Open):
    """The cluster of a shot and its distance to the centre; a row of cluster.jsonl."""

    id: Name
    cluster: Count
    distance: Annotated[float, Field(ge=0)]


class Candidate(Member):
    """A shot to choose; a row of grid.jsonl.

    percentile: share of the cluster that is nearer to the centre, 0 to 100.
    size: shots of the cluster. strip: its picture, relative to the folder of the curation.
    """

    percentile: Annotated[float, Field(ge=0, le=100)]
    size: Positive
    strip: Text
    short: Text | None = None


class Pick(Open):
    """A chosen shot; a row of picks.csv."""

    id: Name


class Packed(Open):
    """The tar of a picked shot, or why it is in none; a row of pack.jsonl."""

    id: Name
    tar: Name
    left_out: Text | None = None
