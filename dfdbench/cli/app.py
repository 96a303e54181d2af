"""The command line: the table of commands, one file a group, heavy imports inside the functions.

A UserError or a usage error becomes one line on stderr and exit code 2; Ctrl-C becomes one line and
exit code 130.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from dfdbench import __version__
from dfdbench.cli import assets, bench, catalogue, data, leaderboard, toy, vbench
from dfdbench.cli.distill import distill, plan
from dfdbench.cli.evaluate import evaluate, merge
from dfdbench.cli.experiments import check_app, quickstart, study
from dfdbench.cli.generate import generate
from dfdbench.cli.group import Commands
from dfdbench.cli.import_student import import_student
from dfdbench.cli.options import NamesMethods
from dfdbench.cli.report import report

PANELS: Mapping[str, Mapping[str, Callable[..., None] | typer.Typer]] = {
    "Whole experiments": {"quickstart": quickstart, "study": study, "check": check_app},
    "One step at a time": {
        "data": data.app,
        "distill": distill,
        "import-student": import_student,
        "generate": generate,
        "eval": evaluate,
        "merge": merge,
        "report": report,
    },
    "Publish": {"leaderboard": leaderboard.app, "vbench": vbench.app},
    "Plan and measure": {"plan": plan, "bench": bench.app, "toy": toy.app},
    "What there is": {
        "list": catalogue.list_names,
        "explain": catalogue.explain,
        "doctor": catalogue.doctor,
        "assets": assets.app,
    },
}

app = typer.Typer(
    cls=Commands,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            kind = NamesMethods if command in (distill, plan) else None
            app.command(name, cls=kind, rich_help_panel=panel)(command)
Commands.order = tuple(name for commands in PANELS.values() for name in commands)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Few-step video distillation: train DMD2, DP-DMD and DFD in one core, generate, score, report.

    Example: dfdbench quickstart
    """
    if version:
        typer.echo(f"dfdbench {__version__}")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
