"""`dfdbench distill`: train a student, or say with `--plan` what that takes. Registered by cli."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import MODEL_HELP, Device, Json, show
from dfdbench.distill.methods import method_names
from dfdbench.utils.errors import UserError, unknown_name

METHODS = ", ".join(method_names())


def distill(
    method: Annotated[str | None, typer.Option(help=f"One of {METHODS}.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Shipped name or TOML file; else toy/METHOD.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"{MODEL_HELP}; else the recipe's.")] = None,
    init: Annotated[Path | None, typer.Option(help="Finished DMD2 run to start from.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Recipe value, such as dfd.p=0.3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed; else the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; else runs/ARM-seedN.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it takes instead; downloads nothing.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="Of the plan.")] = 1,
    gpu: Annotated[
        str, typer.Option(help="Of the plan: h100, h200, b200, a100-80g, a100-40g, …")
    ] = "h100",
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="GiB of a GPU that has no name here.")
    ] = None,
    tflops: Annotated[float | None, typer.Option(min=0.1, help="Its peak in bfloat16.")] = None,
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the peak that the plan assumes.")
    ] = 0.4,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a few-step student. Alone, `--method dfd` runs on the toy on a CPU.

    On several GPUs: torchrun --nproc-per-node 8 -m dfdbench distill … --set optim.accumulate=8

    Example: dfdbench distill --method dfd --set dfd.p=0.3 --seed 1 --out runs/dfd-seed1
    """
    from dfdbench.distill.parallel import joined
    from dfdbench.distill.recipe import load_recipe

    if plan:
        from dfdbench.distill.plan import choose_gpu, make_plan, text

        loaded = load_recipe(recipe_name(method, recipe), overrides(method, model, seed, changes))
        made = make_plan(loaded, gpus, choose_gpu(gpu, gpu_memory, tflops), mfu, init is None)
        show(made, as_json, text(made))
        return

    from dfdbench.distill.loop import distill as work
    from dfdbench.distill.stages import run_name

    with joined(None if device == "auto" else device) as group:
        loaded = load_recipe(recipe_name(method, recipe), overrides(method, model, seed, changes))
        folder = out or Path("runs") / run_name(loaded.arm, loaded.seed)
        run = work(loaded, folder, resume, init, group.device.type)
    if not group.is_main:
        return
    show(
        {"run": str(run.path), "arm": run.arm, "student": str(run.student)},
        as_json,
        f"run: {run.path}\nnext: dfdbench eval {run.path}",
    )


def recipe_name(method: str | None, recipe: str | None) -> str:
    """The recipe asked for; without one, the toy's of the method."""
    if recipe:
        return recipe
    if method is None:
        raise UserError(f"name what to train: --method, one of {METHODS}, or --recipe")
    if method not in method_names():
        raise unknown_name("--method", method, method_names())
    return f"toy/{method}"


def overrides(
    method: str | None, model: str | None, seed: int | None, changes: list[str] | None
) -> list[str]:
    """The `--set` values with the options that are short for one."""
    given = {"method": method, "model": model, "seed": seed}
    short = [f"{k}={json.dumps(v)}" for k, v in given.items() if v is not None]
    return short + (changes or [])
