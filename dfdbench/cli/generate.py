"""`dfdbench generate`: clips of a run."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import (
    MACHINE,
    MODELS,
    Batch,
    Device,
    Images,
    Json,
    Prompts,
    Seeds,
    ShardPart,
    SuiteName,
    finite,
    show,
)

UNTRAINED = "Teacher or real clips"  # panel of the help
CAUSAL = "Streams of causal students"  # one clip at a time, written as its frames come


def generate(
    run: Annotated[Path | None, typer.Argument(help="Run folder with a student.")] = None,
    suite: SuiteName = "toy-t2v",
    prompts: Prompts = None,
    images: Images = None,
    seeds: Seeds = None,
    arm: Annotated[
        str | None,
        typer.Option(help="teacher or real, instead of a run.", rich_help_panel=UNTRAINED),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"{MODELS}; else toy-t2v.", rich_help_panel=UNTRAINED),
    ] = None,
    cfg: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Guidance of the teacher; else its own.",
            rich_help_panel=UNTRAINED,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Sampling steps of the teacher; else its own.", rich_help_panel=UNTRAINED
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Its run folder; else runs/ARM.", rich_help_panel=UNTRAINED),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a clip; else as trained. Longer needs a window.", rich_help_panel=CAUSAL
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Latent frames that a block sees; 0: all; else as trained.",
            rich_help_panel=CAUSAL,
        ),
    ] = None,
    sinks: Annotated[
        int | None,
        typer.Option(min=0, help="First latent frames that stay in sight.", rich_help_panel=CAUSAL),
    ] = None,
    prompt_schedule: Annotated[
        Path | None,
        typer.Option(
            help="Prompts of one clip, SECONDS | PROMPT a line, or JSON; instead of a suite.",
            rich_help_panel=CAUSAL,
        ),
    ] = None,
    batch: Batch = None,
    shard: ShardPart = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="torch.compile the network; worth it on a GPU.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make the clips of a suite that a run lacks. With --shard, several processes share the work.

    Clips of a causal student may be of any length, and change their prompt on the way; suites such
    as ar-30s say how long theirs are.

    Example: dfdbench generate runs/dfd-seed1 --suite toy-t2v --seeds 1-8
    """
    from dfdbench.generate.clips import parse_seeds
    from dfdbench.generate.generation import generate as work
    from dfdbench.generate.speed import rates
    from dfdbench.utils.shards import WHOLE, parse_shard

    samples = work(
        run,
        arm=arm,
        suite=suite,
        prompts=prompts,
        images=images,
        seeds=None if seeds is None else parse_seeds(seeds),
        batch=batch,
        model=model,
        cfg=cfg,
        steps=steps,
        out=out,
        shard=shard,
        compiled=compiled,
        device=device,
        frames=frames,
        window=window,
        sinks=sinks,
        schedule=prompt_schedule,
    )
    speed = rates(samples.parent, parse_shard(shard) if shard else WHOLE)
    line = f"\n{speed['fps']:.3g} frames/s, {speed['fps_with_vae']:.3g} with VAE" if speed else ""
    if speed and speed["latency_seconds"]:
        line += f", first frame after {speed['latency_seconds']:.3g} s"
    show({"samples": str(samples), "speed": speed}, as_json, f"clips: {samples}{line}")
