"""Stage `features`: a vector a shot, the mean of its frames' embeddings, of length one.

Which network embeds is the caller's affair: the embedders belong to the metrics, above this room.
features.npy holds the vectors, float32 (N, D); features.jsonl says whose each row is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfdbench.distill.data.curate.caption import ids_of, kept
from dfdbench.distill.data.curate.footage import by_policy, shot_frames
from dfdbench.distill.data.curate.rows import Feature
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill, read_rows
from dfdbench.utils import decode
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path
from dfdbench.utils.shards import Shard

NAME, ARRAY = "features", "features.npy"


class Embedder(NamedTuple):
    """A network that embeds frames.

    name: of the network. weights: their SHA-256. embed: uint8 (T H W 3) to float32 (T, D).
    """

    name: str
    weights: str
    embed: Callable[[np.ndarray], np.ndarray]


def features(
    folder: Path, embedder: Embedder, policy: str = "even16", shard: Shard | None = None
) -> Outcome:
    """Write `folder`/features.npy and features.jsonl for every shot that is kept.

    Args:
        policy: which frames of a shot are embedded, a key of `video.POLICIES`.

    Raises:
        UserError: no shots, features made otherwise, or none of the shots can be decoded.
    """
    wanted = kept(folder)
    by_id = {shot.id: shot for shot in wanted}
    settings = {
        "embedder": embedder.name,
        "weights": embedder.weights,
        "policy": policy,
        "decoder": decode.name(),
    }
    stage = Stage(folder, NAME, settings, [folder / "shots.jsonl"], ["torch"])

    def work(ids: list[str]) -> Iterator[Done]:
        for shot, frames in shot_frames(folder, [by_id[i] for i in ids], by_policy(policy)):
            if isinstance(frames, UserError):
                yield Done(shot.id, {"left_out": str(frames)})
                continue
            try:
                vector = unit_mean(embedder, frames)
            except UserError as error:
                yield Done(shot.id, {"left_out": str(error)})
                continue
            yield Done(shot.id, {}, vector)

    def join(gathered: Gathered) -> Outcome:
        there = [shot.id for shot in wanted if gathered.has_vector(shot.id)]
        if not there:
            reason = gathered.lines[wanted[0].id]["left_out"]
            raise UserError(f"{folder}: no shot has features; the first: {reason}")
        save_array(folder / ARRAY, len(there), gathered.vectors(there))
        row_of = {name: row for row, name in enumerate(there)}
        rows = ({"id": s.id, "row": row_of.get(s.id), **gathered.lines[s.id]} for s in wanted)
        return stage.write(rows, [folder / ARRAY])

    return fill(stage, [*by_id], lambda part: ids_of(wanted, part), work, join, shard)


def unit_mean(embedder: Embedder, frames: np.ndarray) -> np.ndarray:
    """The mean of the embeddings of uint8 (T H W 3), of length one, float32 (D,).

    Raises:
        UserError: it has no direction.
    """
    mean = embedder.embed(frames).astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    if not np.isfinite(length) or length == 0:
        raise UserError("its features are not finite, or zero")
    return (mean / length).astype(np.float32)


def save_array(path: Path, count: int, rows: Iterator[np.ndarray]) -> None:
    """Write `count` float32 rows as one .npy, one in memory at a time, atomically."""
    first = next(rows)
    with atomic_path(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, len(first)))
        array[0] = first
        for number, row in enumerate(rows, start=1):
            array[number] = row
        array.flush()


def read_features(folder: Path) -> tuple[list[str], np.ndarray]:
    """Ids of the shots that have features, and those, float32 (N, D), read from the disk as used.

    Raises:
        UserError: the stage is not finished, or its files do not belong together.
    """
    rows = [row for row in read_rows(folder, NAME, Feature) if row.row is not None]
    path = folder / ARRAY
    remedy = "run dfdbench data curate features again"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not an array of features ({error}); {remedy}") from None
    if array.ndim != 2 or [row.row for row in rows] != [*range(len(array))]:
        raise UserError(
            f"{path}: of shape {array.shape}, {NAME}.jsonl has {len(rows)} rows; {remedy}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{path}: holds values that are not finite; {remedy}")
    return [row.id for row in rows], array
