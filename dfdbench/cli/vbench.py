"""`dfdbench vbench export`: scores as VBench's own result files and the leaderboard's zip.

The files are those of evaluate/vbench/export.py.
"""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from dfdbench.cli.options import Arms, Json, StoredSuite, show
from dfdbench.utils.errors import UserError, unknown_name

app = typer.Typer(help="Files in VBench's own forms.")


@app.callback()
def vbench() -> None:
    """Files in VBench's own forms."""


@app.command("export")
def export(
    store: Annotated[Path, typer.Argument(help="Run folder, folder of scores, or .sqlite file.")],
    out: Annotated[Path, typer.Option(help="Folder of the files.")],
    suite: StoredSuite = None,
    arms: Arms = None,
    name: Annotated[
        str | None, typer.Option(help="Begins the files of a single arm; else its name.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of VBench's image suite, as of eval.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write VBench's result files (eval_results, full_info, the zip), one set an arm.

    Paths of clips are relative to the store's folder. The zip of incomplete results says how many
    dimensions it has, as in dfd_12of16.zip.

    Example: dfdbench vbench export scores --suite vbench --out submission
    """
    found = export_store(store, out, suite, arms, name, images)
    lines = [path for made in found["methods"].values() for path in made["files"]]
    lines += [
        f"{method}: {made['dimensions']} of {found['expected']} dimensions"
        for method, made in found["methods"].items()
    ]
    if found["conditions"]:
        lines.append(f"conditions: {found['conditions']}")
    lines.append(f"paths of clips are relative to {found['paths_from']}")
    show(found, as_json, "\n".join(lines))


def export_store(
    store: Path,
    out: Path,
    suite_name: str | None = None,
    methods: list[str] | None = None,
    name: str | None = None,
    images: Path | None = None,
) -> dict[str, Any]:
    """Write the files; the arguments are the options of the command.

    Returns:
        suite, protocol, conditions, expected (dimensions), paths_from, and methods: for each its
        files and the number of its dimensions.

    Raises:
        UserError: no store, suite or method of that name, or a suite that VBench has no files for.
    """
    from dfdbench.evaluate.store import Store
    from dfdbench.evaluate.vbench.export import dimensions_of, write_files
    from dfdbench.evaluate.vbench.totals import COLUMNS, PROTOCOLS, dimension_scores
    from dfdbench.generate.suites.stored import stored_suite

    path = store if store.suffix == ".sqlite" else store / "scores.sqlite"
    if not path.is_file():
        raise UserError(
            f"{store}: no scores here; run `dfdbench eval {store} --suite vbench` first"
        )
    with Store.reading(path) as opened:
        chosen = _choose(str(store), suite_name, opened.samples()["suite"].unique().tolist())
        suite = stored_suite(opened.meta(), chosen, images)
        if suite is None or not suite.protocol:
            raise UserError(
                f"suite {chosen}: not VBench's; export vbench, vbench-i2v, vbench-custom"
            )
        values = opened.values(chosen, COLUMNS)
    known = sorted(values["method"].unique())
    for method in methods or ():
        if method not in known:
            raise unknown_name(f"method in {store}", method, known)
    wanted = list(dict.fromkeys(methods or known))
    if name and len(wanted) > 1:
        raise UserError(f"--name {name}: {store} holds {', '.join(wanted)}; choose one by --arm")
    # clips of other first frames than VBench's must not look like a submission
    apart = suite.conditions if suite.protocol == "i2v" and not suite.info_sha256 else ""
    entries = suite.entries()
    made = {}
    for method in wanted:
        own = values[values["method"] == method]
        label = name or "-".join(filter(None, (re.sub(r"[^\w.-]+", "_", method), apart)))
        files = write_files(out, label, own, suite.protocol, entries, suite.static_filter)
        scores = dimension_scores(own, dimensions_of(entries), suite.static_filter)
        counted = set(scores.dropna(subset="score")["dimension"])
        made[method] = {
            "files": [str(file) for file in files],
            "dimensions": len(counted & set(PROTOCOLS[suite.protocol].dimensions)),
        }
    return {
        "suite": chosen,
        "protocol": suite.protocol,
        "conditions": suite.conditions,
        "expected": len(PROTOCOLS[suite.protocol].dimensions),
        "paths_from": str(path.parent),
        "methods": made,
    }


def _choose(store: str, suite: str | None, known: list[str]) -> str:
    if not known:
        raise UserError(f"{store}: holds no scored clips; run dfdbench eval first")
    if suite is None and len(known) > 1:
        raise UserError(f"{store}: holds suites {', '.join(known)}; choose by --suite")
    if suite is not None and suite not in known:
        raise unknown_name(f"suite in {store}", suite, known)
    return suite or known[0]
