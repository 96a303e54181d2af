"""DFD (2606.18478): DMD2's update with the teacher scoring the real clip x instead of G.

With probability p (or exactly mixed with weight w, Eq. 9); t and ε are the same for both. Needs a
DMD2 student and its fake score to start from, see [init] in the recipe.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dfdbench.distill import losses, matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import LATER, MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.defaults import Guidance
from dfdbench.models.family import ModelFamily

Share = Annotated[float, Field(ge=0, le=1)]
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """[dfd]: how often, at which noise levels and with which guidance the real clip is scored."""

    p: Share = 0.5
    # One draw with p for a whole student update, for each accumulation round, or for each clip.
    coin: Annotated[Literal["update", "round", "sample"], LATER] = "update"
    w: Share | None = None  # exact mixture (Eq. 9) with this weight instead of drawing with p
    gradient_space: Literal["x0", "score"] = "x0"
    t_min: Share = 0.0  # real branch only at noise levels from here up
    cfg_dfd: Guidance | None = None  # guidance on the real branch; None: teacher.cfg
    normaliser: Literal["generated", "scored"] = "generated"  # mean |G − r|, or |y − r|
    # The fake score looks at y too, not at G (LightX2V's DFD): f − r then has no pull to x, and
    # x0 and score form are one.
    forward_kl: Annotated[bool, LATER] = False


def uses_gan(recipe: Recipe) -> bool:
    """DFD goes without a GAN; the ablation gives [gan] a weight."""
    return recipe.gan.weight > 0


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    options: Options = recipe.options
    return {
        "input": recipe.student.input,
        "gan": uses_gan(recipe),
        "real_and_generated_paired": recipe.student.input == "noised_real",
        "real_clip_drawn_per": options.coin if options.w is None else "never: exact mixture",
        "fake_score_looks_at": "what the teacher looks at" if options.forward_kl else "generated",
    }


def toss(options: Options, rng: Stream, count: int) -> bool | Tensor:
    """Whether the real clip is scored: one answer for the whole update, or (B,)."""
    if options.coin == "update":
        return rng.bernoulli("real_clip", options.p)
    draws = count if options.coin == "sample" else 1
    return rng.bernoullis("real_clip", options.p, draws).expand(count)


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """As DMD2's, but y = x with probability p at noise levels from t_min up."""
    options: Options = recipe.options
    cfg_real = nets.cfg if options.cfg_dfd is None else options.cfg_dfd
    generated = generate(batch, nets, recipe, rng)
    draw = rng.score_draw(generated.x0, recipe.schedule)
    fake = matching.fake_score(batch, nets, recipe, generated, draw)

    def gap(real: bool | Tensor) -> losses.Gap:
        scored: Tensor | None = None  # G itself: DMD2
        guidance: float | Tensor = nets.cfg
        f, space = fake, options.gradient_space
        if real is not False:
            on = (draw.t >= options.t_min) & real  # (B,)
            scored = torch.where(on.view(-1, 1, 1, 1, 1), batch.latents, generated.x0.detach())
            partly = real is not True or options.t_min > 0
            mixed = partly and cfg_real != nets.cfg
            guidance = torch.where(on, cfg_real, nets.cfg) if mixed else cfg_real
            if options.forward_kl:
                f, space = f._replace(x0=matching.fake_x0(batch, nets, scored, draw)), "x0"
        return matching.gap(batch, nets, generated, f, draw, scored, guidance,
                            space, options.normaliser)  # fmt: skip

    if options.w is None:
        step = gap(toss(options, rng, len(batch.latents)))
    else:
        step = losses.mix(gap(False), gap(True), options.w)
    return matching.student_report(batch, nets, recipe, generated, fake, draw, step)


def fake_score_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """The fake score denoises fresh G, as in DMD2."""
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    return matching.fake_score_report(batch, nets, recipe, rng, generated)
