"""A study: several arms over several training seeds, from training to a report.

Behind `dfdbench study` and `dfdbench quickstart`. A study is a TOML file with a table per arm, and
above them `suite` and `model` if they are not toy-t2v:

    seeds = 64                           # clips a prompt of each run, of noises of their own

    [arms.dfd_score]
    recipe = "toy/dfd"
    init = "dmd2"                        # an arm of the study that it starts from
    against = "dfd"                      # an arm that the report compares it with
    set = ["dfd.gradient_space='score'"]

    [arms.teacher_4_steps]
    teacher = { steps = 4 }              # or cfg

Each run is trained, generated and scored by one process; what an earlier call finished is skipped.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from dfdbench.distill.recipe import STUDIES, baselines_folder
from dfdbench.generate.clips import UNTRAINED, Steps
from dfdbench.models.defaults import Guidance
from dfdbench.report.arms import TEACHERS
from dfdbench.utils.errors import UserError, as_user_error, unknown_name
from dfdbench.utils.folders import locked
from dfdbench.utils.names import check_name
from dfdbench.utils.progress import say
from dfdbench.utils.reading import Outside, read_toml, validate
from dfdbench.utils.run import Run
from dfdbench.utils.stopping import Stopped, end_with, interruptible


@dataclass(frozen=True)
class Arm:
    """One way to train: a recipe, the arm it starts from, and changed recipe values.

    against: the arm it is compared with, beside the usual comparisons. teacher: for an arm without
    training, how its teacher is sampled; it has no recipe.
    """

    name: str
    recipe: str = ""
    init: str | None = None
    changes: tuple[str, ...] = ()
    against: str | None = None
    teacher: "TeacherTable | None" = None


@dataclass(frozen=True)
class Study:
    """Arms in an order in which each comes after the one it starts from.

    changes: recipe values for every arm, before the arm's own. seeds: clips a prompt of each run.
    suite: what is generated and scored. model: what is distilled unless a call names another.
    """

    name: str
    arms: tuple[Arm, ...]
    changes: tuple[str, ...] = ()
    seeds: int = 16
    suite: str = "toy-t2v"
    model: str = "toy-t2v"


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
    teacher: "TeacherTable | None" = None


def shipped_studies() -> list[str]:
    """Names of the shipped studies, such as "toy/quickstart"."""
    folder = baselines_folder()
    return sorted(
        f"{path.parent.parent.relative_to(folder).as_posix()}/{path.stem}"
        for path in folder.rglob(f"{STUDIES}/*.toml")
    )


class TeacherTable(Outside):
    """How the teacher of an arm is sampled; unset: as the model recommends."""

    cfg: Guidance | None = None
    steps: Steps | None = None


class ArmTable(Outside):
    """A table [arms.NAME] of a study's file: a recipe to train, or `teacher` to sample it."""

    recipe: str = ""
    teacher: TeacherTable | None = None
    init: str | None = None
    against: str | None = None
    set: tuple[str, ...] = ()


class StudyFile(Outside):
    """A study's file; its arms are read one by one, so that a fault names the arm."""

    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    set: tuple[str, ...] = ()
    seeds: int = Field(16, ge=1, strict=True)
    suite: str = "toy-t2v"
    model: str = "toy-t2v"


def load_study(name: str | Path) -> Study:
    """Read a shipped study ("toy/quickstart") or a TOML file.

    Raises:
        UserError: no such study, broken TOML, an unknown key, a name that cannot be a folder's, or
            an init that is no earlier arm.
    """
    if str(name) in shipped_studies():
        family, _, stem = str(name).rpartition("/")
        path = baselines_folder() / family / STUDIES / f"{stem}.toml"
        study_name = stem if family == "toy" else f"{family}-{stem}"
    elif Path(name).is_file():
        path = Path(name)
        study_name = path.stem
    else:
        raise unknown_name("study", str(name), shipped_studies())
    file = read_toml(path, StudyFile, "a study has a table [arms.NAME] for each arm")
    arms: list[Arm] = []
    for arm, values in file.arms.items():
        where = f"{path}, arm {check_name(arm, f'{path}, arm', longest=150)}"
        if arm in UNTRAINED:
            raise UserError(f"{where}: every study has it, untrained; give yours another name")
        table = validate(ArmTable, values, where, 'write it like recipe = "toy/dmd2"')
        if bool(table.recipe) == bool(table.teacher):
            raise UserError(f"{where}: give either a recipe or how the teacher is sampled")
        if arm.startswith(TEACHERS) != bool(table.teacher):
            raise UserError(
                f"{where}: names that begin with {TEACHERS} are of arms that sample the teacher, "
                "and of no others; rename it"
            )
        above = [a.name for a in arms]
        if table.init not in (None, *above):
            raise UserError(f"{where}: init '{table.init}' is no arm above it; add it there")
        if table.against not in (None, *UNTRAINED, *above):
            raise UserError(f"{where}: against '{table.against}' is no arm above it; add it there")
        arms.append(Arm(arm, table.recipe, table.init, table.set, table.against, table.teacher))
    return Study(study_name, tuple(arms), file.set, file.seeds, file.suite, file.model)


def noise_seeds(clips: int, training_seed: int = 0) -> range:
    """Seeds of the noises of `clips` clips a prompt, which no other training seed has.

    With the same noises at each training seed, what is peculiar to them would pass for the method.
    Arms at one training seed share theirs, so that they are paired; untrained arms have the first.
    """
    return range(training_seed * clips + 1, (training_seed + 1) * clips + 1)


def jobs_of(
    study: Study, out: Path, training_seeds: Sequence[int], model: str, threads: int
) -> list[Job]:
    """All runs of a study, parents before children."""
    from dfdbench.distill.stages import run_name

    runs = out / "runs"
    untrained = (model, noise_seeds(study.seeds), threads, study.suite)
    jobs = [Job(name, runs / name, *untrained) for name in reversed(UNTRAINED)]
    jobs += [
        Job(arm.name, runs / arm.name, *untrained, teacher=arm.teacher)
        for arm in study.arms
        if arm.teacher
    ]
    for seed in training_seeds:
        shared = (model, noise_seeds(study.seeds, seed), threads, study.suite)
        for arm in (arm for arm in study.arms if arm.recipe):
            own = (f"arm='{arm.name}'", f"seed={seed}", f"model='{model}'")
            jobs.append(
                Job(
                    arm.name, runs / run_name(arm.name, seed), *shared, arm.recipe,
                    (*study.changes, *arm.changes, *own),
                    runs / run_name(arm.init, seed) if arm.init else None,
                )
            )  # fmt: skip
    return jobs


def run_job(job: Job) -> float:
    """Train, generate and score one run; returns the seconds that it took."""
    import torch

    from dfdbench.distill.loop import distill
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.evaluate.engine import score
    from dfdbench.generate.clips import generate, open_family, reference_run
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
    generate(run, suite, job.seeds, family=open_family(job.model))
    score([run.path], suite)
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


def run_study(
    study: Study,
    out: Path,
    training_seeds: Sequence[int] = (0,),
    model: str | None = None,
    processes: int | None = None,
    earlier: Sequence[Path] = (),
) -> Path:
    """Run what is missing of a study under `out`; returns the report's index.html.

    Args:
        model: instead of the study's own.
        processes: runs at a time, by default one a core, at most 4; threads are shared out.
        earlier: reports of the study at other training seeds, which the report takes up.

    Raises:
        UserError: runs that failed, named; the others are finished and kept. Or another process
            works in `out`.
    """
    with locked(out):
        return _run_study(study, out, training_seeds, model, processes, earlier)


def _run_study(
    study: Study,
    out: Path,
    training_seeds: Sequence[int],
    model: str | None,
    processes: int | None,
    earlier: Sequence[Path],
) -> Path:
    from dfdbench.report.earlier import read_report
    from dfdbench.report.page import report

    for folder in earlier:
        read_report(folder)  # so that what is not one is named before anything is trained

    model = model or study.model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    processes = processes or min(cores, 4)
    jobs = jobs_of(study, out, training_seeds, model, max(1, cores // processes))
    _prepare(jobs, model)
    failed = _one_by_one(jobs) if processes == 1 else _side_by_side(jobs, processes)
    if failed:
        raise UserError("; ".join(f"{path}: {reason}" for path, reason in failed.items()))
    _compare_with_teacher(jobs)
    against = [(arm.name, arm.against) for arm in study.arms if arm.against]
    return report([*(job.path for job in jobs), *earlier], out / "report", against=against)


def _compare_with_teacher(jobs: Sequence[Job]) -> None:
    """Add what runs are beside the teacher's clips, such as their recall of its modes."""
    from dfdbench.evaluate.engine import compare_with

    teacher = next(job.path for job in jobs if job.arm == "teacher")
    for job in jobs:
        if job.path != teacher:
            compare_with(job.path, teacher, job.suite)


def _prepare(jobs: Sequence[Job], model: str) -> None:
    """Encode the real clips once, before several processes would."""
    from dfdbench.distill.data.clips import load_clips
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.generate.clips import open_family

    trained = [job for job in jobs if job.recipe and not (job.path / "student").is_dir()]
    if not trained:
        return
    family = open_family(model)
    for recipe in {r.data: r for r in (load_recipe(j.recipe, j.changes) for j in trained)}.values():
        load_clips(recipe, family)


def _say(start: float, text: str) -> None:
    seconds = int(time.monotonic() - start)
    say(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}")


def _one_by_one(jobs: Sequence[Job]) -> dict[Path, str]:
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


def _begin_worker(parent: int) -> None:
    """Let a worker end with its parent: Ctrl-C goes to both, and is the parent's to pass on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


def _run_in_worker(job: Job) -> float:
    with interruptible():
        return run_job(job)


def _side_by_side(jobs: Sequence[Job], processes: int) -> dict[Path, str]:
    """Run jobs in `processes` processes, each as soon as its parent is done."""
    start, failed, done = time.monotonic(), dict[Path, str](), set[Path]()
    waiting, running = list(jobs), dict[Future[float], Job]()
    # Spawned, not forked: a fork of a process with running thread pools can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin_worker, (os.getpid(),)) as pool:
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
