"""What the student is given in training, and what it makes of it: G.

Used by DMD2 and DFD through `generate`; DP-DMD has its own rollout, and the rollout of a causal
student is self_forcing.py's. The policy decides whether G
and the real clip of the batch are paired, so it is recorded in run.json.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dfdbench.distill.batch import Batch
from dfdbench.distill.nets import Networks
from dfdbench.distill.sections import Recipe
from dfdbench.distill.self_forcing import roll_out
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, x0_from_v
from dfdbench.models.sampling import start_at, student_step
from dfdbench.utils.errors import unknown_name


class Generated(NamedTuple):
    """G (B C T H W) and the times (B,) of the student step that made it."""

    x0: Tensor
    time: Tensor


Generator = Callable[[Batch, Networks, Recipe, Stream], Generated]


def noised_real(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """One student step from the real clip noised to a random student time (FastGen; paired)."""
    x = batch.latents
    grid = nets.times[:-1].to(x.device, torch.float32)
    time = grid[rng.integers("input_time", len(grid), len(x))]
    x_t = add_noise(x, rng.normal("input_eps", x), time)
    return Generated(x0_from_v(x_t, nets.student_v(x_t, time, batch.conditioning), time), time)


def backward_simulation(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """Student steps from noise to a random exit, the last with a gradient (DMD2; unpaired).

    The exit is the same for the whole update, as all ranks must do the same work.
    """
    times = nets.times.tolist()
    exit_ = rng.integer("exit", len(times) - 1)
    x = start_at(rng.normal("input_eps", batch.latents), times[0])
    predict = lambda x_t, t: nets.student_v(x_t, t, batch.conditioning)  # noqa: E731
    with torch.no_grad():
        for i in range(exit_):
            fresh = rng.normal(f"sde_{i}", x) if recipe.student.sampler == "sde" else None
            x = student_step(predict, x, times[i], times[i + 1], fresh).following
    step = student_step(predict, x, times[exit_], times[exit_ + 1])
    return Generated(step.x0, torch.full((len(x),), times[exit_], device=x.device))


def self_forcing(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """Blocks of a causal student, each from noise to a random exit (Self Forcing; unpaired)."""
    x0, time = roll_out(batch, nets, recipe, rng)
    return Generated(x0, torch.full((len(x0),), time, device=x0.device))


INPUTS: dict[str, Generator] = {
    "noised_real": noised_real,
    "backward_simulation": backward_simulation,
    "self_forcing": self_forcing,
}


def generate(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """G by the recipe's policy; gradients follow the caller's grad mode."""
    if recipe.student.input not in INPUTS:
        raise unknown_name("student.input", recipe.student.input, INPUTS)
    return INPUTS[recipe.student.input](batch, nets, recipe, rng)
