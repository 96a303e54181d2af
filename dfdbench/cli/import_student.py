"""`dfdbench import-student`: a few-step student of another program as a run."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli import options
from dfdbench.cli.options import Json, completed, finite, show
from dfdbench.utils.errors import UserError


def import_student(
    file: Annotated[
        Path,
        typer.Argument(help="Weights: .safetensors or .pt, a diffusers folder, or a LoRA."),
    ],
    model: Annotated[str, typer.Option(help="Its base: a diffusers folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    card: Annotated[
        str | None,
        typer.Option(
            help="How it is sampled: a shipped name (list cards) or a TOML file.",
            autocompletion=completed(options.cards),
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of a LoRA; by default 1.", callback=finite)
    ] = None,
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
    """Make a run of a few-step student that another program has trained.

    With --card any published student is taken, whole or as a LoRA, and sampled as the card says.
    Without one it is a causal Wan student, sampled as Self Forcing has it. Its student/ is a
    diffusers folder; generate, eval and report take the run as any other.

    Example: dfdbench import-student self_forcing_dmd.pt --card self-forcing
    --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --out runs/self-forcing
    """
    from dfdbench.distill.import_card import import_published
    from dfdbench.distill.import_student import import_student as work
    from dfdbench.models.causal import Layout

    given = (block_frames, window, sinks) != (None, None, None)
    if card is not None:
        if given:
            raise UserError("--card says the blocks; leave out --block-frames, --window, --sinks")
        run = import_published(file, card, model, out, 1.0 if strength is None else strength)
    elif strength is not None:
        raise UserError(f"--strength {strength:g} is of a LoRA, which needs a --card; add one")
    else:
        layout = Layout(block_frames or 3, window or 0, sinks or 0) if given else None
        run = work(file, model, out, layout)
    text = f"run: {run.path}\nnext: dfdbench generate {run.path} --suite t2v-mixed"
    value = {"run": str(run.path), "student": str(run.student), "imported": run.info["imported"]}
    show(value, as_json, text)
