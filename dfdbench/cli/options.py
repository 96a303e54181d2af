"""What commands share: options, completion of names, output for people or for scripts."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from dfdbench.utils.errors import clean, clean_json

MODELS = "toy-t2v, toy-i2v, a diffusers folder, or a hub id"
MACHINE = "Machine"  # panel of the help


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`, which has lines, for people."""
    if as_json:
        typer.echo(clean_json(json.dumps(value, ensure_ascii=False, indent=2)))
    else:
        typer.echo("\n".join(map(clean, text.split("\n"))))


def finite(value: float | None) -> float | None:
    """Callback of options that are numbers: no NaN, no infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


def methods() -> list[str]:
    """Names of the registered methods."""
    from dfdbench.distill.methods import method_names

    return method_names()


def recipes() -> list[str]:
    """Names of the shipped recipes."""
    from dfdbench.distill.recipe import shipped_recipes

    return shipped_recipes()


def studies() -> list[str]:
    """Names of the shipped studies."""
    from dfdbench.cli.study import shipped_studies

    return shipped_studies()


def cards() -> list[str]:
    """Names of the shipped cards of public students."""
    from dfdbench.distill.cards import shipped_cards

    return shipped_cards()


def suites() -> list[str]:
    """Names of the suites; imports torch."""
    from dfdbench.generate.suites import SUITES

    return list(SUITES)


def families() -> list[str]:
    """Names of the families of metrics."""
    from dfdbench.evaluate.metrics import FAMILY_NAMES

    return list(FAMILY_NAMES)


def metrics() -> list[str]:
    """Names of the metrics."""
    from dfdbench.evaluate.metrics import all_metrics

    return list(all_metrics())


def models() -> list[str]:
    """Names of the packaged models; imports torch."""
    from dfdbench.models.registry import PACKAGED

    return list(PACKAGED)


def completed(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Completion of a word to one of `names`, which are asked for only then."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


class NamesMethods(TyperCommand):
    """A command whose help of --method lists the registry, which is imported only then."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.params:
            if option.name == "method":
                setattr(option, "help", f"The loss: {', '.join(methods())}.")  # noqa: B010
        super().format_help(ctx, formatter)


Json = Annotated[bool, typer.Option("--json", help="Print machine-readable output.")]
Method = Annotated[
    str | None, typer.Option("--method", help="The loss.", autocompletion=completed(methods))
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Shipped name or TOML file; else toy/METHOD.",
        autocompletion=completed(recipes),
    ),
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Recipe value, such as dfd.p=0.3; repeatable.")
]
Model = Annotated[str, typer.Option("--model", help=f"{MODELS}.", autocompletion=completed(models))]
ModelOrElse = Annotated[
    str | None,
    typer.Option(
        "--model", help=f"{MODELS}; else what the recipe says.", autocompletion=completed(models)
    ),
]
TrainingSeed = Annotated[
    int | None, typer.Option("--seed", help="Training seed; else the recipe's.")
]
Init = Annotated[Path | None, typer.Option("--init", help="Finished DMD2 run to start from.")]
Arms = Annotated[
    list[str] | None, typer.Option("--arm", help="Only this arm; repeatable, else all.")
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Such as 1-8 or 1,2,5; else the suite's own.")
]
SuiteName = Annotated[
    str,
    typer.Option(
        help="Prompts and metrics; see dfdbench list suites.", autocompletion=completed(suites)
    ),
]
StoredSuite = Annotated[
    str | None,
    typer.Option(
        "--suite", help="Where the sources hold several.", autocompletion=completed(suites)
    ),
]
Prompts = Annotated[
    Path | None, typer.Option(help="Text file of prompts, one a line, instead of a suite.")
]
Images = Annotated[
    Path | None, typer.Option(help="First frames: VBench-I2V's folder, or pictures of your own.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        help="Clips sampled at once; else what fits, at most 16, and one of --frames and the like.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda or auto.", rich_help_panel=MACHINE)
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs at a time; else one a GPU, or a core (at most 4).",
        rich_help_panel=MACHINE,
    ),
]
ShardPart = Annotated[
    str | None,
    typer.Option("--shard", help="Part of the work such as 1/8, or auto.", rich_help_panel=MACHINE),
]
