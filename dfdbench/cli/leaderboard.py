"""`dfdbench leaderboard add|render|verify`: short commands, their work in the other files here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dfdbench.cli.options import Arms, Json, StoredSuite, show

app = typer.Typer(help="Boards of entries with provenance and evidence.")

Folder = Annotated[Path, typer.Option("--folder", help="Folder of the leaderboards.")]
DEFAULT = Path("leaderboards")


@app.command("add")
def add(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, folders of runs, or score stores.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="Such as toy-t2v.")] = None,
    name: Annotated[str | None, typer.Option(help="Shown name of a single entry.")] = None,
    arms: Arms = None,
    suite: StoredSuite = None,
    published: Annotated[
        bool, typer.Option("--published", help="The paper's printed numbers instead of sources.")
    ] = False,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Write an entry for each arm in the sources: runs of one arm are its training seeds.

    An entry of the same id is replaced. With --published: the rows of --board, or of all boards of
    the paper.

    Example: dfdbench leaderboard add runs/dfd-seed0 runs/dfd-seed1 --board toy-t2v --name "my DFD"
    """
    from dfdbench.report.leaderboard import entries
    from dfdbench.report.leaderboard import sources as work
    from dfdbench.utils.errors import UserError

    found: Sequence[tuple[dict[str, Any], str | None]]
    if published:
        if sources or name or arms or suite:
            raise UserError("--published takes no source, --name, --arm or --suite; drop them")
        found = [(entry, None) for entry in work.published_entries(board)]
    elif not sources or not board:
        raise UserError("name runs or stores and a --board; or --published")
    else:
        entries.check_board(board)
        found = work.measured_entries(sources, board, name, arms or (), suite)
    with entries.writing(folder):
        made = [entries.write_entry(folder, entry, evidence) for entry, evidence in found]
    text = "".join(f"entry: {path}\n" for path in made) + "next: dfdbench leaderboard render"
    show({"entries": [str(path) for path in made]}, as_json, text)


@app.command("render")
def render(folder: Folder = DEFAULT, as_json: Json = False) -> None:
    """Write README.md, index.html and board.csv from the entries.

    Example: dfdbench leaderboard render --folder leaderboards
    """
    from dfdbench.report.leaderboard.render import render as work

    made = [str(path) for path in work(folder)]
    show({"files": made}, as_json, "\n".join(made))


@app.command("verify")
def verify(folder: Folder = DEFAULT, as_json: Json = False) -> None:
    """Recompute every number from its evidence, or compare it with the paper's tables.

    Exit code 1 on a fault.

    Example: dfdbench leaderboard verify --folder leaderboards
    """
    from dfdbench.report.leaderboard.verify import verify as work

    verdict = work(folder)
    show(verdict._asdict(), as_json, "\n".join([*verdict.faults, verdict.line()]))
    raise typer.Exit(1 if verdict.faults else 0)
