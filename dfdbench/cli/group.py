"""The group of all commands: faults in one line, old spellings, the order of the help."""

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from dfdbench import __version__
from dfdbench.cli.old import modern
from dfdbench.utils.errors import as_user_error, clean
from dfdbench.utils.files import cache_folder
from dfdbench.utils.stopping import Stopped

UsageError: Any = typer.BadParameter.__base__  # typer brings its own copy of click, or click itself


def is_first_process() -> bool:
    """Whether this process speaks for all that torchrun started; true without torchrun."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn faults into one line on stderr and the right exit code.

    Faults of the user, of the disk and of the memory: 2. A signal: 130. An error of dfdbench's
    own: 1, with its traceback in a file, or shown if DFDBENCH_DEBUG=1.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Stopped:  # which said so
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        _say("stopped; give the same command again to go on (distill: with --resume)")
        raise typer.Exit(130) from None
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "dfdbench"
        text = " ".join(error.format_message().split()).rstrip(".")
        if is_first_process():
            _say(f"error: {text}; see {command} --help")
        raise typer.Exit(2) from None
    except Exception as error:
        if debugged := os.environ.get("DFDBENCH_DEBUG") == "1":
            traceback.print_exc()
        fault = as_user_error(error)
        if fault is None and debugged:
            raise typer.Exit(1) from None
        _say(f"error: {fault or _internal(error)}")
        raise typer.Exit(2 if fault else 1) from None


def _say(line: str) -> None:
    typer.echo(clean(line), err=True)


def _internal(error: Exception) -> str:
    """A line for an error that nobody foresaw, and its traceback in a file."""
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
    head = f"dfdbench {__version__}, Python {platform.python_version()}\n{shlex.join(sys.argv)}\n"
    text = head + "".join(traceback.format_exception(error))
    for folder in (cache_folder() / "errors", Path(tempfile.gettempdir())):
        file = folder / f"dfdbench-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"{what}; this is dfdbench's own fault: please report it with {file}"
    return f"{what}; this is dfdbench's own fault: please report it (DFDBENCH_DEBUG=1 shows where)"


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
