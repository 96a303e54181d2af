"""The runs of a study: trained, generated and scored by one process, or by several side by side.

Used by study.py. Each process has a GPU of its own as long as there are enough of them; with fewer
they go round.
"""

import contextlib
import io
import multiprocessing
import os
import queue
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path

from dfdbench.cli.board import Board
from dfdbench.cli.forecast import Planned
from dfdbench.generate.clips import UNTRAINED, Steps
from dfdbench.models.defaults import Guidance
from dfdbench.utils.device import VISIBLE
from dfdbench.utils.errors import UserError, as_user_error, memory_remedy
from dfdbench.utils.progress import Report, Stage, clock, say, say_warning, send_to
from dfdbench.utils.reading import Outside
from dfdbench.utils.run import Run
from dfdbench.utils.stopping import Stopped, end_with, interruptible

LOOK_EVERY_SECONDS = 0.5
LONGEST = 2000  # characters of a line: with the rest it is written to the pipe at once


class TeacherTable(Outside):
    """How the teacher of an arm is sampled; unset: as the model recommends."""

    cfg: Guidance | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Job:
    """One run of a study: an arm at a training seed, or an untrained arm.

    seeds: of its clips' noises (`noise_seeds`). amounts: updates and clips of its stages.
    """

    arm: str
    path: Path
    model: str
    seeds: range
    threads: int
    suite: str
    recipe: str = ""
    changes: tuple[str, ...] = ()
    parent: Path | None = None
    amounts: Mapping[Stage, int] = field(default_factory=dict)
    teacher: TeacherTable | None = None


@memory_remedy(
    "give the same command again with fewer --processes; for training alone on its device, raise "
    "optim.accumulate in the study's `set`"
)
def run_job(job: Job) -> float:
    """Train, generate and score one run, each on a GPU if there is one; returns the seconds."""
    import torch

    from dfdbench.distill.loop import distill
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.evaluate.engine import score
    from dfdbench.evaluate.metrics import Setting
    from dfdbench.generate.clips import open_family, reference_run
    from dfdbench.generate.missing import make
    from dfdbench.generate.suites import get_suite

    start = time.monotonic()
    torch.set_num_threads(job.threads)
    if job.arm in UNTRAINED:
        run = reference_run(job.arm, job.path, job.model)
    elif job.teacher:
        own = (job.teacher.cfg, job.teacher.steps)
        run = reference_run("teacher", job.path, job.model, *own, name=job.arm)
    else:
        run = distill(load_recipe(job.recipe, job.changes), job.path, resume=True, init=job.parent)
    suite = get_suite(job.suite)
    _refuse_other_clips(run, job)
    make(run, suite, job.seeds, family=open_family(job.model))
    score([run.path], suite, setting=Setting("auto"))
    return time.monotonic() - start


def _refuse_other_clips(run: Run, job: Job) -> None:
    """A run with clips of other seeds would count them, as of a study with another number."""
    from dfdbench.utils.manifest import collect

    folder = run.videos / job.suite
    if not (folder / "samples.jsonl").is_file():
        return
    seeds = {sample.seed for sample in collect(run.path, job.suite).samples}
    if other := sorted(seed for seed in seeds if seed not in job.seeds and seed is not None):
        raise UserError(
            f"{folder}: holds clips of seed {other[0]}, this study makes {job.seeds.start} to "
            f"{job.seeds.stop - 1}; delete the folder or choose another --out"
        )


def board_of(jobs: Sequence[Job], processes: int) -> Board:
    """The display of these jobs."""
    names = {job.path: job.path.name for job in jobs}
    return Board(
        [
            Planned(
                job.path.name,
                job.arm,
                bool(job.recipe),
                job.amounts,
                None if job.parent is None else names.get(job.parent),
            )
            for job in jobs
        ],
        processes,
    )


def one_by_one(jobs: Sequence[Job]) -> dict[Path, str]:
    """Run jobs in this process; those that failed with the reason."""
    failed = dict[Path, str]()
    with board_of(jobs, 1) as board:
        for job in jobs:
            name = job.path.name
            board.begin(name)
            send_to(partial(board.take, name))
            try:
                if job.parent in failed:
                    raise UserError(f"its parent {job.parent} failed")
                board.end(name, f"{name} done in {clock(run_job(job))}")
            except Exception as error:
                failed[job.path] = _in_a_line(error)
                board.end(name, f"{name} failed")
            finally:
                send_to(None)
    return failed


def _in_a_line(error: BaseException) -> str:
    """Why a run failed; what is no fault of user, disk or memory ends the study."""
    if isinstance(error, Stopped):
        raise KeyboardInterrupt from None
    fault = as_user_error(error)
    if fault is None:
        raise error
    return str(fault)


def places(processes: int, gpus: Sequence[str]) -> list[str]:
    """The GPU of each process, in turn; none without GPUs."""
    return [gpus[i % len(gpus)] for i in range(processes)] if gpus else []


class _Lines(io.TextIOBase):
    """A stream in place of stdout and stderr whose lines go where this process's reports go."""

    rest = ""

    def write(self, text: str) -> int:
        *lines, self.rest = re.split("[\r\n]+", self.rest + text)
        for line in filter(str.strip, lines):
            say(line)
        return len(text)


_name = ""  # of the run that this process works on


def _begin_worker(
    parent: int, gpus: "Queue[str] | None", news: "Queue[tuple[str, Report | str]]"
) -> None:
    """Let a worker end with its parent: Ctrl-C goes to both, and is the parent's to pass on.

    gpus: it takes one, and from then on sees no other. news: takes what it would show.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    news.cancel_join_thread()  # a process that ends waits for no reader
    send_to(lambda item: news.put((_name, item if isinstance(item, Report) else item[:LONGEST])))
    sys.stdout = sys.stderr = _Lines()
    warnings.showwarning = say_warning
    if gpus:
        os.environ[VISIBLE] = gpus.get()


def _run_in_worker(job: Job) -> float:
    global _name
    _name = job.path.name
    with interruptible():
        return run_job(job)


def side_by_side(jobs: Sequence[Job], processes: int, gpus: Sequence[str]) -> dict[Path, str]:
    """The same in `processes` processes, each job as soon as its parent is done.

    gpus: see `visible_gpus`.
    """
    failed, done = dict[Path, str](), set[Path]()
    waiting, running = list(jobs), dict[Future[float], Job]()
    # Spawned, not forked: a fork of a process with running thread pools can hang.
    context = multiprocessing.get_context("spawn")
    free: Queue[str] = context.Queue()
    news: Queue[tuple[str, Report | str]] = context.Queue()
    for place in places(processes, gpus):
        free.put(place)
    begun_with = (os.getpid(), free if gpus else None, news)
    with (
        board_of(jobs, processes) as board,
        ProcessPoolExecutor(processes, context, _begin_worker, begun_with) as pool,
    ):
        try:
            while waiting or running:
                for job in [j for j in waiting if j.parent is None or j.parent in done]:
                    if len(running) < processes:
                        waiting.remove(job)
                        board.begin(job.path.name)
                        running[pool.submit(_run_in_worker, job)] = job
                over = wait(running, LOOK_EVERY_SECONDS, return_when=FIRST_COMPLETED).done
                for item in _received(news):
                    board.take(*item)
                board.tick()
                for future in over:
                    job = running.pop(future)
                    error = future.exception()
                    if error is None:
                        done.add(job.path)
                        taken = clock(future.result())
                        board.end(job.path.name, f"{job.path.name} done in {taken}")
                        continue
                    failed[job.path] = _in_a_line(error)
                    board.end(job.path.name, f"{job.path.name} failed")
                    for child in [j for j in waiting if j.parent in failed]:
                        waiting.remove(child)
                        failed[child.path] = f"not begun, {child.parent} failed"
                        board.end(child.path.name)
        except BrokenProcessPool:
            raise UserError(
                "a process of the study was killed, perhaps for its memory; give the same command "
                "again to go on, or with fewer --processes"
            ) from None
        except BaseException:
            board.stop()
            for process in multiprocessing.active_children():
                process.terminate()  # by SIGTERM: training writes a checkpoint first
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def _received(news: "Queue[tuple[str, Report | str]]") -> Iterator[tuple[str, Report | str]]:
    """What the processes sent so far."""
    with contextlib.suppress(queue.Empty):
        while True:
            yield news.get_nowait()
