"""ODE regression: a causal student learns the ends of its teacher's trajectories (CausVid).

The initialisation of Self Forcing (2412.07772 Section 4.2, 2506.08009): the bidirectional teacher
goes from noise to a clip by guided Euler steps; the student is shown the states at its own times, a
random one for every block, and regresses to the end. No real clip, only its prompt and shape.
CausVid's release also shows blocks at that end, without a loss: the clean context of rollouts.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from dfdbench.distill.batch import Batch
from dfdbench.distill.causal_stages import causal_only, per_frame
from dfdbench.distill.inputs import self_forcing as generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import LATER, MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.defaults import Defaults
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import teacher_times, x0_from_v

__all__ = ["Options", "generate", "record", "student_loss", "uses_gan"]
REAL_CLIPS = False


@dataclass(frozen=True)
class Options(MethodOptions):
    """[ode_init]: the teacher's grid; its guidance is teacher.cfg."""

    grid_steps: Annotated[int, Field(ge=0, le=1000)] = 0  # 0: the checkpoint's own
    grid_shift: Annotated[float, Field(ge=0, le=1000)] = 0.0  # 0: the checkpoint's own
    # The end, t = 0, is one of the states that a block may be shown at; it has no loss.
    clean_blocks: Annotated[bool, LATER] = False

    def resolved(self, defaults: Defaults) -> Self:
        """With the teacher's own grid where none is given."""
        return replace(
            self,
            grid_steps=self.grid_steps or defaults.steps,
            grid_shift=self.grid_shift or defaults.shift,
        )


def uses_gan(recipe: Recipe) -> bool:
    """The method has none."""
    return False


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    causal_only(recipe)
    options: Options = recipe.options
    return {
        "input": "teacher_trajectory",
        "gan": False,
        "trajectory_grid": {"steps": options.grid_steps, "shift": options.grid_shift},
        "clean_blocks": options.clean_blocks,
    }


def euler_steps(student: Tensor, options: Options) -> list[tuple[float, float, bool]]:
    """The teacher's steps: their times, and whether the student is shown where a step begins.

    The student's times (N,) are points of the Euler grid, be it of another shift.
    """
    own = teacher_times(options.grid_steps, options.grid_shift)
    times = torch.cat([own, student]).mul(1e9).round().unique().flip(0) / 1e9  # each once
    return [
        (now, after, bool((student - now).abs().min() < 1e-8))
        for now, after in pairwise(times.tolist())
    ]


def trajectory(batch: Batch, nets: Networks, options: Options, noise: Tensor) -> Tensor:
    """The guided teacher's states (N + 1, B C T H W) at the student's times, the last its end."""
    x, states = noise, []
    for now, after, shown in euler_steps(nets.times[:-1], options):
        if shown:
            states.append(x)
        t = torch.full((len(x),), now, device=x.device)
        v = nets.teacher_v(x, t, batch.conditioning, nets.cfg)
        x = x + (after - now) * v
    return torch.stack([*states, x])


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """mean (x̂0 − z)², z the trajectory's end, of blocks at states of random student times."""
    options: Options = recipe.options
    states = trajectory(batch, nets, options, rng.normal("start", batch.latents))
    size, frames = states.shape[1], states.shape[3]
    blocks = nets.causal.layout(nets.student).blocks(frames)
    shown = len(states) if options.clean_blocks else len(states) - 1
    index = rng.integers("block_time", shown, size * len(blocks))
    index = per_frame(index, blocks)  # (B T)
    rows = torch.arange(size, device=index.device)[:, None]
    columns = torch.arange(frames, device=index.device)
    x_t = states[index, rows, :, columns].transpose(1, 2)  # (B T C H W) to (B C T H W)
    t = nets.times.to(index.device, torch.float32)[index]
    x0 = x0_from_v(x_t, nets.student_v(x_t, t, batch.conditioning), t)
    error = (x0 - states[-1]).square().mean((1, 3, 4))  # (B T), 0 where t is 0
    loss = error.sum() / (t > 0).sum().clamp(min=1)
    bins = {"ode_error": (t.flatten(), error.detach().flatten())}
    return LossReport(loss, {"ode": loss.detach()}, bins)
