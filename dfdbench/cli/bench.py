"""`dfdbench bench`: times and memory with random weights. Registered by cli."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import Device, Json, show

app = typer.Typer(help="Times and memory, with random weights.", rich_markup_mode=None)
Model = Annotated[
    str | None,
    typer.Option(help="wan2.1-t2v-1.3b, cosmos-predict2.5-2b, or a folder; else the recipe's."),
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Shipped name or TOML file; else toy/METHOD.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Recipe value, such as student.steps=2.")
]
Frames = Annotated[int | None, typer.Option(min=1, help="Of a clip; else the recipe's.")]
Side = Annotated[int | None, typer.Option(min=1, help="Pixels; else the recipe's.")]
Steps = Annotated[int, typer.Option(min=1, help="Timed ones.")]
Warmup = Annotated[int, typer.Option(min=1, help="Untimed ones before.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile the blocks.")]
Out = Annotated[Path, typer.Option(help="JSON file to write.")]


@app.callback()
def bench() -> None:
    """Times and memory of any model and shape, with random weights: nothing is downloaded."""


def overrides(
    model: str | None,
    frames: int | None,
    height: int | None,
    width: int | None,
    changes: list[str] | None,
) -> list[str]:
    """The `--set` values with the options that are short for one."""
    given = {"data.frames": frames, "data.height": height, "data.width": width}
    short = [f"{key}={value}" for key, value in given.items() if value is not None]
    return [*([f'model="{model}"'] if model else []), *short, *(changes or [])]


@app.command("train")
def train(
    out: Out,
    model: Model = None,
    method: Annotated[str | None, typer.Option(help="dmd2, dp_dmd or dfd.")] = None,
    recipe: RecipeName = None,
    gan: Annotated[
        str | None, typer.Option(help="teacher, fake_score or none; else as the recipe says.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Clips at a time, one round; else the recipe's.")
    ] = None,
    frames: Frames = None,
    height: Side = None,
    width: Side = None,
    steps: Steps = 5,
    warmup: Warmup = 2,
    compiled: Compile = False,
    changes: Changes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time student and fake score steps by the real training code, and their peak memory.

    Example: dfdbench bench train --recipe wan2.1-t2v-1.3b/dmd2 --batch 1 --out train.json
    """
    import torch

    from dfdbench.cli.distill import recipe_name
    from dfdbench.distill.bench.train import bench_train
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.utils.device import choose_device
    from dfdbench.utils.errors import unknown_name
    from dfdbench.utils.files import write_json

    values = overrides(model, frames, height, width, changes)
    if batch:
        values += [f"optim.batch={batch}", "optim.accumulate=1"]
    if gan not in (None, "teacher", "fake_score", "none"):
        raise unknown_name("--gan", str(gan), ("teacher", "fake_score", "none"))
    if gan == "none":
        values += ["gan.weight=0.0"]
    elif gan:
        values += ["gan.weight=0.03", f"gan.features={gan}"]
    loaded = load_recipe(recipe_name(method, recipe), values)
    found = bench_train(loaded, torch.device(choose_device(device)), steps, warmup, compiled)
    write_json(out, found)
    rows = [f"{out}: {loaded.arm} on {loaded.model}, {found['device']['name']}"]
    for name in ("student_step", "fake_score_step"):
        row = found[name]
        share = "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}"
        rows.append(
            f"  {name}: {row['median_seconds']:.3f} s, {row['tflops_a_second']:.3g} TFLOP/s{share}"
        )
    memory = ", ".join(f"{k} {v / 2**30:.2f} GiB" for k, v in found["peak_memory"].items())
    rows.append(f"  {found['samples_a_second']:.3g} samples/s; {memory}")
    show(found, as_json, "\n".join(rows))


@app.command("sample")
def sample(
    out: Out,
    model: Model = None,
    recipe: RecipeName = None,
    student_steps: Annotated[
        int | None, typer.Option(min=1, help="Of the student; else the recipe's.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips at a time.")] = 1,
    frames: Frames = None,
    height: Side = None,
    width: Side = None,
    steps: Steps = 5,
    warmup: Warmup = 2,
    compiled: Compile = False,
    decode: Annotated[
        bool, typer.Option("--vae/--no-vae", help="Time the autoencoder too.")
    ] = True,
    changes: Changes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time few-step sampling with and without decoding, and give frames a second of both.

    Example: dfdbench bench sample --model wan2.1-t2v-1.3b --student-steps 4 --out sample.json
    """
    import torch

    from dfdbench.distill.bench.sample import bench_sample
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.utils.device import choose_device
    from dfdbench.utils.files import write_json

    values = overrides(model, frames, height, width, changes)
    if student_steps:
        values.append(f"student.steps={student_steps}")
    loaded = load_recipe(recipe or "toy/dmd2", values)
    found = bench_sample(
        loaded, torch.device(choose_device(device)), batch, steps, warmup, compiled, decode
    )
    write_json(out, found)
    whole = f", {found['fps_with_vae']:.2f} with autoencoder" if decode else ""
    show(
        found,
        as_json,
        f"{out}: {loaded.student.steps} steps of {batch} clip(s) in "
        f"{found['sampling']['median_seconds']:.3f} s on {found['device']['name']}: "
        f"{found['fps']:.2f} frames/s{whole}",
    )
