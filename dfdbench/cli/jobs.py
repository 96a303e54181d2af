"""The runs of a study: trained, generated and scored by one process, or by several side by side.

Used by study.py. Each process has a GPU of its own as long as there are enough of them; with fewer
they go round.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path

from dfdbench.generate.clips import UNTRAINED, Steps
from dfdbench.models.defaults import Guidance
from dfdbench.utils.device import VISIBLE
from dfdbench.utils.errors import UserError, as_user_error, memory_remedy
from dfdbench.utils.progress import say
from dfdbench.utils.reading import Outside
from dfdbench.utils.run import Run
from dfdbench.utils.stopping import Stopped, end_with, interruptible


class TeacherTable(Outside):
    """How the teacher of an arm is sampled; unset: as the model recommends."""

    cfg: Guidance | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class Job:
    """One run of a study: an arm at a training seed, or an untrained arm.

    seeds: of its clips' noises (`noise_seeds`).
    """

    arm: str
    path: Path
    model: str
    seeds: range
    threads: int
    suite: str
    recipe: str = ""
    changes: tuple[str, ...] = ()
    parent: Path | None = field(default=None)
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


def _say(start: float, text: str) -> None:
    seconds = int(time.monotonic() - start)
    say(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}")


def one_by_one(jobs: Sequence[Job]) -> dict[Path, str]:
    """Run jobs in this process; those that failed with the reason."""
    start, failed = time.monotonic(), dict[Path, str]()
    for job in jobs:
        _say(start, f"{job.path.name}")
        try:
            if job.parent in failed:
                raise UserError(f"its parent {job.parent} failed")
            run_job(job)
        except Exception as error:
            failed[job.path] = _in_a_line(error)
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


def _begin_worker(parent: int, gpus: "Queue[str] | None") -> None:
    """Let a worker end with its parent: Ctrl-C goes to both, and is the parent's to pass on.

    gpus: it takes one, and from then on sees no other.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    if gpus:
        os.environ[VISIBLE] = gpus.get()


def _run_in_worker(job: Job) -> float:
    with interruptible():
        return run_job(job)


def side_by_side(jobs: Sequence[Job], processes: int, gpus: Sequence[str]) -> dict[Path, str]:
    """The same in `processes` processes, each job as soon as its parent is done.

    gpus: see `visible_gpus`.
    """
    start, failed, done = time.monotonic(), dict[Path, str](), set[Path]()
    waiting, running = list(jobs), dict[Future[float], Job]()
    # Spawned, not forked: a fork of a process with running thread pools can hang.
    context = multiprocessing.get_context("spawn")
    queue: Queue[str] = context.Queue()
    for place in places(processes, gpus):
        queue.put(place)
    begun_with = (os.getpid(), queue if gpus else None)
    with ProcessPoolExecutor(processes, context, _begin_worker, begun_with) as pool:
        try:
            while waiting or running:
                for job in [j for j in waiting if j.parent is None or j.parent in done]:
                    if len(running) < processes:
                        waiting.remove(job)
                        running[pool.submit(_run_in_worker, job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    error = future.exception()
                    if error is None:
                        done.add(job.path)
                        left = len(waiting) + len(running)
                        _say(start, f"{job.path.name} done in {future.result():.0f} s, {left} left")
                        continue
                    failed[job.path] = _in_a_line(error)
                    for child in [j for j in waiting if j.parent in failed]:
                        waiting.remove(child)
                        failed[child.path] = f"not begun, {child.parent} failed"
        except BrokenProcessPool:
            raise UserError(
                "a process of the study was killed, perhaps for its memory; give the same command "
                "again to go on, or with fewer --processes"
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()  # by SIGTERM: training writes a checkpoint first
            pool.shutdown(cancel_futures=True)
            raise
    return failed
