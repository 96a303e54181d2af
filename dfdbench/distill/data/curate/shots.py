"""Stage `shots`: videos to shots, with what is measured of each and which are left out, and why.

Reads what readers.py knows; captions that are there are kept. Every shot has a row; those that a
filter or an earlier near duplicate excludes say so. Videos that cannot be read are listed in
shots.left_out.jsonl.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.distill.data.curate.cuts import DETECTORS, PACKAGE, detector, pieces
from dfdbench.distill.data.curate.letters import Reading, read_letters, text_share
from dfdbench.distill.data.curate.measures import Look, bar_area, look, unlike
from dfdbench.distill.data.curate.readers import Video, find_videos, is_there
from dfdbench.distill.data.curate.rows import Shot
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill, line_of
from dfdbench.utils import decode
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import atomic_path
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import frame_rate, reduced, stream_video

NAME, LEFT_OUT = "shots", "shots.left_out.jsonl"
HASHED_AT = (1 / 6, 1 / 2, 5 / 6)  # of a shot's length
READ_EVERY = 0.5  # seconds between frames that are looked at for letters
DETECTED = 256  # pixels of the short side that cuts are looked for at, at most


@dataclass(frozen=True)
class Filters:
    """Which shots are kept; see the command's help.

    Attributes:
        cuts: see `detector`.
        min_seconds, max_seconds: of a shot; longer ones become equal pieces, 0 leaves them.
        min_side: pixels of the short side. min_motion, max_bars, max_text: see `Shot`.
        near: shots that differ in fewer bits than this from an earlier one, at all three hashes,
            are near duplicates; 0 keeps them.
    """

    cuts: str = "adaptive"
    min_seconds: float = 2.0
    max_seconds: float = 10.0
    min_side: int = 240
    min_motion: float = 0.2
    max_bars: float = 0.05
    max_text: float = 0.006
    near: int = 6

    def fault(self, shot: Shot) -> str | None:
        """Why a shot is left out; None if no filter says so."""
        side = min(shot.height, shot.width)
        if shot.seconds < self.min_seconds:
            return f"{shot.seconds:.2f} s, shorter than {self.min_seconds:g}"
        if side < self.min_side:
            return f"{side} pixels, smaller than {self.min_side}"
        if shot.motion < self.min_motion:
            return f"static: {shot.motion:g} grey levels a frame, less than {self.min_motion:g}"
        if shot.bars > self.max_bars:
            return f"letterbox: {shot.bars:.1%} of it is black bars, more than {self.max_bars:.1%}"
        if shot.text is not None and shot.text > self.max_text:
            return f"text: {shot.text:.1%} of it looks like letters, more than {self.max_text:.1%}"
        return None


def shots(
    inputs: Sequence[Path], out: Path, filters: Filters, shard: Shard | None = None
) -> Outcome:
    """Find the shots of all videos of `inputs` and write `out`/shots.jsonl.

    Args:
        shard: the part of the videos to look at.

    Raises:
        UserError: no video, two of one name, or `out` holds shots made otherwise.
    """
    if filters.cuts not in DETECTORS:
        raise unknown_name("detector", filters.cuts, DETECTORS)
    videos = find_videos(inputs, out)
    detector(filters.cuts, 1.0)  # a library that is missing is told before any work
    listed = "\n".join(
        f"{name} {_size(video.path)} {video.caption}" for name, video in videos.items()
    )
    stage = Stage(
        out,
        NAME,
        {**asdict(filters), "decoder": decode.name()},
        packages=["opencv-python-headless", *([] if filters.cuts == "none" else [PACKAGE])],
        reads={"videos": hashlib.sha256(listed.encode()).hexdigest()},
    )

    def work(names: list[str]) -> Iterator[Done]:
        for name in names:
            yield Done(name, _shots_of(name, videos[name], out, filters))

    def join(gathered: Gathered) -> Outcome:
        rows = [gathered.lines[name] for name in videos]
        faults = out / LEFT_OUT
        with atomic_path(faults) as temporary:
            lines = [
                line_of({"video": name, "reason": row["fault"]})
                for name, row in zip(videos, rows, strict=True)
                if row["fault"]
            ]
            temporary.write_text("".join(lines), encoding="utf-8")
        found = [Shot.model_validate(shot) for row in rows for shot in row["shots"]]
        return stage.write((s.model_dump() for s in _judged(found, filters)), [faults])

    return fill(stage, [*videos], lambda part: part.of([*videos]), work, join, shard)


def _size(path: Path) -> int | None:
    return path.stat().st_size if is_there(path) else None


def _shots_of(name: str, video: Video, out: Path, filters: Filters) -> dict[str, Any]:
    """The shots of one video without a judgement, or why it cannot be used."""
    if video.fault:
        return {"shots": [], "fault": video.fault}
    path = video.path
    looks, cuts = list[Look](), list[int]()
    change, before, size = [0.0], None, (0, 0)
    readings: dict[int, Reading] = {}
    try:
        fps = frame_rate(path)
        every = max(1, round(fps * READ_EVERY))
        detect = detector(filters.cuts, fps)
        for number, picture in stream_video(path):
            size = picture.shape[:2]
            cuts += detect(number, reduced(picture, DETECTED))
            seen = look(picture)
            if number % every == every // 2:
                readings[number] = read_letters(picture)
            if before is not None:
                change.append(float(np.abs(seen.grey - before).mean()))
            before = seen.grey
            looks.append(seen._replace(grey=np.empty(0)))
    except UserError as error:
        return {"shots": [], "fault": str(error)}
    if not looks:
        return {"shots": [], "fault": f"{path}: shows no frame"}
    prefix = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    longest = int(filters.max_seconds * fps)
    found = []
    for start, frames in pieces(cuts, len(looks), longest):
        own = looks[start : start + frames]
        read = [readings[n] for n in range(start, start + frames) if n in readings]
        moved = change[start + 1 : start + frames]
        shot = Shot(
            id=f"{prefix}-{start:07d}",
            path=relative(path, out),
            start=start,
            frames=frames,
            total=len(looks),
            fps=round(fps, 6),
            height=size[0],
            width=size[1],
            motion=round(float(np.mean(moved)), 4) if moved else 0.0,
            bars=round(bar_area(np.stack([seen.bars for seen in own])), 4),
            text=round(text_share(read), 4) if len(read) > 1 else None,
            hashes=[f"{own[int(at * frames)].hash:016x}" for at in HASHED_AT],
            caption=video.caption,
        )
        found.append(shot.model_dump())
    return {"shots": found, "fault": None}


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, also where either is reached through a symbolic link."""
    real = os.path.join(os.path.realpath(path.parent), path.name)
    return Path(os.path.relpath(real, os.path.realpath(folder))).as_posix()


def _judged(found: Sequence[Shot], filters: Filters) -> Iterator[Shot]:
    """The shots, each with why it is left out: a filter's reason, or an earlier one like it."""
    hashes = np.empty((len(found), len(HASHED_AT)), np.uint64)
    kept: list[str] = []
    for shot in found:
        fault = filters.fault(shot)
        own = np.array([int(text, 16) for text in shot.hashes], np.uint64)
        if fault is None and filters.near and kept:
            bits = unlike(own, hashes[: len(kept)])
            nearest = int(bits.argmin())
            if bits[nearest] < filters.near:
                fault = f"near duplicate of {kept[nearest]} ({bits[nearest]} bits)"
        if fault is None:
            hashes[len(kept)] = own
            kept.append(shot.id)
        yield shot.model_copy(update={"left_out": fault})
