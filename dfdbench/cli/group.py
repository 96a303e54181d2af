"""The group of all commands: faults in one line, old spellings, the order of the help."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from dfdbench.cli.old import modern
from dfdbench.utils.errors import UserError

UsageError: Any = typer.BadParameter.__base__  # typer brings its own copy of click, or click itself


def is_first_process() -> bool:
    """Whether this process speaks for all that torchrun started; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


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
        if is_first_process():
            typer.echo(f"error: {text}; see {command} --help", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(
            "stopped; give the same command again to go on (distill: with --resume)", err=True
        )
        raise typer.Exit(130) from None


class Commands(TyperGroup):
    """A command group that reports faults in one line and takes the old spellings."""

    order: tuple[str, ...] = ()  # of the names in the help; app.py sets it

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=self.order.index)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words, hints = modern(args)
        if not ctx.resilient_parsing and is_first_process():
            for hint in hints:
                typer.echo(hint, err=True)
        return super().parse_args(ctx, words)

    def invoke(self, ctx: Any) -> Any:
        with one_line_errors():
            return super().invoke(ctx)
