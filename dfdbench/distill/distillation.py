"""`dfdbench.distill`: from the name of a method or a recipe to a trained student.

What `dfdbench distill` calls; loop.py trains. `asked_recipe` also serves the plan and the bench.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dfdbench.distill import loop
from dfdbench.distill.methods import method_names
from dfdbench.distill.parallel import joined
from dfdbench.distill.recipe import load_recipe, shipped_recipes
from dfdbench.distill.sections import Recipe
from dfdbench.distill.stages import run_name
from dfdbench.utils.errors import UserError, memory_remedy, unknown_name
from dfdbench.utils.run import Run

TOYS = ("toy", "toy-ar")  # folders of the toy's recipes, the usual one first


@memory_remedy(
    "raise optim.accumulate, which takes fewer clips at once, turn gradient checkpointing on, set "
    'teacher.guidance_passes = "sequential", or share the networks among more GPUs by torchrun '
    "(FSDP); dfdbench plan says what each saves"
)
def distill(
    method: str | None = None,
    *,
    recipe: str | Path | None = None,
    model: str | None = None,
    init: str | Path | None = None,
    changes: Sequence[str] = (),
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Run:
    """Train a few-step student and return its finished run.

    Args:
        method: the loss, a name that dfdbench.distill.methods knows, such as "dfd".
        recipe: shipped name or TOML file; without it the toy's recipe of `method`.
        model: "toy-t2v", "toy-i2v", a diffusers folder or a hub id; else the recipe's.
        init: finished DMD2 run to start from; without it the one that the recipe names is made,
            or reused, beside `out`.
        changes: recipe values such as "dfd.p=0.3".
        seed: training seed; else the recipe's.
        out: run folder; else runs/ARM-seedN.
        resume: go on from the last checkpoint; a finished run is returned as it is.
        device: "cpu", "cuda" or "auto". Under torchrun all processes call this alike.

    Raises:
        UserError: a name that is not known, or what does not fit; see dfdbench.distill.loop.
    """
    with joined(device) as group:
        chosen = asked_recipe(method, recipe, model, seed, changes)
        folder = out or Path("runs") / run_name(chosen.arm, chosen.seed)
        return loop.distill(chosen, folder, resume, init, group.device.type)


def asked_recipe(
    method: str | None,
    recipe: str | Path | None,
    model: str | None = None,
    seed: int | None = None,
    changes: Sequence[str] = (),
) -> Recipe:
    """The recipe that these arguments of `distill` mean.

    Raises:
        UserError: neither method nor recipe, an unknown one, or a change that does not fit.
    """
    if recipe is None and method is None:
        names = ", ".join(method_names())
        raise UserError(f"name what to train: --method, one of {names}, or --recipe")
    if method is not None and method not in method_names():
        raise unknown_name("--method", method, method_names())
    given = {"method": method, "model": model, "seed": seed}
    short = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    return load_recipe(_toy_recipe(method) if recipe is None else recipe, [*short, *changes])


def _toy_recipe(method: str | None) -> str:
    """The toy's recipe of a method, be its student bidirectional or causal."""
    names = [f"{folder}/{method}" for folder in TOYS]
    return next((name for name in names if name in shipped_recipes()), names[0])
