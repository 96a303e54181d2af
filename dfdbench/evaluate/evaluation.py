"""`dfdbench eval` and `dfdbench.evaluate`: from options to one call of the scoring engine.

torch is imported only where something needs it: a run whose clips must be made, a GPU that is
named, or a metric with a model, so that a second call on known videos is over in a moment.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dfdbench.evaluate.engine import score
from dfdbench.evaluate.metrics import Setting
from dfdbench.evaluate.metrics.vbench.official import NAME as OFFICIAL
from dfdbench.evaluate.summary import Summary
from dfdbench.evaluate.vbench.decord_frames import seen_otherwise
from dfdbench.evaluate.vbench.official import keep_official_results
from dfdbench.generate.suites import choose_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.callable_module import takes_fields_of
from dfdbench.utils.device import choose_device
from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.manifest import Seed
from dfdbench.utils.reading import Name, Outside, validate
from dfdbench.utils.shards import parse_shard

Words = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class EvalOptions(Outside):
    """What an evaluation can be told; the options of `dfdbench eval`, none of them needed.

    suite: prompts and metrics; else toy-t2v for runs, or toy-i2v if their models continue a
    picture, and `clips` for anything else. prompts: a file of one's own prompts. images: first
    frames for suites of VBench. out: folder of scores.sqlite, or a .sqlite file; else a run's own
    folder, or ./scores-NAME. seeds: of the clips that a run lacks, "1-8" or numbers. batch: clips
    made at once; else as many as fit, at most 16. device: auto, cpu, cuda or cuda:N. arm: name of
    clips for which no manifest has one; once, or once an input. metrics: families, as a list or
    with commas between; else the suite's. reference: a method or an input that the others are
    compared with. poses: folder of ViPE's pose files. workers: clips scored at once; else one a
    core, at most 8. shard: a part such as "1/3", or "auto". official_results: files
    (NAME_eval_results.json) that the official package vbench wrote about the clips. allow_damaged:
    score clips on which the decoder reports errors; else they are left out.
    """

    suite: Words | None = None
    prompts: Path | None = None
    images: Path | None = None
    out: Path | None = None
    seeds: Words | Sequence[Seed] | None = None
    batch: Count | None = None
    device: str = "auto"
    arm: Name | Sequence[Name] | None = None
    metrics: Words | Sequence[Words] | None = None
    reference: str | Path | None = None
    poses: Path | None = None
    workers: Count | None = None
    shard: Words | None = None
    official_results: Sequence[Path] = ()
    allow_damaged: bool = False


@takes_fields_of(EvalOptions)
def evaluate(inputs: str | Path | Sequence[str | Path], **options: Any) -> Summary:
    """Generate what the runs among `inputs` lack of the suite, then score everything.

    Known scores are not computed again. Example:

        dfdbench.evaluate(["clips/dmd2", "clips/dfd"], reference="clips/real", out="scores")

    Args:
        inputs: run folders, manifests (.jsonl, .csv) or folders of videos; one, or several.
        options: the fields of `EvalOptions`.

    Returns:
        A `Summary`: the stores written, how many clips were scored, what was left out and why.

    Raises:
        UserError: an option that names nothing, or what dfdbench.evaluate.engine.score raises.
    """
    chosen = validate(EvalOptions, options, "evaluate", "see dfdbench.evaluate.evaluation")
    named = [inputs] if isinstance(inputs, str | Path) else inputs
    return _evaluate([Path(path) for path in named], chosen)


def _evaluate(inputs: list[Path], options: EvalOptions) -> Summary:
    """`evaluate` with its options checked."""
    shard = None if options.shard is None else parse_shard(options.shard)
    runs = [path for path in inputs if (path / "run.json").is_file()]
    suite = _choose_suite(runs, options)
    device = options.device
    if device != "auto":
        choose_device(device)  # refuses what is not here before anything is made
    if options.reference == "":
        raise UserError("--reference: names nothing; give a method or an input, or leave it out")
    results = options.official_results
    keep = keep_official_results(results) if results else None
    if runs:
        from dfdbench.generate.clips import parse_seeds
        from dfdbench.generate.missing import complete

        text = options.seeds
        seeds = parse_seeds(text) if isinstance(text, str) else text or None
        with memory_remedy("take a smaller --batch, or a GPU with more memory"):
            complete(inputs, suite, seeds, options.batch, device, shard)
    elif options.seeds is not None:
        raise UserError(f"--seeds {options.seeds}: no input is a run, whose clips could be made")
    families = _names(options.metrics) or list(suite.metrics)
    if options.poses:
        families.append("vipe")
    if keep:
        families = [family for family in families if family != OFFICIAL]
    with memory_remedy("take fewer --workers: each holds a clip and what metrics make of it"):
        summary = score(
            inputs,
            suite,
            options.out,
            method_name=options.arm,
            families=families,
            reference=options.reference,
            workers=options.workers,
            shard=shard,
            setting=Setting(device, options.poses),
            afterwards=keep,
            allow_damaged=options.allow_damaged,
        )
    if options.official_results:
        summary.notes += seen_otherwise(summary.stores, suite)
    return summary


def _choose_suite(runs: Sequence[Path], options: EvalOptions) -> Suite:
    """The suite that is asked for, or the one that fits the models of the runs."""
    if not runs:
        return choose_suite(options.suite or "clips", options.prompts, options.images)
    from dfdbench.generate.clips import model_of
    from dfdbench.models.registry import takes_first_frame
    from dfdbench.utils.run import Run

    models = [model_of(Run.open(run)) for run in runs]
    own = "toy-i2v" if all(takes_first_frame(model) for model in models) else "toy-t2v"
    return choose_suite(options.suite or own, options.prompts, options.images, models)


def _names(names: str | Sequence[str] | None) -> list[str]:
    """Names from a list, or from a text with commas between them."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")] if names else []
    return list(names or ())
