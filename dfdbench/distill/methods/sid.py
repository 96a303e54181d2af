"""SiD (score identity distillation, 2404.04057) as in Self Forcing's release: is it the KL?

mean (r − f)·((r − x) − α (r − f)) / n, x = G, f and r of fake score and teacher at noised G. The
gradient goes through all of their inputs, so both frozen networks keep activations. No GAN.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from dfdbench.distill import losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.methods.dmd2 import fake_score_loss
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, x0_from_v

__all__ = ["Options", "fake_score_loss", "generate", "record", "student_loss", "uses_gan"]
REAL_CLIPS = False


@dataclass(frozen=True)
class Options(MethodOptions):
    """[sid]: the share of the squared score gap that is taken away."""

    alpha: Annotated[float, Field(ge=0, le=10)] = 1.0


def uses_gan(recipe: Recipe) -> bool:
    """The method has none."""
    return False


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    return {"input": recipe.student.input, "gan": False, "gradient_through_scores": True}


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The identity's loss; teacher and fake score are frozen, but pass gradients to G."""
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    x_t = add_noise(generated.x0, draw.eps, draw.t)
    fake = x0_from_v(x_t, nets.fake_score_v(x_t, draw.t, batch.conditioning), draw.t)
    real = nets.teacher_x0(x_t, draw.t, batch.conditioning, nets.cfg, to_input=True)
    x, f, r = (nets.free(each) for each in (generated.x0, fake, real))
    loss = losses.sid_loss(x, f, r, recipe.options.alpha).mean()
    x, f, r = (each.detach() for each in (x, f, r))
    gap = losses.score_gap(x, f, r, x)
    bins = {
        "direction2": (draw.t, losses.per_sample(gap.raw**2)),
        "normaliser": (draw.t, gap.normaliser),
    }
    bins |= matching.distances(batch, nets, generated, draw)
    return LossReport(loss, {"sid": loss.detach()}, bins)
