"""`dfdbench eval`: scores of videos; `dfdbench merge`: one store of many."""

from pathlib import Path
from typing import Annotated

import typer

from dfdbench.cli.options import (
    MACHINE,
    Batch,
    Device,
    Images,
    Json,
    Prompts,
    Seeds,
    ShardPart,
    completed,
    families,
    show,
    suites,
)

VBENCH = "VBench"  # panel of the help


def evaluate(
    inputs: Annotated[list[Path], typer.Argument(help="Runs, manifests, folders of videos.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of scores.sqlite; else the run's own.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Prompts and metrics; else toy-t2v for runs, or clips.",
            autocompletion=completed(suites),
        ),
    ] = None,
    prompts: Prompts = None,
    images: Images = None,
    seeds: Seeds = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Families such as colour,flicker; else the suite's.",
            autocompletion=completed(families),
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Arm or input that the others are compared with.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Name of videos without a manifest; repeatable: one, or one an input."),
    ] = None,
    poses: Annotated[Path | None, typer.Option(help="Folder of ViPE's pose files.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 where weights or totals lack a part.")
    ] = False,
    allow_damaged: Annotated[
        bool,
        typer.Option("--allow-damaged", help="Score clips on which the decoder reports errors."),
    ] = False,
    official_results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Result file of the official vbench on these clips; repeatable.",
            rich_help_panel=VBENCH,
        ),
    ] = None,
    batch: Batch = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Clips scored at once; else a core.", rich_help_panel=MACHINE),
    ] = None,
    shard: ShardPart = None,
    device: Device = "auto",
    table: Annotated[
        bool, typer.Option("--table", help="Print all main scores, not the first five alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score videos; a run's missing clips are generated first. Known scores are not recomputed.

    Example: dfdbench eval clips/dmd2 clips/dfd --reference clips/real --out scores
    """
    from dfdbench.evaluate.evaluation import evaluate as work

    summary = work(
        inputs,
        suite=suite,
        prompts=prompts,
        images=images,
        out=out,
        seeds=seeds,
        batch=batch,
        device=device,
        arm=arm,
        metrics=metrics,
        reference=reference,
        poses=poses,
        workers=workers,
        shard=shard,
        official_results=official_results or (),
        allow_damaged=allow_damaged,
    )
    show(
        vars(summary) | {"stores": [str(path) for path in summary.stores]},
        as_json,
        "\n".join(summary.lines(table)),
    )
    lacking = strict and bool(summary.skipped or summary.partial)
    raise typer.Exit(summary.exit_code or (3 if lacking else 0))


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
