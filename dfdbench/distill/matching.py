"""What DMD2, DP-DMD and DFD share: the score gap at noised G, its loss, and the fake score's.

A method (dmd2.py, dp_dmd.py, dfd.py) decides how G is made and what the teacher looks at; the
rest is here. Equations: DMD2 2405.14867, DFD 2606.18478.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dfdbench.distill import discriminator, losses
from dfdbench.distill.batch import Batch
from dfdbench.distill.inputs import Generated
from dfdbench.distill.losses import Gap, per_sample
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.recipe import Recipe
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.flow import add_noise, velocity, x0_from_v


class FakeScore(NamedTuple):
    """f = F_x0 at the noised G (no gradient), and the discriminator's logits of it or None."""

    x0: Tensor
    logits: Tensor | None


def fake_score(nets: Networks, batch: Batch, made: Generated, draw: Draw, gan: bool) -> FakeScore:
    """The fake score at x̃_t = (1−t) G + t ε; with a GAN one pass also gives its logits."""
    x_t = add_noise(made.x0, draw.eps, draw.t)
    with torch.no_grad():
        point = x_t.detach()
        if not gan or nets.gan_teacher:
            x0 = x0_from_v(point, nets.critic_v(point, draw.t, batch.conditioning), draw.t)
    if not gan:
        return FakeScore(x0, None)
    v, logits = discriminator.logits(nets, x_t, draw.t, batch)
    return FakeScore(x0 if nets.gan_teacher else x0_from_v(point, v.detach(), draw.t), logits)


def gap(
    nets: Networks,
    batch: Batch,
    made: Generated,
    fake: FakeScore,
    draw: Draw,
    scored: Tensor,
    cfg: float | Tensor,
    space: str = "x0",
    normalise_by: str = "generated",
) -> Gap:
    """Gradient on G's free frames, the teacher looking at `scored`, noised by G's own t and ε."""
    with torch.no_grad():
        x_t = add_noise(scored, draw.eps, draw.t)
        real = nets.teacher_x0(x_t, draw.t, batch.conditioning, cfg)
        g, f, r, y = (nets.free(x) for x in (made.x0, fake.x0, real, scored))
        return losses.score_gap(g, f, r, y, space, normalise_by)


def student_report(
    nets: Networks,
    recipe: Recipe,
    batch: Batch,
    made: Generated,
    fake: FakeScore,
    draw: Draw,
    step: Gap,
) -> LossReport:
    """The student's loss from its gap and, where logits are given, the generator's GAN loss."""
    loss = losses.matching_loss(nets.free(made.x0), step.direction)
    parts = {"matching": loss.detach()}
    if fake.logits is not None:
        adversarial = recipe.dmd2.gan_weight * losses.generator_gan_loss(fake.logits)
        parts["gan"] = adversarial.detach()
        loss = loss + adversarial
    with torch.no_grad():
        distance = per_sample(nets.free(batch.latents - made.x0) ** 2)
        bins = {
            "direction2": (draw.t, per_sample(step.raw**2)),  # mean (f − r)² before n
            "normaliser": (draw.t, step.normaliser),
            "distance2": (draw.t, distance),  # ‖x − G‖² per element, Eq. 7's left side
            "distance2_by_input_time": (made.time, distance),
        }
    return LossReport(loss, parts, bins)


def critic_report(
    nets: Networks, batch: Batch, recipe: Recipe, rng: Stream, made: Generated, gan: bool
) -> LossReport:
    """The fake score's denoising loss on G, and the discriminator's where there is a GAN."""
    options = recipe.dmd2
    generated = made.x0.detach()
    draw = rng.score_draw(generated, recipe.schedule)
    x_t = add_noise(generated, draw.eps, draw.t)
    terms: dict[str, Tensor] = {}
    logits = None
    if gan and not nets.gan_teacher:
        v, logits = discriminator.logits(nets, x_t, draw.t, batch)
    else:
        v = nets.critic_v(x_t, draw.t, batch.conditioning)
    if gan:
        if logits is None:
            _, logits = discriminator.logits(nets, x_t, draw.t, batch)
        terms = discriminator.critic_parts(nets, batch, draw, logits, options, rng)
    if options.critic_loss == "x0":
        prediction, target = x0_from_v(x_t, v, draw.t), generated
    else:
        prediction, target = v, velocity(generated, draw.eps)
    error = losses.denoising_error(nets.free(prediction), nets.free(target))
    terms["fake_score"] = error.mean()
    parts = {f"critic_{name}": term.detach() for name, term in terms.items()}
    loss = torch.stack(list(terms.values())).sum()
    return LossReport(loss, parts, {"fake_score_error": (draw.t, error.detach())})
