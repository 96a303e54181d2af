"""`dfdbench toy`: the toy world's checkpoints, trained and measured."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import MACHINE, Json, Model, show
from dfdbench.utils.errors import clean

app = typer.Typer(help="The toy world, its autoencoder and its teachers.")


@app.command("train")
def train(
    out: Annotated[Path, typer.Option(help="Folder of checkpoints and log.")] = Path(
        "runs/toy-train"
    ),
    t2v: Annotated[
        str | None,
        typer.Option(help="Model such as toy-t2v: train toy-i2v alone, on its autoencoder."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Share each batch; one a core.", rich_help_panel=MACHINE)
    ] = 1,
    as_json: Json = False,
) -> None:
    """Train the toy's VAE and both teachers from seeds; goes on where it stopped. Takes hours.

    Example: dfdbench toy train --t2v toy-t2v --out runs/toy-train --processes 2
    """
    from dfdbench.models.registry import resolve_folder
    from dfdbench.toy.train import train as work
    from dfdbench.toy.train_i2v import train_i2v

    folder = resolve_folder(t2v) if t2v else work(out, processes=processes)
    if not as_json:
        typer.echo(clean(f"autoencoder of: {folder}"))
    model = train_i2v(out, processes=processes, t2v=folder)
    show({"t2v": str(folder), "i2v": str(model)}, as_json, f"model: {model}")


@app.command("quality")
def quality(
    model: Model = "toy-t2v",
    out: Annotated[Path, typer.Option(help="JSON file to write, and a .png of that name.")] = Path(
        "quality.json"
    ),
    as_json: Json = False,
) -> None:
    """Measure VAE, oracle and teacher of the toy against its own truth, and draw some clips.

    Example: dfdbench toy quality --model runs/toy-train/toy-t2v --out quality.json
    """
    from dfdbench.evaluate import toy_quality, toy_quality_i2v
    from dfdbench.models.registry import resolve_folder, takes_first_frame
    from dfdbench.utils.files import check_output

    check_output(out)
    folder = resolve_folder(model)
    (toy_quality_i2v if takes_first_frame(str(folder)) else toy_quality).measure(folder, out)
    show({"quality": str(out)}, as_json, f"quality: {out}")
