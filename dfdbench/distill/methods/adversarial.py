"""Adversarial distillation on the teacher's features (LADD, 2403.12015; APT, 2501.08316).

The student learns from a discriminator alone: heads on features of the frozen teacher at noised G
and at equally noised real clips, softplus losses, approximate R1. There is no fake score: its
updates are the heads', and it stays the teacher's copy that a later stage begins with.
"""

from dataclasses import dataclass
from typing import Any

import torch

from dfdbench.distill import discriminator, losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise
from dfdbench.utils.errors import UserError

__all__ = ["Options", "fake_score_loss", "generate", "record", "student_loss", "uses_gan"]
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """It has none of its own; the discriminator is [gan]."""


def uses_gan(recipe: Recipe) -> bool:
    """The method is one."""
    return recipe.gan.weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    if not uses_gan(recipe):
        raise UserError("adversarial has no loss but a GAN's; set gan.weight, say to 1")
    if recipe.gan.features != "teacher":
        raise UserError(
            'adversarial looks at the features of the teacher; set gan.features = "teacher"'
        )
    return {"input": recipe.student.input, "gan": True, "fake_score": "the teacher's copy"}


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """softplus(−D) at noised G, times gan.weight."""
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    x_t = add_noise(generated.x0, draw.eps, draw.t)
    _, logits = discriminator.logits(batch, nets, x_t, draw.t)
    loss = recipe.gan.weight * losses.generator_gan_loss(logits)
    bins = matching.distances(batch, nets, generated, draw)
    return LossReport(loss, {"gan": loss.detach()}, bins)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The heads' loss at G and at real clips under the same noise, and R1."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    x_t = add_noise(generated.x0, draw.eps, draw.t)
    _, logits = discriminator.logits(batch, nets, x_t, draw.t)
    terms = discriminator.loss_terms(batch, nets, recipe.gan, rng, draw, logits)
    parts = {f"critic_{name}": term.detach() for name, term in terms.items()}
    error = {"logit": (draw.t, logits.detach().mean(1))}
    return LossReport(torch.stack([*terms.values()]).sum(), parts, error)
