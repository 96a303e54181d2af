"""f-distill (2502.15681): DMD's step of each clip times h(r), for another f than reverse KL's.

r = p_real / p_fake at noised G is the exponential of the discriminator's mean logit, whose optimum
is the log of that ratio. It is clipped, divided by its running mean at that noise level, and h is
normalised to mean 1 over the whole batch of an update, all rounds of all processes. DMD2 with a GAN
is the reverse KL, h = 1.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from dfdbench.distill import discriminator, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.divergence import Ratios
from dfdbench.distill.inputs import generate
from dfdbench.distill.methods import dmd2
from dfdbench.distill.methods.dmd2 import fake_score_loss, uses_gan
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe, Unit
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise
from dfdbench.utils.errors import UserError

__all__ = ["Options", "fake_score_loss", "generate", "record", "statistics", "student_loss",
           "survey", "uses_gan"]  # fmt: skip
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """[f_distill]: the divergence, and how its ratio is estimated."""

    divergence: Literal["reverse_kl", "js", "kl", "jeffreys", "hellinger"] = "js"
    ema: Unit = 0.9  # of the ratio's mean at a noise level, per student update
    bins: Annotated[int, Field(ge=1, le=1000)] = 10  # noise levels
    ratio_low: PositiveFloat = 0.1
    ratio_high: PositiveFloat = 20.0

    def __post_init__(self) -> None:
        if self.ratio_low >= self.ratio_high:
            raise ValueError("ratio_low must be less than ratio_high")


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record; refuses what would be DMD2 under another name."""
    options: Options = recipe.options
    if not uses_gan(recipe):
        raise UserError("f_distill reads its ratio off a GAN; set gan.weight, say to 0.001")
    if options.divergence != "reverse_kl" and recipe.optim.batch == 1:
        raise UserError("f_distill weighs the clips of a batch; set optim.batch to at least 2")
    if options.divergence != "reverse_kl" and not options.ema and options.bins > 1:
        raise UserError(
            "f_distill.ema is 0, so a clip alone at its noise level has the weight 1 whatever its "
            "ratio; set f_distill.ema, say to 0.9, or f_distill.bins to 1"
        )
    return {"input": recipe.student.input, "gan": True, "divergence": options.divergence}


def statistics(recipe: Recipe) -> Ratios | None:
    """Of every divergence but the reverse KL, which weighs nothing."""
    o: Options = recipe.options
    return Ratios(o.divergence, o.bins, o.ema) if o.divergence != "reverse_kl" else None


def ratio_rows(recipe: Recipe, draw: Draw, logits: Tensor) -> Tensor:
    """(B, 2): noise level and clipped r of logits (B, blocks · L) at noised G."""
    options, s = recipe.options, recipe.schedule
    level = (options.bins * (draw.t - s.t_low) / (s.t_high - s.t_low)).floor()
    ratio = logits.detach().float().mean(1).exp().clamp(options.ratio_low, options.ratio_high)
    return torch.stack([level.clamp(0, options.bins - 1).to(ratio.dtype), ratio], 1)


def survey(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> Tensor:
    """The rows that this round's loss will see, so that h can be normalised over all rounds."""
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    x_t = add_noise(generated.x0, draw.eps, draw.t)
    return ratio_rows(recipe, draw, discriminator.logits(batch, nets, x_t, draw.t)[1])


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """DMD2's, each clip's step times h."""
    if recipe.options.divergence == "reverse_kl":
        return dmd2.student_loss(batch, nets, recipe, rng)
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = matching.fake_score(batch, nets, recipe, generated, draw)
    kept = cast(Ratios, nets.statistics)
    rows = ratio_rows(recipe, draw, cast(Tensor, fake.logits))
    if nets.whole_batch:
        kept.update(rows)
    h = kept.h(rows)  # (B,)
    gap = matching.gap(batch, nets, generated, fake, draw, None, nets.cfg)
    gap = gap._replace(direction=gap.direction * h.view(-1, 1, 1, 1, 1))
    report = matching.student_report(batch, nets, recipe, generated, fake, draw, gap)
    return report._replace(
        parts=report.parts | {"h_spread": kept.spread.clone()},
        bins=report.bins | {"h": (draw.t, h)},
    )
