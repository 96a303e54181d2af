"""`dfdbench leaderboard submit|add|render|verify`: short commands, their work in report/."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dfdbench.cli.options import Arms, Json, StoredSuite, show

app = typer.Typer(help="Boards of entries with provenance and evidence.")

Folder = Annotated[Path, typer.Option("--folder", help="Folder of the leaderboards.")]
Site = Annotated[Path | None, typer.Option("--site", help="Folder of the static site.")]
Board = Annotated[str | None, typer.Option(help="Such as toy-t2v.")]
Shown = Annotated[str | None, typer.Option(help="Shown name of a single entry.")]
DEFAULT = Path("leaderboards")


@app.command("submit")
def submit(
    sources: Annotated[
        list[Path], typer.Argument(help="Run folders, folders of runs, or score stores.")
    ],
    board: Annotated[str, typer.Option(help="Such as toy-t2v.")],
    name: Shown = None,
    arms: Arms = None,
    suite: StoredSuite = None,
    clips: Annotated[
        int, typer.Option(min=0, max=100, help="Prompts of which two small clips go along.")
    ] = 0,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Make entries ready for a pull request: evidence, recipe and clips, the pages, the proof.

    Says what to do next. Exit code 1 where `verify` finds a fault.

    Example: dfdbench leaderboard submit runs/mine-seed0 runs/mine-seed1 --board toy-t2v --clips 2
    """
    from dfdbench.report.leaderboard import submit as work

    made = work.submit(sources, board, folder, name, arms or (), suite, clips)
    files = [str(path) for path in made.files]
    end = made.faults or [work.next_steps(board, folder)]
    lines = [*(f"wrote: {path}" for path in files), *(f"note: {n}" for n in made.notes), *end]
    value = {"files": files, "notes": made.notes, "faults": made.faults}
    show(value, as_json, "\n".join(lines))
    raise typer.Exit(1 if made.faults else 0)


@app.command("add")
def add(
    sources: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, folders of runs, or score stores.")
    ] = None,
    board: Board = None,
    name: Shown = None,
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
def render(folder: Folder = DEFAULT, site: Site = None, as_json: Json = False) -> None:
    """Write README.md, index.html and board.csv from the entries; with --site a site instead.

    The site is static: it needs no server and no network, and opens from a file.

    Example: dfdbench leaderboard render --site site
    """
    if site is not None:
        from dfdbench.report.site.check import write_site

        files = [str(path) for path in write_site(folder, site)]
        text = f"{len(files)} files; open {site / 'index.html'}"
        show({"files": files}, as_json, text)
        return
    from dfdbench.report.leaderboard.render import render as work

    made = [str(path) for path in work(folder)]
    show({"files": made}, as_json, "\n".join(made))


@app.command("verify")
def verify(folder: Folder = DEFAULT, site: Site = None, as_json: Json = False) -> None:
    """Recompute every number from its evidence, or compare it with the paper's tables.

    With --site also compare a rendered site, byte by byte, with what the entries render to. Exit
    code 1 on a fault.

    Example: dfdbench leaderboard verify --folder leaderboards
    """
    from dfdbench.report.leaderboard.verify import verify as work

    verdict = work(folder)
    if site is not None:
        from dfdbench.report.site.check import site_faults

        verdict = verdict._replace(faults=[*verdict.faults, *site_faults(folder, site)])
    show(verdict._asdict(), as_json, "\n".join([*verdict.faults, verdict.line()]))
    raise typer.Exit(1 if verdict.faults else 0)
