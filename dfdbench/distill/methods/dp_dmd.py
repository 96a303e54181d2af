"""DP-DMD (2602.03139): the first student step learns where the teacher goes, the others do DMD.

The first step regresses onto the mean velocity to an anchor z, the teacher's state after K guided
Euler steps from the same noise, and is then detached, so that distribution matching cannot undo
its diversity. No real clip and no GAN. `student.times` may begin with 1, as released. Of a causal
student the first block is made so, as it decides for the clip, and those after it as Self Forcing
makes them; its teacher goes the whole clip.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dfdbench.distill import losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import Generated
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import LATER, MethodOptions, Recipe
from dfdbench.distill.self_forcing import roll_out
from dfdbench.distill.streams import Stream
from dfdbench.models.family import Defaults, ModelFamily
from dfdbench.models.flow import teacher_times
from dfdbench.models.sampling import sample_teacher, start_at, student_step
from dfdbench.utils.errors import UserError

REAL_CLIPS = False


@dataclass(frozen=True)
class Options(MethodOptions):
    """[dp_dmd]: the first step learns the teacher's anchor, the others DMD."""

    weight: Annotated[float, Field(alias="lambda", ge=0)] = 0.05
    anchor_step: Annotated[int, Field(ge=1, le=1000)] | None = (
        5  # K steps on the teacher's grid, or:
    )
    anchor_time: Annotated[float, Field(ge=0, le=1)] | None = None
    grid_steps: Annotated[int, Field(ge=0, le=1000)] = 0  # 0: the checkpoint's own
    grid_shift: Annotated[float, Field(ge=0, le=1000)] = 0.0  # 0: the checkpoint's own
    gradient_steps: Literal["all", "last", "random"] = "all"  # later steps with a DMD gradient
    # The first step is cut off from the DMD gradient; false lets it through (gradient_steps all).
    detach: Annotated[bool, LATER] = True

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


def anchor_steps(options: Options) -> int:
    """K: as given, or the grid point nearest to `anchor_time`, which wins where it is set."""
    if options.anchor_time is not None:
        times = teacher_times(options.grid_steps, options.grid_shift)
        return int((times[1:] - options.anchor_time).abs().argmin()) + 1
    return options.anchor_step or 1


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record; K alone says nothing without its grid."""
    options: Options = recipe.options
    steps = anchor_steps(options)
    if recipe.student.steps < 2:
        raise UserError("DP-DMD needs student.steps of at least 2: one for the anchor, one for DMD")
    if not 1 <= steps <= options.grid_steps:
        raise UserError(f"dp_dmd.anchor_step must be between 1 and grid_steps {options.grid_steps}")
    if not options.detach and options.gradient_steps != "all":
        raise UserError(
            "dp_dmd.detach = false lets DMD's gradient through all steps to the first; set "
            'dp_dmd.gradient_steps = "all"'
        )
    return {
        "input": "noise",
        "gan": False,
        "first_step_detached": options.detach,
        "anchor_step": steps,
        "anchor_time": float(teacher_times(options.grid_steps, options.grid_shift)[steps]),
        "anchor_grid": {"steps": options.grid_steps, "shift": options.grid_shift},
    }


class Rollout(NamedTuple):
    """Noise and v̂ of the first step (with gradient; of a causal student's first block), and G of
    the later ones."""

    noise: Tensor
    first_v: Tensor
    generated: Generated


def rollout(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Rollout:
    """All student steps from noise, cut after the first unless `dp_dmd.detach` is false.

    `dp_dmd.gradient_steps`: every later step has a gradient ("all"), the last one alone, or the
    rollout ends at a random later step, which alone has it.
    """
    times, sampler = nets.times.tolist(), recipe.student.sampler  # N + 1 times, the last 0
    policy, cut = recipe.options.gradient_steps, recipe.options.detach
    end = len(times) - 2  # index of the last step, which goes to time 0
    if policy == "random":
        end = 1 + rng.integer("gradient_step", end)
    whole = noise = rng.normal("start", batch.latents)
    predict = lambda x_t, t: nets.student_v(x_t, t, batch.conditioning)  # noqa: E731
    if layout := recipe.student.layout:
        noise = whole[:, :, : layout.blocks(whole.shape[2])[0].stop]
        predict = lambda x_t, t: nets.causal_v(x_t, t, batch.conditioning, None)  # noqa: E731

    def fresh(i: int) -> Tensor | None:
        return rng.normal(f"sde_{i}", noise) if sampler == "sde" else None

    first = step = student_step(predict, start_at(noise, times[0]), times[0], times[1], fresh(0))
    grad = torch.is_grad_enabled()
    for i in range(1, end + 1):
        with torch.set_grad_enabled(grad and (policy == "all" or i == end)):
            step = student_step(
                predict,
                # DMD's gradient must not reach the first step, which learns the anchor.
                step.following.detach() if cut and i == 1 else step.following,
                times[i],
                times[i + 1],
                fresh(i) if i < end else None,  # the last step only gives x̂0
            )
    x0, exit_time = step.x0, times[end]
    if x0.shape[2] < whole.shape[2]:
        x0, exit_time = roll_out(batch, nets, recipe, rng, begun=x0)
    time = torch.full((len(noise),), exit_time, device=noise.device)  # (B,)
    return Rollout(whole, first.v, Generated(x0, time))


def generate(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """G at the end of a rollout."""
    return rollout(batch, nets, recipe, rng).generated


def anchor_velocity(batch: Batch, nets: Networks, recipe: Recipe, noise: Tensor) -> Tensor:
    """Mean velocity from noise to the teacher's state after K guided Euler steps."""
    options: Options = recipe.options
    predict = lambda x_t, t: nets.teacher_v(x_t, t, batch.conditioning, nets.cfg)  # noqa: E731
    state, time = sample_teacher(
        predict, noise, options.grid_steps, options.grid_shift, anchor_steps(options)
    )
    return losses.mean_velocity(noise, state, time)


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """L_DMD on G, through the later steps, plus λ times the first step's anchor loss."""
    noise, first_v, generated = rollout(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = matching.fake_score(batch, nets, recipe, generated, draw)
    gap = matching.gap(batch, nets, generated, fake, draw, None, nets.cfg)
    report = matching.student_report(batch, nets, recipe, generated, fake, draw, gap)
    anchor = anchor_velocity(batch, nets, recipe, noise)
    anchor = anchor[:, :, : first_v.shape[2]]
    diversity = F.mse_loss(nets.free(first_v), nets.free(anchor))
    parts = report.parts | {"diversity": diversity.detach()}
    return LossReport(report.loss + recipe.options.weight * diversity, parts, report.bins)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises G of whole rollouts."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    return matching.fake_score_report(batch, nets, recipe, rng, generated)
