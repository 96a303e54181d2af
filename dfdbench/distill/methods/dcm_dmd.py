"""Discrete consistency with a DMD beside it: rCM's form (2510.08431) without forward derivatives.

L = a L_CM + λ L_DMD. L_CM draws the student's x0 at a noised real clip to its own x0, a constant,
one guided Euler step of the teacher nearer to the clip. L_DMD looks at rollouts of one to N steps
in turn, at random falling times, with fresh noise and a gradient on the last.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from dfdbench.distill import inputs, losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.causal_stages import bidirectional_only
from dfdbench.distill.inputs import Generated
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe, Updates
from dfdbench.distill.stages import grid
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, shift_time, x0_from_v
from dfdbench.models.sampling import start_at, student_step

REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """[dcm_dmd]: consistency 1 and weight 0 is a pure consistency model, 0 and 1 is DMD2."""

    weight: NonNegativeFloat = 0.01  # λ, of DMD
    consistency: NonNegativeFloat = 1.0  # a
    intervals: Annotated[int, Field(ge=1, le=100_000)] = 48  # teacher's steps from noise to a clip
    warm_up: Updates = 0  # first student updates with consistency alone
    rollout: Literal["random", "input"] = "random"  # G; "input": made as student.input has it

    def __post_init__(self) -> None:
        if not self.consistency and (self.warm_up or not self.weight):
            raise ValueError("consistency is 0: nothing is left of the loss without DMD's weight")


def uses_gan(recipe: Recipe) -> bool:
    """The method has none."""
    return False


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record; where sampling starts changes diversity."""
    bidirectional_only(recipe)
    random = recipe.options.rollout == "random"
    return {
        "input": "random_rollout" if random else recipe.student.input,
        "gan": False,
        "start_time": float(grid(recipe)[0]),
        "teacher_intervals": recipe.options.intervals,
    }


def generate(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Generated:
    """G at the end of 1 to N steps, as many in every round of an update, and at the same times."""
    if recipe.options.rollout == "input":
        return inputs.generate(batch, nets, recipe, rng)
    now, s = float(nets.times[0]), recipe.schedule
    x = start_at(rng.normal("rollout_start", batch.latents), now)
    predict = lambda x_t, t: nets.student_v(x_t, t, batch.conditioning)  # noqa: E731
    earlier = rng.turn("rollout_steps", len(nets.times) - 1)
    with torch.no_grad():
        for i, u in enumerate(rng.common("rollout_times", earlier)):
            after = max(min(now, float(shift_time(torch.tensor(u), s.shift))), s.t_low)
            x = student_step(predict, x, now, after, rng.normal(f"rollout_{i}", x)).following
            now = after
    step = student_step(predict, x, now, 0.0)
    return Generated(step.x0, torch.full((len(x),), now, device=x.device))


def consistency(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> tuple[Tensor, Tensor]:
    """mean (x̂0(x_t, t) − x̂0(x_t', t'))² of each clip, (B,), and t; the second is a constant."""
    s, step, x = recipe.schedule, 1 / recipe.options.intervals, batch.latents
    u = rng.uniform("consistency_time", len(x)) * (1 - step)
    first = float(nets.times[0])
    t, after = (shift_time(1 - v, s.shift).clamp(s.t_low, first) for v in (u, u + step))
    x_t = add_noise(x, rng.normal("consistency_eps", x), t)
    x0 = x0_from_v(x_t, nets.student_v(x_t, t, batch.conditioning), t)
    with torch.no_grad():
        v = nets.teacher_v(x_t, t, batch.conditioning, nets.cfg)
        nearer = x0_from_v(x_t, v, t - after)  # the Euler step x_t + (t' − t) v̂
        target = x0_from_v(nearer, nets.student_v(nearer, after, batch.conditioning), after)
    return losses.denoising_error(nets.free(x0), nets.free(target)), t


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """Consistency on real clips and DMD on rollouts, each where it has a weight."""
    o: Options = recipe.options
    reports = []
    if o.consistency:
        error, t = consistency(batch, nets, recipe, rng)
        loss = o.consistency * error.mean()
        bins = {"consistency_error": (t, error.detach())}
        reports.append(LossReport(loss, {"consistency": loss.detach()}, bins))
    if o.weight and not (rng.update is not None and rng.update < o.warm_up):
        generated = generate(batch, nets, recipe, rng)
        draw = rng.score_draw(generated.x0, recipe.schedule)
        fake = matching.fake_score(batch, nets, recipe, generated, draw)
        gap = matching.gap(batch, nets, generated, fake, draw, None, nets.cfg)
        dmd = matching.student_report(batch, nets, recipe, generated, fake, draw, gap)
        reports.append(dmd._replace(loss=o.weight * dmd.loss))
    parts, bins = ({k: v for r in reports for k, v in each(r).items()}
                   for each in (lambda r: r.parts, lambda r: r.bins))  # fmt: skip
    return LossReport(sum((r.loss for r in reports[1:]), reports[0].loss), parts, bins)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises G of such rollouts, as in DMD2."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    return matching.fake_score_report(batch, nets, recipe, rng, generated)
