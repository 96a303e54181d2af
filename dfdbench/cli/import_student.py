"""`dfdbench import-student`: a causal student of another program as a run."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import Json, show


def import_student(
    file: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of Self Forcing (.pt or .safetensors), or a diffusers folder."
        ),
    ],
    model: Annotated[str, typer.Option(help="Its teacher: a diffusers folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    block_frames: Annotated[
        int | None, typer.Option(min=1, help="Latent frames a block; by default as it says, or 3.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=0, help="Latent frames that a block sees; 0, the default: all before it."),
    ] = None,
    sinks: Annotated[
        int | None, typer.Option(min=0, help="First ones that stay in sight; by default none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a causal Wan student that another program, such as Self Forcing's, has trained.

    Its student/ is a diffusers folder; generate and eval take the run as any other.

    Example: dfdbench import-student self_forcing_dmd.pt --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    --out runs/self-forcing
    """
    from dfdbench.distill.import_student import import_student as work
    from dfdbench.models.causal import Layout

    given = (block_frames, window, sinks) != (None, None, None)
    layout = Layout(block_frames or 3, window or 0, sinks or 0) if given else None
    run = work(file, model, out, layout)
    text = f"run: {run.path}\nnext: dfdbench generate {run.path} --suite t2v-mixed"
    show({"run": str(run.path), "student": str(run.student)}, as_json, text)
