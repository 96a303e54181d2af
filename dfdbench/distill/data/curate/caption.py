"""Stage `caption`: shots to captions at three lengths, written by a model behind an HTTP server.

An answer that is not three captions is asked for again, with another seed, and with twice the room
where it was cut off. A shot whose answers all fail is listed with the reason and left out; a server
that does not answer ends the work, which goes on where it was.
"""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.distill.data.curate.footage import jpeg, shot_frames, spread
from dfdbench.distill.data.curate.rows import Shot
from dfdbench.distill.data.curate.servers import Servers
from dfdbench.distill.data.curate.wording import MAX_TOKENS, PROMPT, Unusable, parse
from dfdbench.distill.data.curate.work import Done, Gathered, Outcome, Stage, fill, read_rows
from dfdbench.utils.errors import UserError
from dfdbench.utils.shards import Shard

NAME = "caption"


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    frames, side: pictures of a shot, pixels of their short side. max_tokens: of an answer.
    tries: answers asked for before a shot is left out.
    """

    frames: int = 8
    side: int = 448
    max_tokens: int = MAX_TOKENS
    tries: int = 4


def caption(
    folder: Path, servers: Servers, asking: Asking, at_once: int = 8, shard: Shard | None = None
) -> Outcome:
    """Write `folder`/caption.jsonl: a row for every shot that is kept.

    Args:
        at_once: asks of all servers together. shard: the part of the videos whose shots to do.

    Raises:
        UserError: no shots, captions made otherwise, or no server answers.
    """
    wanted = kept(folder)
    by_id = {shot.id: shot for shot in wanted}
    settings = {**asdict(asking), "model": servers.model, "prompt": PROMPT}
    stage = Stage(folder, NAME, settings, [folder / "shots.jsonl"])

    def work(ids: list[str]) -> Iterator[Done]:
        todo = [by_id[name] for name in ids]
        with ThreadPoolExecutor(at_once) as pool:
            jobs = (
                pool.submit(_caption, servers, asking, shot, frames)
                for shot, frames in shot_frames(folder, todo, spread(asking.frames), asking.side)
            )
            try:
                yield from as_they_end(jobs, 2 * at_once)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                servers.close()

    def join(gathered: Gathered) -> Outcome:
        return stage.write(gathered.lines[shot.id] for shot in wanted)

    return fill(stage, [*by_id], lambda part: ids_of(wanted, part), work, join, shard)


def kept(folder: Path) -> list[Shot]:
    """The shots that no filter left out, those of a video together, in order.

    Raises:
        UserError: there are none.
    """
    shots = [shot for shot in read_rows(folder, "shots", Shot) if shot.left_out is None]
    if not shots:
        raise UserError(
            f"{folder / 'shots.jsonl'}: every shot is left out; see its reasons, then change the "
            "filters of dfdbench data curate shots"
        )
    return shots


def ids_of(shots: list[Shot], part: Shard) -> list[str]:
    """The shots of a part: those of every `count`-th video, for a video is decoded as a whole."""
    paths = set(part.of([*dict.fromkeys(shot.path for shot in shots)]))
    return [shot.id for shot in shots if shot.path in paths]


def _caption(servers: Servers, asking: Asking, shot: Shot, frames: np.ndarray | UserError) -> Done:
    row: dict[str, Any] = {"id": shot.id}
    if isinstance(frames, UserError):
        return Done(shot.id, {**row, "left_out": str(frames)})
    pictures, room, reason = [jpeg(frame) for frame in frames], asking.max_tokens, ""
    for seed in range(asking.tries):
        answer = servers.ask(PROMPT, pictures, room, seed)
        if answer.cut:
            reason = f"cut off after {room} tokens"
            room = 2 * asking.max_tokens  # once: more would end in a server's limit
            continue
        try:
            return Done(shot.id, {**row, **parse(answer.text)})
        except Unusable as error:
            reason = str(error)
    return Done(shot.id, {**row, "left_out": f"no captions in {asking.tries} answers: {reason}"})


def as_they_end(jobs: Iterator[Future[Done]], most: int) -> Iterator[Done]:
    """The results of jobs in the order in which they end, at most `most` begun and not given.

    Where one fails no further one is begun; those that were begun are given before its error is
    raised, for each was paid for.
    """
    running, fault = set[Future[Done]](), None
    while True:
        while fault is None and len(running) < most and (job := next(jobs, None)):
            running.add(job)
        if not running:
            break
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for job in ended:
            if job.cancelled():
                continue
            if error := job.exception():
                fault = fault or error
                for other in running:
                    other.cancel()
            else:
                yield job.result()
    if fault:
        raise fault
