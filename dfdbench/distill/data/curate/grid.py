"""Stage `grid`: of each cluster a few shots to look at, from its centre to its edge.

Candidates stand at even percentiles of the distance to the centre, so that a page shows what a
cluster is and where it ends. Each has a strip of frames, grid/ID.jpg; each cluster one page of
them, grid/cluster-0000.html, and index.html names all. pick.py serves the same pages to choose.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.distill.data.curate.caption import kept
from dfdbench.distill.data.curate.footage import jpeg, shot_frames, spread
from dfdbench.distill.data.curate.pages import cluster_page, index_page
from dfdbench.distill.data.curate.rows import Candidate, Captions, Member, Shot
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill, read_rows
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, write_text
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import fit

NAME, FOLDER = "grid", "grid"
FRAMES, HEIGHT = 4, 144  # of a strip


def grid(folder: Path, count: int = 10, shard: Shard | None = None) -> Outcome:
    """Write `folder`/grid.jsonl and the pages in `folder`/grid.

    Args:
        count: candidates of a cluster, or all where it has fewer. shard: the part of the videos
            whose strips to draw.

    Raises:
        UserError: no clusters, or they are of other shots.
    """
    shots = {shot.id: shot for shot in kept(folder)}
    rows = read_rows(folder, "cluster", Member)
    inputs = [folder / "shots.jsonl", folder / "cluster.jsonl"]
    captions: dict[str, Captions] = {}
    if (folder / "caption.json").is_file():
        captions = {row.id: row for row in read_rows(folder, "caption", Captions)}
        inputs.append(folder / "caption.jsonl")
    for number, row in enumerate(rows, start=1):
        if row.id not in shots:
            raise UserError(
                f"{folder / 'cluster.jsonl'}:{number}: shots.jsonl keeps no {row.id}; run "
                "dfdbench data curate features and cluster again"
            )
    chosen = {c.id: c for c in candidates(rows, count)}
    wanted = [shot for shot in shots.values() if shot.id in chosen]
    stage = Stage(folder, NAME, {"count": count}, inputs)

    def work(ids: list[str]) -> Iterator[Done]:
        for shot, frames in shot_frames(folder, [shots[i] for i in ids], spread(FRAMES)):
            if isinstance(frames, UserError):
                raise frames
            with atomic_path(folder / chosen[shot.id].strip) as temporary:
                temporary.write_bytes(jpeg(strip(frames)))
            yield Done(shot.id, {})

    def join(gathered: Gathered) -> Outcome:
        final = [
            c.model_copy(update={"short": _short(captions.get(c.id), shots[c.id])})
            for c in chosen.values()
        ]
        pages = write_pages(folder, final)
        return stage.write((c.model_dump() for c in final), pages)

    def mine(part: Shard) -> list[str]:
        paths = set(part.of([*dict.fromkeys(shot.path for shot in wanted)]))
        return [shot.id for shot in wanted if shot.path in paths]

    return fill(stage, [shot.id for shot in wanted], mine, work, join, shard)


def candidates(rows: Sequence[Member], count: int) -> list[Candidate]:
    """Up to `count` of each cluster at even percentiles of the distance, both ends included.

    Clusters rise, and within one the distance; of equal distances the smaller id comes first.
    """
    clusters: dict[int, list[Member]] = {}
    for row in rows:
        clusters.setdefault(row.cluster, []).append(row)
    found = []
    for _, own in sorted(clusters.items()):
        own.sort(key=lambda row: (row.distance, row.id))
        last = len(own) - 1
        for place in even(len(own), count):
            found.append(
                Candidate(
                    **own[place].model_dump(include={"id", "cluster", "distance"}),
                    percentile=round(100 * place / last, 2) if last else 0.0,
                    size=len(own),
                    strip=f"{FOLDER}/{own[place].id}.jpg",
                )
            )
    return found


def even(total: int, count: int) -> list[int]:
    """Up to `count` different places from 0 to total − 1 at even distances, both ends included."""
    if count == 1:
        return [0]
    return [int(p) for p in np.unique(np.rint(np.linspace(0, total - 1, min(count, total))))]


def strip(frames: np.ndarray) -> np.ndarray:
    """Frames (T H W 3) side by side at the height of a strip, uint8 (HEIGHT, …, 3)."""
    _, height, width, _ = frames.shape
    return np.concatenate([*fit(frames, HEIGHT, max(1, round(width * HEIGHT / height)))], axis=1)


def write_pages(folder: Path, found: Sequence[Candidate]) -> list[Path]:
    """Write a page a cluster and the index; returns their paths."""
    clusters: dict[int, list[Candidate]] = {}
    for candidate in found:
        clusters.setdefault(candidate.cluster, []).append(candidate)
    texts: dict[str, str] = {
        f"cluster-{number:04d}.html": cluster_page(number, own, [*clusters])
        for number, own in clusters.items()
    }
    texts["index.html"] = index_page(clusters)
    for name, text in texts.items():
        write_text(folder / FOLDER / name, text)
    return [folder / FOLDER / name for name in texts]


def _short(captions: Captions | None, shot: Shot) -> Any:
    return (captions.short if captions else None) or shot.caption
