"""A study: several arms over several training seeds, from training to a report.

Behind `dfdbench study` and `dfdbench quickstart`. A study is a TOML file with a table per arm, and
above them `suite` and `model` if they are not toy-t2v:

    seeds = 64                           # clips a prompt of each run, of noises of their own

    [arms.dfd_score]
    recipe = "toy/dfd"
    init = "dmd2"                        # an arm of the study that it starts from
    against = "dfd"                      # an arm, or a list of them, to be compared with
    set = ["dfd.gradient_space='score'"]

    [arms.teacher_4_steps]
    teacher = { steps = 4 }              # or cfg

Each run is trained, generated and scored by one process; what an earlier call finished is skipped.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dfdbench.cli.jobs import Job, TeacherTable, one_by_one, side_by_side
from dfdbench.distill.recipe import STUDIES, baselines_folder
from dfdbench.generate.clips import UNTRAINED
from dfdbench.report.arms import TEACHERS, samples_teacher
from dfdbench.utils.device import release_memory, visible_gpus
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.folders import locked
from dfdbench.utils.names import check_name
from dfdbench.utils.progress import Stage
from dfdbench.utils.reading import Outside, read_toml, validate


@dataclass(frozen=True)
class Arm:
    """One way to train: a recipe, the arm it starts from, and changed recipe values.

    against: the arms it is compared with, beside the usual comparisons. teacher: for an arm without
    training, how its teacher is sampled; it has no recipe.
    """

    name: str
    recipe: str = ""
    init: str | None = None
    changes: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    teacher: TeacherTable | None = None


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

    def named_pairs(self) -> list[tuple[str, str]]:
        """The comparisons that the arms' `against` asks for."""
        return [(arm.name, rival) for arm in self.arms for rival in arm.against]


def shipped_studies() -> list[str]:
    """Names of the shipped studies, such as "toy/quickstart"."""
    folder = baselines_folder()
    return sorted(
        f"{path.parent.parent.relative_to(folder).as_posix()}/{path.stem}"
        for path in folder.rglob(f"{STUDIES}/*.toml")
    )


class ArmTable(Outside):
    """A table [arms.NAME] of a study's file: a recipe to train, or `teacher` to sample it."""

    recipe: str = ""
    teacher: TeacherTable | None = None
    init: str | None = None
    against: str | tuple[str, ...] = ()
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
        if table.teacher == TeacherTable():
            raise UserError(
                f"{where}: its teacher is the one that every study has; give cfg or steps"
            )
        if samples_teacher(arm) != bool(table.teacher):
            raise UserError(
                f"{where}: names that begin with {TEACHERS} are of arms that sample the teacher, "
                "and of no others; rename it"
            )
        above = [a.name for a in arms]
        if table.init not in (None, *above):
            raise UserError(f"{where}: init '{table.init}' is no arm above it; add it there")
        against = (table.against,) if isinstance(table.against, str) else table.against
        for rival in against:
            if rival not in (*UNTRAINED, *above):
                raise UserError(f"{where}: against '{rival}' is no arm above it; add it there")
        arms.append(Arm(arm, table.recipe, table.init, table.set, against, table.teacher))
    return Study(study_name, tuple(arms), file.set, file.seeds, file.suite, file.model)


def noise_seeds(clips: int, training_seed: int = 0) -> range:
    """Seeds of the noises of `clips` clips a prompt, which no other training seed has.

    With the same noises at each training seed, what is peculiar to them would pass for the method.
    Arms at one training seed share theirs, so that they are paired; untrained arms have the first.
    """
    return range(training_seed * clips + 1, (training_seed + 1) * clips + 1)


def jobs_of(
    study: Study,
    out: Path,
    training_seeds: Sequence[int],
    model: str,
    threads: int,
    have: Collection[str] = (),
) -> list[Job]:
    """All runs of a study, parents before children, without sampled teachers that it has (`have`).

    Real clips and the teacher's own are made in any case: other runs are compared with them.
    """
    from dfdbench.distill.stages import run_name
    from dfdbench.generate.suites import get_suite

    runs, clips = out / "runs", len(get_suite(study.suite).prompts) * study.seeds
    amounts: dict[Stage, int] = {"generate": clips, "score": clips}
    untrained = (model, noise_seeds(study.seeds), threads, study.suite)
    jobs = [Job(name, runs / name, *untrained, amounts=amounts) for name in reversed(UNTRAINED)]
    jobs += [
        Job(arm.name, runs / arm.name, *untrained, teacher=arm.teacher, amounts=amounts)
        for arm in study.arms
        if arm.teacher and arm.name not in have
    ]
    for seed in training_seeds:
        shared = (model, noise_seeds(study.seeds, seed), threads, study.suite)
        for arm in (arm for arm in study.arms if arm.recipe):
            own = (f"arm='{arm.name}'", f"seed={seed}", f"model='{model}'")
            path, changes = runs / run_name(arm.name, seed), (*study.changes, *arm.changes, *own)
            parent = runs / run_name(arm.init, seed) if arm.init else None
            updates: dict[Stage, int] = {"train": _updates(arm.recipe, changes, path)}
            jobs.append(
                Job(arm.name, path, *shared, arm.recipe, changes, parent, {**updates, **amounts})
            )
    return jobs


def _updates(recipe: str, changes: Sequence[str], path: Path) -> int:
    """Student updates of a run, none where it is trained already."""
    from dfdbench.distill.recipe import load_recipe

    done = (path / "student").is_dir()
    return 0 if done else load_recipe(recipe, changes).schedule.student_updates


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
        processes: runs at a time, by default one a GPU, or without any one a core, at most 4;
            GPUs go round among them, threads are shared out.
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

    # Read at once, so that what is no report is named before anything is trained.
    have = {str(run["arm"]) for folder in earlier for run in read_report(folder).runs.values()}

    model = model or study.model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    gpus = visible_gpus()
    processes = processes or len(gpus) or min(cores, 4)
    jobs = jobs_of(study, out, training_seeds, model, max(1, cores // processes), have)
    _prepare(jobs, model)
    failed = one_by_one(jobs) if processes == 1 else side_by_side(jobs, processes, gpus)
    if failed:
        raise UserError("; ".join(f"{path}: {reason}" for path, reason in failed.items()))
    _compare_with_teacher(jobs)
    sources = [*(job.path for job in jobs), *earlier]
    return report(sources, out / "report", against=study.named_pairs())


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
    del family
    release_memory()  # of a GPU, for the processes that train on it
