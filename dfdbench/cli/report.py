"""`dfdbench report`: a page from scores."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import Json, StoredSuite, show
from dfdbench.utils.errors import UserError


def report(
    sources: Annotated[
        list[Path], typer.Argument(help="Runs, folders of runs, stores, or earlier reports.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    suite: StoredSuite = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt id of the seed grid; else the first.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Another pair of arms, such as dfd_score:dfd; repeatable."),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Also a table beside the paper's, such as t2v_wan; all: each it can."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write tables, figures, differences and a page from scores.

    Example: dfdbench report runs/quickstart --out report --prompt ball-desert
    """
    from dfdbench.report.page import report as work

    pairs = [pair_of_arms(text) for text in against or []]
    page = work(sources, out, suite=suite, prompt=prompt, against=pairs, paper_setting=paper)
    show({"report": str(page)}, as_json, f"report: {page}")


def pair_of_arms(text: str) -> tuple[str, str]:
    """The two arms of an --against."""
    first, _, second = text.partition(":")
    if not first or not second or ":" in second:
        raise UserError(f"--against {text} names no pair; write ARM:ARM, such as dfd_score:dfd")
    return first, second
