"""The command line: one short function a command, no logic, heavy imports inside the functions.

`main` is the console script. A UserError or a usage error becomes one line on stderr and exit code
2; Ctrl-C becomes one line and exit code 130.
"""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench import __version__
from dfdbench.cli.assets import app as assets_app
from dfdbench.cli.bench import app as bench_app
from dfdbench.cli.data import app as data_app
from dfdbench.cli.distill import distill
from dfdbench.cli.leaderboard import app as leaderboard_app
from dfdbench.cli.options import (
    MODEL_HELP,
    Batch,
    Commands,
    Device,
    Images,
    Json,
    Processes,
    Prompts,
    Seeds,
    SuiteName,
    show,
)
from dfdbench.cli.vbench import export

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
toy_app = typer.Typer(help="The toy world and its teacher.", rich_markup_mode=None)
app.add_typer(toy_app, name="toy")
app.add_typer(assets_app, name="assets")
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(leaderboard_app, name="leaderboard")


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


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for runs and report.")] = Path(
        "runs/quickstart"
    ),
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}.")] = "toy-t2v",
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Train DMD2, its control, DP-DMD and DFD on the toy, generate, score and report.

    Finished stages are skipped, so a stopped quickstart goes on when called again.

    Example: dfdbench quickstart --out runs/quickstart
    """
    from dfdbench.cli.study import load_study, run_study

    page = run_study(load_study("toy/quickstart"), out, (0,), model, processes)
    show({"report": str(page)}, as_json, f"report: {page}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Shipped name, such as toy/main, or TOML file.")],
    training_seeds: Annotated[str, typer.Option(help="Such as 0-2 or 0,1,5.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Folder; else runs/study-NAME.")] = None,
    model: Annotated[str | None, typer.Option(help=f"{MODEL_HELP}; else the study's.")] = None,
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Train the arms of a study over training seeds, generate, score and report.

    Finished runs are skipped, so a stopped study goes on when called again.

    Example: dfdbench study toy/main --training-seeds 0-2 --processes 2
    """
    from dfdbench.cli.study import load_study, run_study
    from dfdbench.generate.clips import parse_seeds

    chosen = load_study(name)
    folder = out or Path("runs") / f"study-{chosen.name}"
    page = run_study(chosen, folder, parse_seeds(training_seeds), model, processes)
    show({"report": str(page)}, as_json, f"report: {page}")


app.command()(distill)


@app.command()
def generate(
    run: Annotated[Path | None, typer.Argument(help="Run folder with a student.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="teacher or real instead of a run; made under --out.")
    ] = None,
    suite: SuiteName = "toy-t2v",
    prompts: Prompts = None,
    images: Images = None,
    seeds: Seeds = None,
    batch: Batch = 16,
    model: Annotated[str, typer.Option(help=f"Of --arm: {MODEL_HELP}.")] = "toy-t2v",
    cfg: Annotated[float | None, typer.Option(help="Guidance of --arm teacher.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder of --arm; else runs/ARM.")] = None,
    shard: Annotated[str | None, typer.Option(help="Part such as 1/8, or auto.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile the network; worth it on a GPU.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make the clips of a suite that a run lacks. With --shard, several processes share the work.

    Example: dfdbench generate runs/dfd-seed1 --suite toy-t2v --seeds 1-8
    """
    from dfdbench.generate.clips import generate as work
    from dfdbench.generate.clips import model_of, open_run, parse_seeds, rates
    from dfdbench.generate.suites import choose_suite
    from dfdbench.utils.device import local_device
    from dfdbench.utils.shards import parse_shard

    wanted = parse_seeds(seeds) if seeds else None
    part = parse_shard(shard or "1/1")
    chosen = open_run(run, arm, out, model, cfg)
    made = choose_suite(suite, prompts, images, [model_of(chosen)])
    placed = local_device(device) if shard == "auto" else device
    listing = work(chosen, made, wanted, batch, placed, shard=part, compiled=compiled)
    speed = rates(listing.parent, part)
    line = f"\n{speed['fps']:.3g} frames/s, {speed['fps_with_vae']:.3g} with VAE" if speed else ""
    show({"samples": str(listing), "speed": speed}, as_json, f"clips: {listing}{line}")


@app.command("eval")
def evaluate(
    inputs: Annotated[list[Path], typer.Argument(help="Runs, manifests, folders of videos.")],
    suite: Annotated[
        str | None, typer.Option(help="Prompts and metrics; else toy-t2v for runs, or clips.")
    ] = None,
    prompts: Prompts = None,
    images: Images = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of scores.sqlite; else the run's own.")
    ] = None,
    seeds: Seeds = None,
    batch: Batch = 16,
    device: Device = "auto",
    method_name: Annotated[
        list[str] | None,
        typer.Option(help="Method of videos without a manifest; once, or once an input."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Families such as colour,flicker; else the suite's.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Method or input that the others are compared with.")
    ] = None,
    poses: Annotated[Path | None, typer.Option(help="Folder of ViPE's pose files.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Clips at once; else a core.")] = None,
    shard: Annotated[str | None, typer.Option(help="Part such as 1/3, or auto.")] = None,
    vbench_python: Annotated[
        Path | None,
        typer.Option(help="Python that has the official vbench, for what it alone does."),
    ] = None,
    official: Annotated[
        str | None, typer.Option(help="VBench dimensions to run officially too, or all.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 where weights or totals lack a part.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score videos; a run's missing clips are generated first. Known scores are not recomputed.

    Example: dfdbench eval clips/dmd2 clips/dfd --reference clips/real --out scores
    """
    from dfdbench.evaluate.evaluation import evaluate as work

    summary = work(
        inputs, suite, prompts, out, seeds, batch, device, method_name, metrics, reference, poses,
        workers, shard, images, vbench_python, official,
    )  # fmt: skip
    show(
        vars(summary) | {"stores": [str(p) for p in summary.stores]},
        as_json,
        "\n".join(summary.lines()),
    )
    lacking = strict and bool(summary.skipped or summary.partial)
    raise typer.Exit(summary.exit_code or (3 if lacking else 0))


@app.command()
def merge(
    stores: Annotated[list[Path], typer.Argument(help="Score stores, such as eval --shard's.")],
    out: Annotated[Path, typer.Option(help="Folder of scores.sqlite, or a .sqlite file.")],
    prompts: Prompts = None,
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Join score stores and compute the values over prompts; contradictions are refused.

    Example: dfdbench merge scores/scores.shard-*.sqlite --out scores
    """
    from dfdbench.evaluate.merge import merge as work

    store, lines = work(stores, out, prompts, images)
    show({"store": str(store), "notes": lines}, as_json, "\n".join([f"scores: {store}", *lines]))


@app.command()
def report(
    sources: Annotated[list[Path], typer.Argument(help="Runs, folders of runs, or stores.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report"),
    suite: Annotated[str | None, typer.Option(help="Where the sources hold several.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt id of the seed grid.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="Another pair of arms, such as dfd_score:dfd.")
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
    page = work(sources, out, suite, prompt, pairs, paper)
    show({"report": str(page)}, as_json, f"report: {page}")


app.command()(export)


@app.command()
def check(
    quick: Annotated[bool, typer.Option(help="The small experiment, for CI.")] = False,
    update: Annotated[bool, typer.Option(help="Measure the reference anew and write it.")] = False,
    repeats: Annotated[int, typer.Option(min=2, help="Training seeds of --update.")] = 5,
    reference: Annotated[Path, typer.Option(help="File of the committed bands.")] = Path(
        "results/toy/reference.json"
    ),
    as_json: Json = False,
) -> None:
    """Repeat a fixed small experiment and compare it with the committed reference.

    Exit code 1 on a regression.

    Example: dfdbench check --quick
    """
    from dfdbench.cli import check as regress

    size = regress.QUICK if quick else regress.FULL
    if update:
        path = regress.update(size, reference, repeats)
        show({"reference": str(path)}, as_json, f"reference: {path}")
        return
    result = regress.check(size, reference)
    show(result.as_dict(), as_json, result.table())
    raise typer.Exit(0 if result.passed else 1)


@app.command()
def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file anew.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is installed and what is missing: versions, devices, decoders, weights, suites.

    Example: dfdbench doctor
    """
    from dfdbench.cli.doctor import examine, lines

    found = examine(verify)
    show(found, as_json, "\n".join(lines(found)))


@toy_app.command("train")
def toy_train(
    out: Annotated[Path, typer.Option(help="Folder of checkpoints and log.")] = Path(
        "runs/toy-train"
    ),
    processes: Annotated[int, typer.Option(min=1, help="Share each batch; one a core.")] = 1,
    t2v: Annotated[
        str | None,
        typer.Option(help="Model such as toy-t2v: train toy-i2v alone, on its autoencoder."),
    ] = None,
) -> None:
    """Train the toy's VAE and both teachers from seeds; goes on where it stopped. Takes hours.

    Example: dfdbench toy train --t2v toy-t2v --out runs/toy-train --processes 2
    """
    from dfdbench.models.registry import resolve_folder
    from dfdbench.toy.train import train
    from dfdbench.toy.train_i2v import train_i2v

    folder = resolve_folder(t2v) if t2v else train(out, processes=processes)
    typer.echo(f"autoencoder of: {folder}")
    typer.echo(f"model: {train_i2v(out, processes=processes, t2v=folder)}")


@toy_app.command("quality")
def toy_quality(
    model: Annotated[str, typer.Option(help=f"{MODEL_HELP}.")] = "toy-t2v",
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("quality.json"),
) -> None:
    """Measure VAE, oracle and teacher of the toy against its own truth.

    Example: dfdbench toy quality --model runs/toy-train/toy-t2v --out quality.json
    """
    from dfdbench.evaluate import toy_quality as quality
    from dfdbench.evaluate import toy_quality_i2v as quality_i2v
    from dfdbench.models.registry import resolve_folder, takes_first_frame

    folder = resolve_folder(model)
    (quality_i2v if takes_first_frame(str(folder)) else quality).measure(folder, out)
    typer.echo(f"quality: {out}")


def pair_of_arms(text: str) -> tuple[str, str]:
    """The two arms of an --against."""
    from dfdbench.utils.errors import UserError

    arms = text.split(":")
    if len(arms) != 2 or not all(arms):
        raise UserError(f"--against {text} names no pair; write ARM:ARM, such as dfd_score:dfd")
    return arms[0], arms[1]
