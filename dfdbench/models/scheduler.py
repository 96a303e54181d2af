"""A student's times and sampler as its folder's scheduler, for plain diffusers pipelines.

Used where a student is saved. A pipeline asks its scheduler for a number of steps and no more, and
FlowMatchEulerDiscreteScheduler cannot hold a list of times: loaded from the folder it gives the
student's times from a shift and a last time of its own, but for the first, which is 1 in place of
0.999. `student_scheduler` gives all of them exactly.
"""

from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dfdbench.models.flow import student_times
from dfdbench.models.loading import MEND, forget_origin
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.reading import read_json

CONFIG = "scheduler/scheduler_config.json"
TRAIN_STEPS = 1000
CLOSE = 1e-5  # of times in float32


class Sampling(NamedTuple):
    """How a student samples. times: its grid without the final 0. shift: of that grid."""

    times: tuple[float, ...]
    shift: float
    sampler: str = "ode"  # or "sde"


def write_scheduler(folder: Path, sampling: Sampling) -> None:
    """Make the scheduler of the checkpoint in `folder` the student's, also in its index."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=TRAIN_STEPS,
        stochastic_sampling=sampling.sampler == "sde",
        **_shifts(sampling),
    )
    scheduler.register_to_config(
        student_times=list(sampling.times), student_shift=float(sampling.shift)
    )
    scheduler.save_pretrained(folder / "scheduler")
    forget_origin(folder / CONFIG)
    index = folder / "model_index.json"
    known = read_json(index, dict[str, Any], MEND)
    if "scheduler" in known:  # else the pipeline has none that it could be told of
        write_json(index, known | {"scheduler": ["diffusers", type(scheduler).__name__]})


def student_scheduler(folder: str | Path) -> Any:
    """A scheduler for a plain diffusers pipeline with the student in `folder`, at its very times.

    `pipeline.scheduler = student_scheduler(folder)`, then as many steps as the student has.

    Raises:
        UserError: no student of this version lies there.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    path = Path(folder) / CONFIG
    config = read_json(path, dict[str, Any], MEND)
    if "student_times" not in config:
        raise UserError(f"{path} has no student_times; give the student/ of a finished run")
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, shift=1.0, shift_terminal=None)
    # Times in place of sigmas would be taken, too, but the sigmas would be others (diffusers 0.40).
    scheduler.set_timesteps = partial(scheduler.set_timesteps, sigmas=config["student_times"])
    return scheduler


def _shifts(sampling: Sampling) -> dict[str, Any]:
    """`shift` and `shift_terminal` with which set_timesteps(N) gives the student's times."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    count, own = len(sampling.times), {"shift": 1.0, "shift_terminal": None}
    grid = student_times(count, sampling.shift)[:-1]
    if count == 1 or not torch.allclose(torch.tensor(sampling.times).double(), grid):
        return own  # no such pair: the times are the recipe's, not a shifted grid
    # set_timesteps shifts an even grid that begins at 1 and ends near 0 already, and stretches the
    # result to end in `shift_terminal`. 1 − σ_k is then proportional to k / (A − k), as it is here
    # with A = s N / (s − 1), for the s' that solves s'² + (1 − K)(M − 1) s' + K (M − 1) = 0,
    # K = A / (N − 1), M = 1000.
    shift, last = 1.0, TRAIN_STEPS - 1
    if sampling.shift != 1:
        k = sampling.shift * count / ((sampling.shift - 1) * (count - 1))
        half = (1 - k) * last / 2
        root = half * half - k * last
        if root < 0:
            return own
        shift = -half - sqrt(root) if k > 1 else -half + sqrt(root)
    fitted = {"shift": shift, "shift_terminal": sampling.times[-1]}
    trial: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS, **fitted)
    trial.set_timesteps(count)
    agrees = torch.allclose(trial.sigmas[1:-1].double(), grid[1:], atol=CLOSE, rtol=0)
    return fitted if agrees else own
