"""Decoupled DMD (2511.22677): matching and guidance, the two parts of DMD's gradient, apart.

With r_c and r_g the teacher's x0 without and with guidance, f − r_g = (f − r_c) + (r_c − r_g): what
matches distributions, and what guidance adds, −(g − 1)(r_c − r_u). `split` evaluates the second at
a noising of its own, cleaner than the student's input was.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dfdbench.distill import losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import Generated, generate
from dfdbench.distill.matching import FakePrediction
from dfdbench.distill.methods import dmd2
from dfdbench.distill.methods.dmd2 import fake_score_loss, uses_gan
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, x0_from_v
from dfdbench.utils.errors import UserError

__all__ = ["Options", "fake_score_loss", "generate", "record", "student_loss", "uses_gan"]
REAL_CLIPS = False


@dataclass(frozen=True)
class Options(MethodOptions):
    """[decoupled_dmd]: which parts the student follows, and whether guidance has its own noise."""

    parts: Literal["both", "matching", "guidance"] = "both"
    split: bool = True  # false: one draw for both, as in DMD2, whose step the parts then add up to


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    options: Options = recipe.options
    if options.parts != "matching" and recipe.teacher.cfg == 1:
        raise UserError(
            "teacher.cfg is 1, so decoupled_dmd has no guidance part; raise it, or set "
            'decoupled_dmd.parts = "matching"'
        )
    own = options.split and options.parts != "matching"
    return {
        "input": recipe.student.input,
        "gan": uses_gan(recipe),
        "gradient_parts": options.parts,
        "guidance_times": "t_low to the student's own" if own else "the score times",
        "normaliser": "mean |G - r|, r " + ("without guidance" if options.split else "guided"),
    }


def guidance_draw(generated: Generated, recipe: Recipe, rng: Stream) -> Draw:
    """t ~ U(t_low, time of the student's input) for each clip, and noise of its own."""
    low = recipe.schedule.t_low
    u = rng.uniform("guidance_t", len(generated.time))
    return Draw(low + u * (generated.time - low), rng.normal("guidance_eps", generated.x0))


@torch.no_grad()
def look(
    batch: Batch, nets: Networks, generated: Generated, draw: Draw, cfg: float,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """r_c and r_g (B C T H W) of the teacher at noised G, on the free frames.

    Args:
        cfg: guidance of r_g; 1 leaves its pass out.
        given: v̂ with the prompt, where an earlier pass gave it.
    """
    x_t = add_noise(generated.x0, draw.eps, draw.t)
    v = nets.teacher_v(x_t, draw.t, batch.conditioning, 1) if given is None else given
    guided = nets.teacher_v(x_t, draw.t, batch.conditioning, cfg, v)
    plain, with_cfg = (nets.free(x0_from_v(x_t, each, draw.t)) for each in (v, guided))
    return plain, with_cfg


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The wanted parts of DMD's gradient over one normaliser, that of the matching draw."""
    options: Options = recipe.options
    if options.parts == "both" and not options.split:
        return dmd2.student_loss(batch, nets, recipe, rng)
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = FakePrediction(generated.x0.detach(), None)  # guidance alone asks no fake score
    if options.parts != "guidance" or uses_gan(recipe):
        fake = matching.fake_score(batch, nets, recipe, generated, draw)
    cfg = 1.0 if options.split else nets.cfg
    plain, guided = look(batch, nets, generated, draw, cfg, fake.teacher_v)
    g, f = nets.free(generated.x0.detach()), nets.free(fake.x0)
    step = losses.score_gap(g, f, guided, g)  # for its normaliser
    raw, bins = torch.zeros_like(g), {}
    if options.parts != "guidance":
        raw = f - plain
        bins["matching2"] = (draw.t, losses.per_sample(raw**2))
    if options.parts != "matching":
        own = draw
        if options.split:
            own = guidance_draw(generated, recipe, rng)
            plain, guided = look(batch, nets, generated, own, nets.cfg)
        raw = raw + (plain - guided)
        bins["guidance2"] = (own.t, losses.per_sample((plain - guided) ** 2))
    step = losses.Gap(raw / step.normaliser.view(-1, 1, 1, 1, 1), raw, step.normaliser)
    report = matching.student_report(batch, nets, recipe, generated, fake, draw, step)
    return report._replace(bins=report.bins | bins)
