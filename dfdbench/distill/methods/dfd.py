"""DFD (2606.18478): DMD2's update with the teacher scoring the real clip x instead of G.

With probability p (or exactly mixed with weight w, Eq. 9); t and ε are the same for both. Needs a
DMD2 student and its fake score to start from, see [init] in the recipe.
"""

from typing import Any

import torch

from dfdbench.distill import losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.recipe import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily


def uses_gan(recipe: Recipe) -> bool:
    """DFD goes without a GAN; `dfd.gan` is the ablation."""
    return recipe.dfd.gan and recipe.dmd2.gan_weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    paired = recipe.student.input == "noised_real"
    return {
        "input": recipe.student.input,
        "gan": uses_gan(recipe),
        "real_and_generated_paired": paired,
    }


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """As DMD2's, but y = x with probability p at noise levels from t_min up."""
    options = recipe.dfd
    cfg_real = nets.cfg if options.cfg_dfd is None else options.cfg_dfd
    made = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(made.x0, recipe.schedule)
    fake = matching.fake_score(nets, batch, made, draw, uses_gan(recipe))

    def gap(real: bool) -> losses.Gap:
        scored = made.x0.detach()
        guidance: float | torch.Tensor = nets.cfg
        if real:
            on = draw.t >= options.t_min
            scored = torch.where(on.view(-1, 1, 1, 1, 1), batch.latents, scored)
            partly = options.t_min > 0 and cfg_real != nets.cfg
            guidance = torch.where(on, cfg_real, nets.cfg) if partly else cfg_real
        return matching.gap(nets, batch, made, fake, draw, scored, guidance,
                            options.gradient_space, options.normaliser)  # fmt: skip

    if options.w is None:
        step = gap(rng.coin("real_clip", options.p))
    else:
        step = losses.mix(gap(False), gap(True), options.w)
    return matching.student_report(nets, recipe, batch, made, fake, draw, step)


def critic_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises fresh G, as in DMD2."""
    with torch.no_grad():
        made = generate(batch, nets, recipe, rng)
    return matching.critic_report(nets, batch, recipe, rng, made, uses_gan(recipe))
