"""`dfdbench distill`: train a student; `dfdbench plan`: what that takes."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.group import is_first_process
from dfdbench.cli.options import (
    Changes,
    Device,
    Init,
    Json,
    Method,
    ModelOrElse,
    RecipeName,
    TrainingSeed,
    finite,
    show,
)

GPU = "GPU"  # panel of the help
Unused = Annotated[str | None, typer.Option(hidden=True)]


def distill(
    method: Method = None,
    recipe: RecipeName = None,
    model: ModelOrElse = None,
    init: Init = None,
    changes: Changes = None,
    seed: TrainingSeed = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; else runs/ARM-seedN.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a few-step student. Alone, `--method dfd` runs on the toy on a CPU.

    On several GPUs: torchrun --nproc-per-node 8 -m dfdbench distill … --set optim.accumulate=8

    Example: dfdbench distill --method dfd --set dfd.p=0.3 --seed 1 --out runs/dfd-seed1
    """
    from dfdbench.distill.distillation import distill as work

    run = work(
        method,
        recipe=recipe,
        model=model,
        init=init,
        changes=changes or (),
        seed=seed,
        out=out,
        resume=resume,
        device=device,
    )
    if is_first_process():
        show(
            {"run": str(run.path), "arm": run.arm, "student": str(run.student)},
            as_json,
            f"run: {run.path}\nnext: dfdbench eval {run.path}",
        )


def plan(
    method: Method = None,
    recipe: RecipeName = None,
    model: ModelOrElse = None,
    init: Init = None,
    changes: Changes = None,
    seed: TrainingSeed = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many.", rich_help_panel=GPU)] = 1,
    gpu: Annotated[
        str, typer.Option(help="h100, h200, b200, a100-80g, a100-40g, …", rich_help_panel=GPU)
    ] = "h100",
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            min=1, callback=finite, help="GiB of a GPU that has no name here.", rich_help_panel=GPU
        ),
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.1, callback=finite, help="Its peak in bfloat16.", rich_help_panel=GPU),
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            callback=finite,
            help="Share of the peak to assume; else an estimate by attention and compile.",
            rich_help_panel=GPU,
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            min=0, callback=finite, help="Of a GPU for an hour, for the cost.", rich_help_panel=GPU
        ),
    ] = None,
    out: Unused = None,
    device: Unused = None,
    resume: Annotated[bool, typer.Option("--resume", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Say what a training takes: hours, memory, cost, then why. Downloads nothing.

    It takes the options of distill, so that one word of a line can be exchanged.

    Example: dfdbench plan --recipe wan2.1-t2v-1.3b/dfd --gpus 8 --price 3
    """
    from dfdbench.distill.distillation import asked_recipe
    from dfdbench.distill.plan import choose_gpu, make_plan, text
    from dfdbench.distill.plan.headline import headline, whole
    from dfdbench.utils.errors import memory_remedy

    chosen = asked_recipe(method, recipe, model, seed, changes or ())
    card = choose_gpu(gpu, gpu_memory, tflops)
    with memory_remedy("plan a smaller optim.batch (--set), or close other programs"):
        planned = make_plan(chosen, gpus, card, mfu, init is None)
    value = planned | {"whole": whole(planned, price)}
    show(value, as_json, f"{headline(planned, price)}\n\n{text(planned)}")
