"""DMD2 (2405.14867): match the student's distribution to the teacher's, optionally with a GAN."""

from typing import Any

import torch

from dfdbench.distill import matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.recipe import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily


def uses_gan(recipe: Recipe) -> bool:
    """Whether discriminator heads are needed."""
    return recipe.dmd2.gan_weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    return {"input": recipe.student.input, "gan": uses_gan(recipe)}


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The teacher looks at G itself: dloss/dG ∝ (f − r) / n."""
    made = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(made.x0, recipe.schedule)
    fake = matching.fake_score(nets, batch, made, draw, uses_gan(recipe))
    step = matching.gap(nets, batch, made, fake, draw, made.x0.detach(), nets.cfg)
    return matching.student_report(nets, recipe, batch, made, fake, draw, step)


def critic_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises fresh G."""
    with torch.no_grad():
        made = generate(batch, nets, recipe, rng)
    return matching.critic_report(nets, batch, recipe, rng, made, uses_gan(recipe))
