"""`dfdbench quickstart`, `study` and `check`: experiments of several trainings, start to end.

study.py runs studies, check.py holds the regression check.
"""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import (
    MODELS,
    Json,
    Model,
    Processes,
    completed,
    models,
    show,
    studies,
)

check_app = typer.Typer()
Quick = Annotated[bool, typer.Option("--quick", help="The small experiment, for CI.")]
Bands = Annotated[
    Path | None, typer.Option("--bands", help="File of bands; else results/toy/reference.json.")
]


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for runs and report.")] = Path(
        "runs/quickstart"
    ),
    model: Model = "toy-t2v",
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Train DMD2, its control, DP-DMD and DFD on the toy, generate, score and report.

    Finished stages are skipped, so a stopped quickstart goes on when called again.

    Example: dfdbench quickstart --out runs/quickstart
    """
    from dfdbench.cli.study import load_study, run_study

    page = run_study(load_study("toy/quickstart"), out, (0,), model, processes)
    _show_report(page, as_json)


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="Shipped name, such as toy/main, or TOML file.", autocompletion=completed(studies)
        ),
    ],
    training_seeds: Annotated[str, typer.Option(help="Such as 0-2 or 0,1,5.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Folder; else runs/study-NAME.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"{MODELS}; else the study's.", autocompletion=completed(models)),
    ] = None,
    processes: Processes = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            help="Report of this study at other training seeds, to take up with its sampled "
            "teachers; repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the arms of a study over training seeds, generate, score and report.

    Finished runs are skipped, so a stopped study goes on when called again. Training seeds may be
    spread over machines: a report of some is taken up by --earlier on the next.

    Example: dfdbench study toy/main --training-seeds 0-2 --processes 2
    """
    from dfdbench.cli.study import load_study, run_study
    from dfdbench.generate.clips import parse_seeds

    chosen = load_study(name)
    folder = out or Path("runs") / f"study-{chosen.name}"
    seeds = parse_seeds(training_seeds, "--training-seeds")
    page = run_study(chosen, folder, seeds, model, processes, earlier or ())
    _show_report(page, as_json)


def _show_report(page: Path, as_json: bool) -> None:
    """Print where a report is, and what its data say of the papers' claims."""
    from dfdbench.cli.claims import verdict_lines, verdicts

    found = verdicts(page.parent / "deltas.json")
    rows = [
        {"claim": v.claim.text, "arm": v.claim.arm, "rival": v.claim.rival}
        | {"metric": v.claim.metric, "mean": v.mean, "low": v.low, "high": v.high}
        | {"seeds": v.seeds, "verdict": v.word}
        for v in found
    ]
    text = "\n".join([*verdict_lines(found), f"report: {page}"])
    show({"report": str(page), "verdicts": rows}, as_json, text)


@check_app.callback(invoke_without_command=True)
def check(
    context: typer.Context, quick: Quick = False, bands: Bands = None, as_json: Json = False
) -> None:
    """Repeat a fixed small experiment and compare it with the committed bands.

    Exit code 1 on a regression.

    Example: dfdbench check --quick
    """
    from dfdbench.cli import check as regress

    if context.invoked_subcommand is not None:
        if quick or bands or as_json:
            raise typer.BadParameter(f"put options after {context.invoked_subcommand}")
        return
    result = regress.check(regress.QUICK if quick else regress.FULL, bands)
    show(result.as_dict(), as_json, result.table())
    raise typer.Exit(0 if result.passed else 1)


@check_app.command("update")
def update(
    quick: Quick = False,
    repeats: Annotated[int, typer.Option(min=2, help="Training seeds.")] = 5,
    bands: Bands = None,
    as_json: Json = False,
) -> None:
    """Measure the bands anew and write them, after a change of training that is meant.

    Example: dfdbench check update --quick
    """
    from dfdbench.cli import check as regress

    path = regress.update(regress.QUICK if quick else regress.FULL, bands, repeats)
    show({"reference": str(path)}, as_json, f"reference: {path}")
