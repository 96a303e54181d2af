"""What every command shares: faults in one line, options, output for people or for scripts.

Used by cli.py and the files of its groups of commands.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dfdbench.utils.errors import UserError

UsageError: Any = typer.BadParameter.__base__  # typer brings its own copy of click, or click itself


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn faults of the user into one line on stderr and the right exit code."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "dfdbench"
        text = " ".join(error.format_message().split()).rstrip(".")
        if os.environ.get("RANK", "0") == "0":  # torchrun gives all its processes the same line
            typer.echo(f"error: {text}; see {command} --help", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(
            "stopped; give the same command again to go on (distill: with --resume)", err=True
        )
        raise typer.Exit(130) from None


class Commands(TyperGroup):
    """A command group that reports faults in one line."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with one_line_errors():
            return super().invoke(ctx)


Json = Annotated[bool, typer.Option("--json", help="Print machine-readable output.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Clips sampled at once.")]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Such as 1-8 or 1,2,5; else the suite's own.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; else one a core, at most 4.")
]
Prompts = Annotated[
    Path | None, typer.Option(help="Text file of prompts, one a line, instead of a suite.")
]
Images = Annotated[
    Path | None, typer.Option(help="First frames: VBench-I2V's folder, or pictures of your own.")
]
SuiteName = Annotated[str, typer.Option("--suite", help="Prompts and metrics; see the README.")]
MODEL_HELP = "toy-t2v, toy-i2v, a diffusers folder, or a hub id"


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text` for people."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)
