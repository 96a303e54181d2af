"""Stage `pack`: picked shots and their captions to WebDataset tars that `data encode` reads.

A sample is KEY.mp4, KEY.txt (its long caption) and KEY.json: caption, captions by level, cluster
and where it comes from. A shot that is a whole file is copied as it is, others are cut out and
encoded anew (H.264, yuv444p, CRF 8; see utils/video.py). Tars hold whole samples in the order of
picks.csv and are never redone; a shot without a caption or frames is left out by name.
"""

import json
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.distill.data.curate.caption import kept
from dfdbench.distill.data.curate.footage import shot_frames
from dfdbench.distill.data.curate.pick import FILE, read_picks
from dfdbench.distill.data.curate.rows import Captions, Member, Shot
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill, read_rows
from dfdbench.distill.data.format import add_member
from dfdbench.distill.data.sources import LEVELS
from dfdbench.utils import decode
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, sha256_file
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import write_video

NAME, FOLDER = "pack", "packed"


def pack(folder: Path, shard_size: int = 100, shard: Shard | None = None) -> Outcome:
    """Write `folder`/packed/shard-00000.tar … and pack.jsonl, a row a picked shot.

    Args:
        shard_size: samples a tar. shard: the part of the tars to write.

    Raises:
        UserError: no picks, no captions for any, or tars made from other picks.
    """
    shots = {shot.id: shot for shot in kept(folder)}
    picks = read_picks(folder, shots)
    if not picks:
        raise UserError(f"{folder / FILE}: nothing is picked; run dfdbench data curate pick")
    inputs = [folder / "shots.jsonl", folder / FILE]
    captions = _optional(folder, "caption", Captions, inputs)
    clusters = _optional(folder, "cluster", Member, inputs)
    if not captions and not any(shots[name].caption for name in picks):
        raise UserError(
            f"{folder}: no captions; run dfdbench data curate caption, or put texts beside the "
            "videos"
        )
    stage = Stage(
        folder, NAME, {"shard_size": shard_size, "decoder": decode.name()}, inputs, ["av"]
    )
    tars = {
        f"shard-{number:05d}": picks[start : start + shard_size]
        for number, start in enumerate(range(0, len(picks), shard_size))
    }

    def sample(shot: Shot) -> dict[str, Any] | str:
        given = captions.get(shot.id)
        texts = {level: getattr(given, level) for level in LEVELS} if given else {}
        texts = {level: text for level, text in texts.items() if text}
        main = texts.get(LEVELS[0]) or shot.caption
        if not main:
            return (given and given.left_out) or "no caption"
        member = clusters.get(shot.id)
        facts: dict[str, Any] = {"caption": main}
        if texts:
            facts["captions"] = texts
        if member:
            facts |= {"cluster": member.cluster, "distance": member.distance}
        return facts | {
            "id": shot.id,
            "source": Path(shot.path).name,
            "start": shot.start,
            "frames": shot.frames,
            "fps": shot.fps,
        }

    def work(names: list[str]) -> Iterator[Done]:
        for name in names:
            own = [shots[key] for key in tars[name]]
            left_out = write_tar(folder, folder / FOLDER / f"{name}.tar", own, sample)
            yield Done(name, {"left_out": left_out})

    def join(gathered: Gathered) -> Outcome:
        rows = [
            {"id": key, "tar": f"{name}.tar", "left_out": gathered.lines[name]["left_out"].get(key)}
            for name, own in tars.items()
            for key in own
        ]
        if all(row["left_out"] for row in rows):
            raise UserError(f"{folder}: no pick can be packed; the first: {rows[0]['left_out']}")
        paths = [folder / FOLDER / f"{name}.tar" for name in tars]
        return stage.write(rows, [path for path in paths if path.is_file()])

    return fill(stage, [*tars], lambda part: part.of([*tars]), work, join, shard)


def _optional(folder: Path, name: str, kind: Any, inputs: list[Path]) -> dict[str, Any]:
    """Rows of a stage by id, and its file to `inputs`; nothing where it was not run."""
    if not (folder / f"{name}.json").is_file():
        return {}
    inputs.append(folder / f"{name}.jsonl")
    return {row.id: row for row in read_rows(folder, name, kind)}


def write_tar(folder: Path, path: Path, shots: Sequence[Shot], sample: Any) -> dict[str, str]:
    """Write the shots that can be used to one tar, atomically; returns why others are left out.

    sample: the facts of a shot, or why it is left out. A tar without samples is not written.
    """
    left_out: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    for shot in shots:
        given = sample(shot)
        if isinstance(given, str):
            left_out[shot.id] = given
        else:
            facts[shot.id] = given
    usable = [shot for shot in shots if shot.id in facts]
    with tempfile.TemporaryDirectory() as place:
        videos = _videos(folder, usable, Path(place), left_out)
        if not videos:
            return left_out
        with (
            atomic_path(path) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for shot in usable:
                if shot.id in videos:
                    given = {**facts[shot.id], "video_sha256": sha256_file(videos[shot.id])}
                    add_member(
                        tar, f"{shot.id}{videos[shot.id].suffix}", videos[shot.id].read_bytes()
                    )
                    add_member(tar, f"{shot.id}.txt", given["caption"].encode())
                    add_member(
                        tar, f"{shot.id}.json", json.dumps(given, ensure_ascii=False).encode()
                    )
    return left_out


def _videos(
    folder: Path, shots: Sequence[Shot], place: Path, left_out: dict[str, str]
) -> dict[str, Path]:
    """A file of each shot: its video if that is all of it, else a new one in `place`."""
    whole = {shot.id: folder / shot.path for shot in shots if shot.frames == shot.total}
    cut = sorted((s for s in shots if s.id not in whole), key=lambda s: (s.path, s.start))
    videos = {name: path for name, path in whole.items() if path.is_file()}
    left_out |= {n: f"{path}: no such video" for n, path in whole.items() if n not in videos}
    for shot, frames in shot_frames(folder, cut, lambda shot: np.arange(shot.frames)):
        if isinstance(frames, UserError):
            left_out[shot.id] = str(frames)
            continue
        videos[shot.id] = place / f"{shot.id}.mp4"
        write_video(videos[shot.id], frames, shot.fps)
    return videos
