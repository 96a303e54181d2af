"""DMD2 (2405.14867): match the student's distribution to the teacher's, optionally with a GAN."""

from dataclasses import dataclass
from typing import Any

import torch

from dfdbench.distill import matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily

REAL_CLIPS = False


@dataclass(frozen=True)
class Options(MethodOptions):
    """DMD2 has none of its own; its GAN is [gan]."""


def uses_gan(recipe: Recipe) -> bool:
    """Whether discriminator heads are needed."""
    return recipe.gan.weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    return {"input": recipe.student.input, "gan": uses_gan(recipe)}


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The teacher looks at G itself: dloss/dG ∝ (f − r) / n."""
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = matching.fake_score(batch, nets, recipe, generated, draw)
    gap = matching.gap(batch, nets, generated, fake, draw, None, nets.cfg)
    return matching.student_report(batch, nets, recipe, generated, fake, draw, gap)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises fresh G."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    return matching.fake_score_report(batch, nets, recipe, rng, generated)
