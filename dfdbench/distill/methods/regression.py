"""Regression: DMD and a pull of G to the real clip, which the teacher never sees. DFD's control.

DFD's x0 form (2606.18478, released) is a DMD step at mixed points, and so holds a regression of G
towards x beside Eq. 8. This method takes the regression alone: dloss/dG ∝ a (f − r)/n + b (G − x)/n
with f, r and n = mean |G − r| of DMD at noised G. If DFD is no better than this from the same DMD2
run, the teacher's look at x does nothing. With unpaired input x shares only the caption with G, and
the pull is to the mean of such clips.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field

from dfdbench.distill import losses
from dfdbench.distill import matching as shared
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily

Weight = Annotated[float, Field(ge=0)]
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """[regression]: the two parts of the gradient; 1 and 0 are DMD2."""

    matching: Weight = 0.5  # a, of the DMD step
    pull: Weight = 0.5  # b, of G − x over DMD's normaliser


def uses_gan(recipe: Recipe) -> bool:
    """Without a GAN as DFD is; its ablation gives [gan] a weight."""
    return recipe.gan.weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    return {
        "input": recipe.student.input,
        "gan": uses_gan(recipe),
        "real_and_generated_paired": recipe.student.input == "noised_real",
        "teacher_looks_at": "generated",
    }


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """DMD2's step and the pull to x, in the recipe's shares."""
    options: Options = recipe.options
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = shared.fake_score(batch, nets, recipe, generated, draw)
    g = generated.x0.detach()  # (B C T H W)
    dmd = shared.gap(batch, nets, generated, fake, draw, None, nets.cfg)
    x = nets.free(batch.latents)
    step = losses.with_pull(dmd, nets.free(g), x, options.matching, options.pull)
    return shared.student_report(batch, nets, recipe, generated, fake, draw, step)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises fresh G, as in DMD2."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    return shared.fake_score_report(batch, nets, recipe, rng, generated)
