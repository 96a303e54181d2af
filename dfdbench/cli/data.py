"""`dfdbench data`: latent sets to train on. Registered by cli."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli import curate, describe
from dfdbench.cli.options import MACHINE, Device, Json, Model, ShardPart, finite, show

app = typer.Typer(help="Latent sets to train on.")
app.add_typer(curate.app, name="curate")
app.command("describe")(describe.describe)


@app.callback()
def data() -> None:
    """Latent sets to train on."""


@app.command("encode")
def encode(
    inputs: Annotated[
        list[Path], typer.Argument(help="Folders of mp4 + txt, manifests, WebDataset tars.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the set.")],
    model: Model = "toy-t2v",
    frames: Annotated[int, typer.Option(min=0, help="A clip; 0: the model's own.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="Pixels; 0: the model's own.")] = 0,
    width: Annotated[int, typer.Option(min=0, help="Pixels; 0: the model's own.")] = 0,
    fps: Annotated[
        float, typer.Option(min=0, callback=finite, help="Frames a second; 0: the model's own.")
    ] = 0,
    negative: Annotated[
        str | None, typer.Option(help="Negative prompt; else the model's own.")
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Clips a shard.")] = 100,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Decoders; else one a core.", rich_help_panel=MACHINE),
    ] = None,
    shard: ShardPart = None,
    text: Annotated[
        bool,
        typer.Option(
            help="Store prompt embeddings; or let training encode prompts each time (Cosmos: "
            "saves 103 MB a clip)."
        ),
    ] = True,
    caption_levels: Annotated[
        bool,
        typer.Option("--caption-levels", help="Keep long, medium and short captions to draw from."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; finished shards stay.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Encode clips and captions once, into WebDataset shards that training streams.

    A clip's first frames are taken at the model's rate, resized to cover its size, and cut to the
    centre. What cannot be used is listed and left out.

    Example: dfdbench data encode clips --model toy-t2v --out latents
    """
    from dfdbench.distill.data.encode import encode as work
    from dfdbench.distill.data.sources import Target
    from dfdbench.utils.manifest import capped
    from dfdbench.utils.shards import parse_shard

    target = Target(frames, height, width, fps)
    part = None if shard is None else parse_shard(shard)
    done = work(
        inputs,
        model,
        out,
        target,
        shard_size,
        workers,
        device,
        negative,
        resume,
        part,
        text,
        caption_levels=caption_levels,
    )
    lines = capped([f"left out: {reason}" for _, reason in done.left_out], out / "shard-*.json")
    lines.append(f"{done.samples} samples in {done.folder}, {len(done.left_out)} clips left out")
    if done.finished:
        lines.append(
            f"next: dfdbench distill --method dmd2 --model {model} --set data.source={done.folder}"
        )
    else:
        lines.append("other parts are to come; the last one writes index.json")
    value = {
        "folder": str(done.folder),
        "samples": done.samples,
        "finished": done.finished,
        "left_out": [{"source": name, "reason": reason} for name, reason in done.left_out],
    }
    show(value, as_json, "\n".join(lines))
