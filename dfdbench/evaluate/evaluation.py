"""`dfdbench eval`: from the command's options to one call of the scoring engine.

Used by cli.py. torch is imported only where something needs it: a run whose clips must be made, a
GPU, or a metric with a model, so that a second call on known videos is over in a moment.
"""

from collections.abc import Sequence
from pathlib import Path

from dfdbench.evaluate.engine import Summary, score
from dfdbench.evaluate.metrics import Setting
from dfdbench.evaluate.metrics.vbench import bridge as vbench_bridge
from dfdbench.evaluate.vbench.bridge import open_bridge
from dfdbench.generate.suites import choose_suite
from dfdbench.utils.device import choose_device
from dfdbench.utils.shards import parse_shard


def evaluate(
    inputs: Sequence[Path],
    suite: str | None = None,
    prompts: Path | None = None,
    out: Path | None = None,
    seeds: str | None = None,
    batch: int = 16,
    device: str = "auto",
    method_names: Sequence[str] | None = None,
    metrics: str | None = None,
    reference: str | None = None,
    poses: Path | None = None,
    workers: int | None = None,
    shard: str | None = None,
    images: Path | None = None,
    vbench_python: Path | None = None,
    official: str | None = None,
) -> Summary:
    """Generate what the runs among `inputs` lack of the suite, then score everything.

    The arguments are the options of `dfdbench eval`. Without `suite` runs are scored by toy-t2v, or
    toy-i2v if their models continue a picture, and anything else by `clips`.

    Raises:
        UserError: an option that names nothing, or what dfdbench.evaluate.engine.score raises.
    """
    part = parse_shard(shard) if shard else None
    runs = [path for path in inputs if (path / "run.json").is_file()]
    if not runs:
        chosen = choose_suite(suite or "clips", prompts, images)
    else:
        from dfdbench.generate.clips import complete, model_of, parse_seeds
        from dfdbench.models.registry import takes_first_frame
        from dfdbench.utils.run import Run

        models = [model_of(Run.open(run)) for run in runs]
        own = "toy-i2v" if all(takes_first_frame(model) for model in models) else "toy-t2v"
        chosen = choose_suite(suite or own, prompts, images, models)
    placed = choose_device(device)
    bridge = open_bridge(vbench_python, official, chosen, placed)
    if runs:
        complete(inputs, chosen, parse_seeds(seeds) if seeds else None, batch, device, part)
    families = metrics.split(",") if metrics else list(chosen.metrics)
    if poses:
        families.append("vipe")
    if bridge:
        families = [family for family in families if family != vbench_bridge.NAME]
    return score(
        inputs,
        chosen,
        out,
        method_name=method_names,
        families=families,
        reference=reference,
        workers=workers,
        shard=part,
        setting=Setting(placed, poses),
        afterwards=bridge.run if bridge else None,
    )
