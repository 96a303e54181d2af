"""What a run starts from.

Used by the loop: settings left to the checkpoint are filled in, and the DMD2 run that a second
stage starts from is found, made or checked. What run.json states is record.py's.
"""

import dataclasses
from collections.abc import Callable
from glob import escape
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt

from dfdbench.distill.discriminator import heads_fit
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.distill.sections import Recipe
from dfdbench.models.blocks import check_attention
from dfdbench.models.defaults import Defaults
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import student_times
from dfdbench.models.scheduler import Sampling
from dfdbench.utils.errors import UserError
from dfdbench.utils.progress import say
from dfdbench.utils.reading import Open, validate
from dfdbench.utils.run import RUN_FILE, Run, weights_sha256

BLOCKS = ("block_frames", "window_frames", "sink_frames")  # of a causal student
MUST_AGREE = (
    "model",
    "data",
    "student.steps",
    "student.times",
    "schedule.shift",
    *(f"student.{name}" for name in BLOCKS),
)


def check_family(recipe: Recipe, family: ModelFamily) -> None:
    """Refuse a model of another kind than the recipe is written for, and a kernel of attention
    that does not run on its device."""
    if recipe.family and recipe.family != family.name:
        raise UserError(
            f"the recipe is for a model of the family {recipe.family}, {family.path} is of the "
            f"family {family.name}; give another --model or --recipe"
        )
    if recipe.optim.attention != "auto":
        check_attention(recipe.optim.attention, family.device, family.dtype, family.head_dim)
    if recipe.data.source == "toy":  # whose clips are rendered as the model's own defaults say
        for key in ("frames", "height", "width"):
            given, own = getattr(recipe.data, key), getattr(family.defaults, key)
            if given not in (0, own):
                raise UserError(
                    f"recipe key 'data.{key}' is {given}, but rendered toy clips have {own}; leave "
                    "it out, or train on a folder: data.source"
                )


def resolve(recipe: Recipe, defaults: Defaults) -> Recipe:
    """The recipe with everything that it leaves to the checkpoint filled in."""
    teacher = recipe.teacher
    return dataclasses.replace(
        recipe,
        teacher=dataclasses.replace(
            teacher,
            cfg=defaults.cfg if teacher.cfg is None else teacher.cfg,
            negative=defaults.negative_prompt if teacher.negative is None else teacher.negative,
        ),
        options=recipe.options.resolved(defaults),
    )


def grid(recipe: Recipe) -> torch.Tensor:
    """The student's times (N + 1,) float64, ending in 0."""
    if recipe.student.times:
        return torch.tensor([*recipe.student.times, 0.0], dtype=torch.float64)
    return student_times(recipe.student.steps, recipe.schedule.shift)


def sampling(recipe: Recipe) -> Sampling:
    """How the student samples, for its folder."""
    times = tuple(grid(recipe)[:-1].tolist())
    return Sampling(times, recipe.schedule.shift, recipe.student.sampler)


def run_name(arm: str, seed: int) -> str:
    """Name of the folder of an arm's run with a training seed."""
    return f"{arm}-seed{seed}"


def run_id(recipe: Recipe) -> str:
    """Name of a run: equal ones train the same weights."""
    return f"{run_name(recipe.arm, recipe.seed)}-{recipe.digest()[:8]}"


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was begun with, be it of this version or the previous one.

    Raises:
        UserError: the run was not distilled, or its recipe cannot be read.
    """
    if not isinstance(run.info.get("recipe"), dict):
        raise UserError(
            f"{run.path} was not distilled: it holds arm {run.arm} and no recipe; give a run of "
            "dfdbench distill"
        )
    return recipe_from_dict(run.info["recipe"], run.path / RUN_FILE)


def first_stage_recipe(recipe: Recipe) -> Recipe:
    """Recipe of the run that `recipe.init` names; model, data, seed, grid, batch and
    what only costs or saves memory are ours."""
    first = load_recipe(recipe.init.recipe)
    updates = recipe.init.updates or first.schedule.student_updates
    return dataclasses.replace(
        first,
        model=recipe.model,
        seed=recipe.seed,
        data=recipe.data,
        student=dataclasses.replace(
            first.student,
            steps=recipe.student.steps,
            times=recipe.student.times,
            **{name: getattr(recipe.student, name) for name in BLOCKS},
        ),
        teacher=dataclasses.replace(first.teacher, guidance_passes=recipe.teacher.guidance_passes),
        optim=dataclasses.replace(
            first.optim,
            batch=recipe.optim.batch,
            accumulate=recipe.optim.accumulate,
            checkpointing=recipe.optim.checkpointing,
            attention=recipe.optim.attention,
            compile=recipe.optim.compile,
        ),
        schedule=dataclasses.replace(
            first.schedule, student_updates=updates, shift=recipe.schedule.shift
        ),
        checkpoint=recipe.checkpoint,
        log=recipe.log,
    )


def parent_run(
    recipe: Recipe,
    out: Path,
    init: Path | None,
    family: ModelFamily,
    train: Callable[[Recipe, Path], Run],
    talk: bool = True,
) -> Run | None:
    """The finished run to start from: `init`, else the recipe's, made beside `out` if need be.

    Args:
        train: makes that run.
        talk: say on stderr what is done.

    Raises:
        UserError: `init` is not a finished run, or was made for another model, data or grid.
    """
    if init is not None:
        run = Run.open(init)
        recipe_of(run)  # refuses what was not distilled
        if not run.finished:
            raise UserError(f"{init} is not finished; resume it first: dfdbench distill --resume")
        _check_agreement(recipe, run, family)
        return _whole(run)
    if not recipe.init.recipe:
        return None
    first = first_stage_recipe(recipe)
    resolved = resolve(first, family.defaults)
    folder = _first_stage_folder(resolved, out.parent)
    if (folder / "run.json").is_file() and Run.open(folder).finished:
        if talk:
            say(f"starting from the finished run {folder}")
        return _whole(Run.open(folder))
    if talk:
        say(f"first stage: {recipe.init.recipe} into {folder}")
    return train(first, folder)


class Finished(Open):
    """What a run that goes on from a finished one reads of it in run.json."""

    id: str
    teacher_sha256: str
    student_sha256: str
    critic_sha256: str
    student_updates_total: NonNegativeInt
    iterations_total: NonNegativeInt
    wall_seconds_total: NonNegativeFloat
    heads_sha256: str | None = None  # with a GAN; a run of the previous version kept no heads


def _whole(run: Run) -> Run:
    """A finished run whose run.json says all that is needed and whose weights are those it names.

    Raises:
        UserError: something is lacking, or a network was changed since.
    """
    file, remedy = run.path / RUN_FILE, "restore the run from a copy, or train it again"
    if "imported" in run.info:
        raise UserError(
            f"--init {run.path} was imported and has no fake score to go on with; give a run of "
            "dfdbench distill"
        )
    said = validate(Finished, run.info, file, remedy)
    parts = [
        (run.student / "transformer", said.student_sha256),
        (run.fake_score, said.critic_sha256),
    ]
    if said.heads_sha256:
        parts.append((run.heads, said.heads_sha256))
    for folder, sha256 in parts:
        if weights_sha256(folder) != sha256:
            raise UserError(f"{folder}: not the weights that {RUN_FILE} names; {remedy}")
    return run


def parent_heads(recipe: Recipe, parent: Run | None, blocks: tuple[int, ...]) -> Path | None:
    """Where the discriminator heads lie that a GAN goes on with; None where it begins new ones:
    without a parent, or where the parent kept none or its heads look at other features.

    Args:
        blocks: tapped by this run, () without a GAN.
    """
    if parent is None or not blocks or not parent.info.get("heads_sha256"):
        return None
    return parent.heads if heads_fit(parent.heads, blocks, recipe.gan.features) else None


def _first_stage_folder(resolved: Recipe, runs: Path) -> Path:
    """The folder in `runs` of a run of this very recipe, else one that is free.

    Digests are compared of the recipes that the runs state: the previous version's were of other
    keys, in run.json and in the name of a folder.
    """
    name = run_name(resolved.arm, resolved.seed)
    for file in [runs / name / RUN_FILE, *sorted(runs.glob(f"{escape(name)}-*/{RUN_FILE}"))]:
        if file.is_file() and _states(file.parent, resolved):
            return file.parent
    return runs / (run_id(resolved) if (runs / name / RUN_FILE).is_file() else name)


def _states(folder: Path, recipe: Recipe) -> bool:
    """Whether the run in `folder` was begun with `recipe`."""
    try:
        return recipe_of(Run.open(folder)).digest() == recipe.digest()
    except UserError:  # a run of something else, such as a method not known here
        return False


def _check_agreement(recipe: Recipe, run: Run, family: ModelFamily) -> None:
    theirs, ours = recipe_of(run).as_dict(), recipe.as_dict()
    if run.info.get("teacher_sha256") == weights_sha256(family.path / "transformer"):
        ours["model"] = theirs["model"]  # the same weights by another name
    for values in (theirs, ours):  # a second stage may see other clips (2606.18478's ablation)
        values["data"].pop("mix", None)
    for key in MUST_AGREE:
        left, right = _at(theirs, key), _at(ours, key)
        if left != right:
            raise UserError(
                f"--init {run.path} was trained with {key} = {left}, this recipe has {right}; "
                f"use a run that agrees or change the recipe"
            )


def _at(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def check_resume(run: Run, recipe: Recipe, parent: Run | None) -> None:
    """Refuse to go on with another recipe or from another parent than the run began with."""
    begun_with = recipe_of(run)
    if begun_with.digest() != recipe.digest():
        key = next(iter(_differences(begun_with.decisive(), recipe.decisive())), "recipe")
        raise UserError(
            f"{run.path} was begun with another {key}; resume with the same recipe or pass "
            "another --out"
        )
    begun = (run.info.get("parent") or {}).get("student_sha256")
    if begun != (parent.info["student_sha256"] if parent else None):
        raise UserError(f"{run.path} was begun from another --init; pass the same or another --out")


def _differences(left: dict[str, Any], right: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in [*left, *(right.keys() - left.keys())]:
        mine, theirs = left.get(key), right.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            keys += _differences(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            keys.append(prefix + key)
    return keys
