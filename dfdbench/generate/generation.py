"""`dfdbench.generate`: from a run and the name of a suite to its clips.

What `dfdbench generate` calls; missing.py makes the clips.
"""

from collections.abc import Sequence
from pathlib import Path

from dfdbench.generate import clips
from dfdbench.generate.missing import make
from dfdbench.generate.schedule import read_schedule
from dfdbench.generate.stream import Rollout
from dfdbench.generate.suites import choose_suite
from dfdbench.utils.device import choose_device, local_device
from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.run import Run
from dfdbench.utils.shards import WHOLE, parse_shard

DEFAULT_SUITE = "toy-t2v"


@memory_remedy(
    "take a smaller --batch; a single clip that does not fit needs a GPU with more memory"
)
def generate(
    run: Run | str | Path | None = None,
    *,
    arm: str | None = None,
    suite: str = DEFAULT_SUITE,
    prompts: str | Path | None = None,
    images: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    batch: int | None = None,
    model: str | None = None,
    cfg: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    shard: str | None = None,
    compiled: bool = False,
    device: str = "auto",
    frames: int | None = None,
    window: int | None = None,
    sinks: int | None = None,
    schedule: str | Path | None = None,
) -> Path:
    """Make the clips of a suite that a run lacks; returns the path of their samples.jsonl.

    Args:
        run: what `distill` gave, or the folder of a run.
        arm: "teacher" or "real" instead of a run.
        suite: which prompts and seeds; `prompts`, a text file of one a line, stands instead of it.
        images: folder of first frames, for a suite that takes them.
        seeds: of the noise; else the suite's own.
        batch: clips sampled at once; else as many as fit, at most 16, and one where `frames` and
            the like ask for streams.
        model, cfg, steps, out: of `arm`: its model (else toy-t2v), the teacher's guidance and
            sampling steps (else the model's own), and the run folder to make.
        shard: the part of the clips that is made here, such as "1/8", or "auto" under a launcher.
        compiled: torch.compile the network's blocks.
        device: "cpu", "cuda" or "auto".
        frames, window, sinks, schedule: of a causal student, which then makes each clip as a stream
            (stream.py): frames of the clip, in place of those it was trained on; latent frames that
            a block sees, and that always stay in sight; a file of prompts with the seconds at which
            they begin, in place of a suite.

    Returns:
        The path of the clips' samples.jsonl. That of a stream lies in a folder of its own.

    Raises:
        UserError: neither run nor arm, or both; an option of `arm` with a run; a name or file that
            is not there; no student; a stream of what is no causal student, or that does not fit.
    """
    part = WHOLE if shard is None else parse_shard(shard)
    place = local_device(device) if shard == "auto" else choose_device(device)
    folder = run.path if isinstance(run, Run) else _path(run)
    chosen = clips.open_run(folder, arm, _path(out), model, cfg, steps)
    prompt_file, image_folder = _path(prompts), _path(images)
    if schedule is not None and (prompt_file or image_folder):
        raise UserError(
            f"--prompt-schedule {schedule}: stands in place of a suite; leave out "
            f"{'--prompts' if prompt_file else '--images'}"
        )
    if schedule is not None and suite != DEFAULT_SUITE:
        raise UserError(
            f"--prompt-schedule {schedule}: stands in place of a suite; leave --suite {suite} out"
        )
    rollout = Rollout(frames, window, sinks, read_schedule(Path(schedule)) if schedule else None)
    if rollout.schedule:
        wanted = rollout.schedule.suite()
    else:
        wanted = choose_suite(suite, prompt_file, image_folder, [clips.model_of(chosen)])
    return make(chosen, wanted, seeds, batch, place, shard=part, compiled=compiled, rollout=rollout)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
