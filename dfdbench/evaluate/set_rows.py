"""What `data describe` notes of each clip of a set: a row a clip, and its feature.

A set is videos, in any form that `data curate shots` or `data encode` takes, or latents that `data
encode` made, of which no pixel is decoded. The work is a stage of a curation (curate/work.py): a
journal a part, so a killed call goes on where it was. Read by set_numbers.py.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from dfdbench.distill.data.curate.features import Embedder, save_array, unit_mean
from dfdbench.distill.data.curate.measures import look
from dfdbench.distill.data.curate.readers import Video, find_videos, is_there
from dfdbench.distill.data.curate.shots import HASHED_AT
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill
from dfdbench.distill.data.format import INDEX
from dfdbench.distill.data.sources import Source, find_sources
from dfdbench.evaluate.metrics import colour, dis_flow
from dfdbench.evaluate.set_latents import latent_stage
from dfdbench.utils import decode
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.manifest import LISTINGS
from dfdbench.utils.reading import Open, Text, read_jsonl
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import Clip, read_video, stream_video

POLICY = "even16"  # frames for saturation, hashes and features; that of the family colour


class Described(Open):
    """A clip of a set; a row of set.jsonl.

    Attributes:
        id: the input's name and the clip's place in it. row: of its feature in set.npy.
        seconds, frames, fps, height, width: of the video, or of what was encoded.
        saturation: `saturation_mean` of the family colour. motion: `dis_flow_magnitude` of the
            family dis_flow, short sides a second; None for a clip too short for it.
        latent_change: mean |z(t+1) − z(t)| of latents.
        words: of its captions, by level; "caption" where there is one.
        hashes: perceptual hashes, 64 bits in hexadecimal, at 1/6, 1/2 and 5/6 of its length.
        sha256: of latents. left_out: why the clip cannot be used; then it has only its id.
    """

    id: Text
    row: Annotated[int, Field(ge=0)] | None = None
    seconds: float | None = None
    frames: int | None = None
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    saturation: float | None = None
    motion: float | None = None
    latent_change: float | None = None
    words: dict[str, int] = {}  # noqa: RUF012
    hashes: list[Annotated[str, Field(pattern="^[0-9a-f]{16}$")]] = []  # noqa: RUF012
    sha256: str | None = None
    left_out: Text | None = None


class Item(NamedTuple):
    """A video of a set before it is opened.

    file: gives the video for as long as the context lasts. size: bytes. told: what is known of
    its caption. captions: by level; may raise UserError. fault: why it cannot be used.
    """

    file: Callable[[], AbstractContextManager[Path]]
    size: int | None
    told: object
    captions: Callable[[], dict[str, str]]
    fault: str = ""


def is_latent_set(inputs: Sequence[Path]) -> bool:
    """Whether a set is latents.

    Raises:
        UserError: it is latents and something else.
    """
    latents = [path for path in inputs if (path / INDEX).is_file()]
    if latents and len(inputs) > 1:
        raise UserError(f"{latents[0]}: a set of latents is described alone; leave out the others")
    return bool(latents)


def measure_set(
    inputs: Sequence[Path],
    out: Path,
    name: str,
    embedder: Embedder | None,
    shard: Shard | None = None,
) -> Outcome:
    """Write `out`/NAME.jsonl, a `Described` a clip, and NAME.npy, features of unit length.

    Args:
        embedder: of the frames of videos; None: no features. Latents are their own.
        shard: the part of the clips to look at.

    Raises:
        UserError: no clips, or `out` holds NAME made otherwise.
    """
    if is_latent_set(inputs):
        stage, keys, work = latent_stage(inputs[0], out, name)
    else:
        items = _items(inputs, out)
        stage, keys = _stage(items, out, name, embedder), [*items]

        def work(names: list[str]) -> Iterator[Done]:
            for key in names:
                yield _describe(key, items[key], embedder)

    def join(gathered: Gathered) -> Outcome:
        faults = [why for key in keys if (why := gathered.lines[key].get("left_out"))]
        if len(faults) == len(keys):
            raise UserError(f"{inputs[0]}: no clip can be described; the first: {faults[0]}")
        there = [key for key in keys if gathered.has_vector(key)]
        row_of = {key: row for row, key in enumerate(there)}
        arrays = [out / f"{name}.npy"] if there else []
        if there:
            save_array(arrays[0], len(there), gathered.vectors(there))
        rows = ({"id": key, "row": row_of.get(key), **gathered.lines[key]} for key in keys)
        return stage.write(rows, arrays)

    return fill(stage, keys, lambda part: part.of(keys), work, join, shard)


def read_set(out: Path, name: str) -> tuple[list[Described], np.ndarray]:
    """The rows of a set that is measured, and its features, float32 (N, D); (0, 0) without.

    Raises:
        UserError: a file is damaged, or they do not belong together.
    """
    path, remedy = out / f"{name}.npy", f"delete {name}.json and describe the set again"
    rows = [row for _, row in read_jsonl(out / f"{name}.jsonl", Described, remedy)]
    numbers = [row.row for row in rows if row.row is not None]
    if not numbers:
        return rows, np.empty((0, 0), np.float32)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not an array of features ({error}); {remedy}") from None
    if array.ndim != 2 or numbers != [*range(len(array))]:
        raise UserError(
            f"{path}: of shape {array.shape}, {name}.jsonl has {len(numbers)} rows; {remedy}"
        )
    return rows, array


def _stage(items: dict[str, Item], out: Path, name: str, embedder: Embedder | None) -> Stage:
    listed = "\n".join(f"{key} {item.size} {item.told} {item.fault}" for key, item in items.items())
    settings = {
        "embedder": embedder.name if embedder else None,
        "weights": embedder.weights if embedder else None,
        "policy": POLICY,
        "decoder": decode.name(),
    }
    packages = ["opencv-python-headless", *(["torch"] if embedder else [])]
    reads = {"clips": hashlib.sha256(listed.encode()).hexdigest()}
    return Stage(out, name, settings, packages=packages, reads=reads)


def _items(inputs: Sequence[Path], out: Path) -> dict[str, Item]:
    """Name -> video of all inputs; manifests of folders and tars as `data encode` reads them."""
    items: dict[str, Item] = {}
    for path in inputs:
        listed = path.is_dir() and any((path / n).is_file() for n in LISTINGS)
        if listed or path.suffix.lower() == ".tar":
            new = {clean(source.name): _of_source(source) for source in find_sources(path)}
        else:
            found = find_videos([path], out)
            new = {clean(name): _of_video(video) for name, video in found.items()}
        if both := items.keys() & new.keys():
            raise UserError(f"{path}: {min(both)} is in the set twice; leave one out")
        items |= new
    return items


def _of_video(video: Video) -> Item:
    captions = {"caption": video.caption} if video.caption else {}

    def file() -> AbstractContextManager[Path]:
        return nullcontext(video.path)

    return Item(file, _size(video.path), video.caption, lambda: captions, video.fault)


def _of_source(source: Source) -> Item:
    def captions() -> dict[str, str]:
        if source.levels is not None:
            try:
                return source.read_levels()
            except UserError:  # a JSON of other facts
                pass
        has_text = source.prompt or source.caption
        return {"caption": source.read_prompt()} if has_text else {}

    size = source.video.size if source.video else _size(source.file)
    given = source.prompt, source.caption, source.levels
    told = [_size(place) if isinstance(place, Path) else place for place in given]
    return Item(source.video_file, size, told, captions, source.fault)


def _size(path: Path) -> int | None:
    return os.stat(path).st_size if is_there(path) else None


def _describe(key: str, item: Item, embedder: Embedder | None) -> Done:
    """What is noted of one video, or why it cannot be used."""
    try:
        if item.fault:
            raise UserError(item.fault)
        words = {level: len(text.split()) for level, text in item.captions().items()}
        with item.file() as path:
            try:
                clip = read_video(path, POLICY)
                motion = motion_of(path, clip)
            except UserError as error:  # the file may be a copy of a name that is not the clip's
                raise UserError(str(error).removeprefix(f"{path}: ")) from None
        feature = unit_mean(embedder, clip.frames) if embedder else None
    except UserError as error:
        return Done(key, {"left_out": str(error).removeprefix(f"{key}: ")})
    return Done(key, {**facts_of(clip), "motion": motion, "words": words}, feature)


def facts_of(clip: Clip) -> dict[str, Any]:
    """What sixteen frames of a clip at even distances show; see `Described`."""
    height, width = clip.frames.shape[1:3]
    saturation = [colour.saturation(frame).mean(dtype=np.float64) for frame in clip.frames]
    hashed = [clip.frames[int(at * len(clip.frames))] for at in HASHED_AT]
    return {
        "seconds": round(clip.total / clip.fps, 4),
        "frames": clip.total,
        "fps": round(clip.fps, 4),
        "height": height,
        "width": width,
        "saturation": round(float(np.mean(saturation)), 6),
        "hashes": [f"{look(frame).hash:016x}" for frame in hashed],
    }


def motion_of(path: Path, clip: Clip) -> float | None:
    """`dis_flow_magnitude` of a video, two frames in memory at a time; None: it is too short."""
    step = dis_flow.stride(clip.fps)
    numbers = range(0, clip.total, step)
    if len(numbers) < 2:
        return None
    pictures = (picture for _, picture in stream_video(path, numbers))
    lengths = [dis_flow.magnitudes(np.stack(pair))[0] for pair in pairwise(pictures)]
    return round(float(np.mean(lengths) * clip.fps / step), 6)
