"""The clips of a suite that a run lacks, made the way the suite and the run's arm want it.

Used by generation.py, by scoring and by studies. A suite of streams is made block after block by a
causal student (stream.py); all else, and the reference arms, as trained (clips.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfdbench.generate import clips
from dfdbench.generate.arms import Item, clip_shape
from dfdbench.generate.clips import (
    UNTRAINED,
    clips_of,
    method_of,
    model_of,
    open_family,
    sampler_of,
)
from dfdbench.generate.stream import AS_ASKED, Rollout, clip_frames, generate_stream, stream_clips
from dfdbench.generate.suites.base import Suite
from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run
from dfdbench.utils.shards import WHOLE, Shard


def make(
    run: Run,
    suite: Suite,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    family: ModelFamily | None = None,
    shard: Shard = WHOLE,
    compiled: bool = False,
    rollout: Rollout = AS_ASKED,
) -> Path:
    """Make what is missing of the suite's clips of one run; returns the path of samples.jsonl.

    Teacher and real clips end where the trained length does: of a suite of streams they have the
    prompts of that length. Arguments as of `clips.generate`; rollout: of a causal student, in
    place of what the suite says.

    Raises:
        UserError: as `clips.generate` and `generate_stream`; a reference arm and a suite that is
            longer throughout.
    """
    family = family or open_family(model_of(run), device)
    if not _is_stream(run, suite, rollout):
        own = _as_trained(run, suite, family)
        return clips.generate(
            run, own, seeds, batch_size, family=family, shard=shard, compiled=compiled
        )
    return generate_stream(
        run, suite, rollout, seeds, batch_size, family=family, shard=shard, compiled=compiled
    )


def _is_stream(run: Run, suite: Suite, rollout: Rollout) -> bool:
    return bool(rollout.options) or (suite.is_streamed and method_of(run) not in UNTRAINED)


def _as_trained(run: Run, suite: Suite, family: ModelFamily) -> Suite:
    """The suite without prompts whose clips are not of the length that the model has."""
    if not suite.is_streamed:
        return suite
    trained = clip_shape(run, family)[0]
    prompts = [p for p in suite.prompts if clip_frames(p, trained, family, 1) == trained]
    if not prompts:
        raise UserError(
            f"suite {suite.name}: clips of arm {run.arm} have {trained} frames, and none of the "
            f"suite's is of that length; leave {run.path} out, or take another suite"
        )
    return replace(suite, prompts=tuple(prompts))


def complete(
    inputs: Sequence[Path],
    suite: Suite,
    seeds: Sequence[int] | None,
    batch_size: int | None,
    device: str,
    shard: Shard | None = None,
) -> None:
    """Make what the runs among `inputs` lack of the suite; other inputs are left alone.

    Raises:
        UserError: clips are lacking and `shard` is given: which clips are whose to score is only
            known when all are there, and several calls would make the same ones.
    """
    families: dict[str, ModelFamily] = {}
    for path in inputs:
        if (path / "run.json").is_file():
            run = Run.open(path)
            model = model_of(run)
            if model not in families:
                families = {model: open_family(model, device)}  # one model in memory
            if shard is None:
                make(run, suite, seeds, batch_size, family=families[model])
            elif todo := _todo(run, suite, seeds, families[model]):
                raise UserError(
                    f"{path} lacks {len(todo)} clips of suite {suite.name}; make them first: "
                    f"dfdbench generate {path} --suite {suite.name} "
                    f"--shard {shard.index}/{shard.count}"
                )


def _todo(
    run: Run, suite: Suite, seeds: Sequence[int] | None, family: ModelFamily
) -> Sequence[Item]:
    if _is_stream(run, suite, AS_ASKED):
        return stream_clips(run, suite, AS_ASKED, seeds, family)[1].todo
    own = _as_trained(run, suite, family)
    settings = sampler_of(run, own, family).settings
    return clips_of(run, own, seeds, family, settings).todo
