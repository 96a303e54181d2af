"""`dfdbench bench`: times and memory with random weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfdbench.cli.options import Changes, Device, Json, Method, NamesMethods, RecipeName, show

if TYPE_CHECKING:
    import torch

app = typer.Typer(help="Times and memory, with random weights.")
SHAPE, TIMING = "Shape", "Timing"  # panels of the help
BenchModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="wan2.1-t2v-1.3b, cosmos-predict2.5-2b, or a folder; else the recipe's."
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, help="Of a clip; else the recipe's.", rich_help_panel=SHAPE)
]
Side = Annotated[
    int | None, typer.Option(min=1, help="Pixels; else the recipe's.", rich_help_panel=SHAPE)
]
Steps = Annotated[int, typer.Option(min=1, help="Timed ones.", rich_help_panel=TIMING)]
Warmup = Annotated[int, typer.Option(min=1, help="Untimed ones before.", rich_help_panel=TIMING)]
Compile = Annotated[
    bool, typer.Option("--compile", help="torch.compile the blocks.", rich_help_panel=TIMING)
]
Decode = Annotated[bool, typer.Option("--vae/--no-vae", help="Time the autoencoder too.")]
Out = Annotated[Path, typer.Option(help="JSON file to write.")]


@app.callback()
def bench() -> None:
    """Times and memory of any model and shape, with random weights: nothing is downloaded."""


def timed_device(device: str, model: str) -> "torch.device":
    """The device to time; a CPU, on which large models take minutes a step, is said aloud."""
    import torch

    from dfdbench.utils.device import choose_device
    from dfdbench.utils.progress import say

    where = torch.device(choose_device(device))
    if where.type == "cpu":
        say(
            f"timing {model} on the CPU{' (no GPU here)' if device == 'auto' else ''}: a step of a "
            "large model takes minutes and its memory; Ctrl-C stops"
        )
    return where


def shaped(
    frames: int | None, height: int | None, width: int | None, changes: list[str] | None
) -> list[str]:
    """The `--set` values, after those that the options of the shape are short for."""
    given = {"data.frames": frames, "data.height": height, "data.width": width}
    short = [f"{key}={value}" for key, value in given.items() if value is not None]
    return [*short, *(changes or [])]


@app.command("train", cls=NamesMethods)
def train(
    out: Out,
    model: BenchModel = None,
    method: Method = None,
    recipe: RecipeName = None,
    gan: Annotated[
        str | None, typer.Option(help="teacher, fake_score or none; else as the recipe says.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Clips at a time, in two rounds; else the recipe's rounds."),
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
    from dfdbench.distill.bench.train import bench_train
    from dfdbench.distill.distillation import asked_recipe
    from dfdbench.utils.errors import memory_remedy, unknown_name
    from dfdbench.utils.files import check_output, write_json

    check_output(out)
    values = shaped(frames, height, width, changes)
    if batch:  # a second round meets the gradients of the first, as in training
        values += [f"optim.batch={2 * batch}", "optim.accumulate=2"]
    if gan not in (None, "teacher", "fake_score", "none"):
        raise unknown_name("--gan", str(gan), ("teacher", "fake_score", "none"))
    if gan == "none":
        values += ["gan.weight=0.0"]
    elif gan:
        values += ["gan.weight=0.03", f"gan.features={gan}"]
    loaded = asked_recipe(method, recipe, model, changes=values)
    where = timed_device(device, loaded.model)
    with memory_remedy(
        "take a smaller --batch, gradient checkpointing or teacher.guidance_passes = "
        '"sequential" (--set), or a smaller shape; dfdbench plan says what each saves'
    ):
        times = bench_train(loaded, where, steps, warmup, compiled)
    write_json(out, times)
    rows = [f"{out}: {loaded.arm} on {loaded.model}, {times['device']['name']}"]
    for name in (step for step in ("student_step", "fake_score_step") if step in times):
        row = times[name]
        share = "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}"
        rows.append(
            f"  {name}: {row['median_seconds']:.3f} s, {row['tflops_a_second']:.3g} TFLOP/s{share}"
        )
    memory = ", ".join(f"{k} {v / 2**30:.2f} GiB" for k, v in times["peak_memory"].items())
    rows.append(f"  {times['samples_a_second']:.3g} samples/s; {memory}")
    show(times, as_json, "\n".join(rows))


@app.command("stream")
def stream(
    out: Out,
    model: BenchModel = None,
    recipe: RecipeName = "wan-self-forcing/dmd",
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the stream; else the recipe's. Longer needs a window.",
            rich_help_panel=SHAPE,
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=0, help="Latent frames that a block sees; 0: all.", rich_help_panel=SHAPE),
    ] = None,
    sinks: Annotated[
        int | None,
        typer.Option(min=0, help="First latent frames that stay in sight.", rich_help_panel=SHAPE),
    ] = None,
    height: Side = None,
    width: Side = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Timed clips, after one.", rich_help_panel=TIMING)
    ] = 2,
    compiled: Compile = False,
    decode: Decode = True,
    changes: Changes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time the stream of a causal student: its first block, frames a second after it, memory.

    Example: dfdbench bench stream --window 21 --frames 241 --out stream.json
    """
    from dfdbench.distill.bench.stream import bench_stream, rollout_layout
    from dfdbench.distill.distillation import asked_recipe
    from dfdbench.utils.errors import memory_remedy
    from dfdbench.utils.files import check_output, write_json

    check_output(out)
    loaded = asked_recipe(None, recipe, model, changes=shaped(None, height, width, changes))
    layout = rollout_layout(loaded, window, sinks)
    where = timed_device(device, loaded.model)
    with memory_remedy("take a smaller --window or shape, or --no-vae to time sampling alone"):
        times = bench_stream(loaded, where, frames, layout, steps, compiled, decode)
    write_json(out, times)
    peaks = "half of the clip " + " and all of it ".join(
        ", ".join(f"{k.removesuffix('_bytes')} {v / 2**30:.2f} GiB" for k, v in peak.items())
        for peak in times["peak_memory"].values()
    )
    whole = f", {times['fps_with_vae']:.2f} with autoencoder" if decode else ""
    show(
        times,
        as_json,
        f"{out}: {times['frames']} frames of {loaded.arm} on {times['device']['name']}: first "
        f"block after {times['latency']['median_seconds']:.3f} s, then {times['fps']:.2f} "
        f"frames/s{whole}; peak at {peaks}",
    )


@app.command("sample")
def sample(
    out: Out,
    model: BenchModel = None,
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
    decode: Decode = True,
    changes: Changes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time few-step sampling with and without decoding, and give frames a second of both.

    Example: dfdbench bench sample --model wan2.1-t2v-1.3b --student-steps 4 --out sample.json
    """
    from dfdbench.distill.bench.sample import bench_sample
    from dfdbench.distill.distillation import asked_recipe
    from dfdbench.utils.errors import memory_remedy
    from dfdbench.utils.files import check_output, write_json

    check_output(out)
    values = shaped(frames, height, width, changes)
    if student_steps:
        values.append(f"student.steps={student_steps}")
    loaded = asked_recipe(None, recipe or "toy/dmd2", model, changes=values)
    where = timed_device(device, loaded.model)
    with memory_remedy("take a smaller --batch or shape, or --no-vae to time sampling alone"):
        times = bench_sample(loaded, where, batch, steps, warmup, compiled, decode)
    write_json(out, times)
    whole = f", {times['fps_with_vae']:.2f} with autoencoder" if decode else ""
    show(
        times,
        as_json,
        f"{out}: {loaded.student.steps} steps of {batch} clip(s) in "
        f"{times['sampling']['median_seconds']:.3f} s on {times['device']['name']}: "
        f"{times['fps']:.2f} frames/s{whole}",
    )
