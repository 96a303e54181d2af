"""What the methods share: the score gap at noised G, its loss, and the fake score's.

A method (dmd2.py, dp_dmd.py, dfd.py, …) decides how G is made and what the teacher looks at; the
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
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.flow import add_noise, velocity, x0_from_v


class FakePrediction(NamedTuple):
    """f = F_x0 at the noised G (no gradient), and the discriminator's logits of it or None.

    teacher_v: v̂ of the teacher there with the prompt, no gradient, where its features gave them.
    """

    x0: Tensor
    logits: Tensor | None
    teacher_v: Tensor | None = None


def fake_score(
    batch: Batch, nets: Networks, recipe: Recipe, generated: Generated, draw: Draw
) -> FakePrediction:
    """The fake score at x̃_t = (1−t) G + t ε; with a GAN one pass also gives the logits, the
    teacher's where it looks at the teacher's features."""
    gan = recipe.gan.weight > 0
    if not gan:
        return FakePrediction(fake_x0(batch, nets, generated.x0, draw), None)
    # Through the logits the GAN's gradient reaches G, while f stays a constant.
    x_t = add_noise(generated.x0, draw.eps, draw.t)  # (B C T H W), with G's gradient
    v, logits = discriminator.logits(batch, nets, x_t, draw.t)
    if nets.gan_teacher:
        return FakePrediction(fake_x0(batch, nets, generated.x0, draw), logits, v.detach())
    return FakePrediction(x0_from_v(x_t.detach(), v.detach(), draw.t), logits)


@torch.no_grad()
def fake_x0(batch: Batch, nets: Networks, clip: Tensor, draw: Draw) -> Tensor:
    """F_x0 (B C T H W) at `clip`, G or the real one, noised by the draw."""
    x_t = add_noise(clip.detach(), draw.eps, draw.t)
    return x0_from_v(x_t, nets.fake_score_v(x_t, draw.t, batch.conditioning), draw.t)


def gap(
    batch: Batch,
    nets: Networks,
    generated: Generated,
    fake: FakePrediction,
    draw: Draw,
    scored: Tensor | None,
    cfg: float | Tensor,
    space: str = "x0",
    normalise_by: str = "generated",
) -> Gap:
    """Gradient on G's free frames, the teacher looking at `scored`, noised by G's own t and ε.

    Args:
        scored: y (B C T H W), such as the real clip; None is G itself, at which the pass that gave
            the logits may have run the teacher already.
        cfg: the teacher's guidance, one for all clips or (B,).
    """
    with torch.no_grad():
        given = fake.teacher_v if scored is None else None
        scored = generated.x0 if scored is None else scored
        x_t = add_noise(scored, draw.eps, draw.t)
        real = nets.teacher_x0(x_t, draw.t, batch.conditioning, cfg, given)
        # Frames that the model was given are no part of G: they are left out of every mean.
        g, f, r, y = (nets.free(x) for x in (generated.x0, fake.x0, real, scored))
        return losses.score_gap(g, f, r, y, space, normalise_by)


def student_report(
    batch: Batch,
    nets: Networks,
    recipe: Recipe,
    generated: Generated,
    fake: FakePrediction,
    draw: Draw,
    step: Gap,
) -> LossReport:
    """The student's loss from its gap and, where logits are given, the generator's GAN loss."""
    loss = losses.matching_loss(nets.free(generated.x0), step.direction)
    parts = {"matching": loss.detach()}
    if fake.logits is not None:
        adversarial = recipe.gan.weight * losses.generator_gan_loss(fake.logits)
        parts["gan"] = adversarial.detach()
        loss = loss + adversarial
    bins = {
        "direction2": (draw.t, per_sample(step.raw**2)),  # mean (f − r)² before n
        "normaliser": (draw.t, step.normaliser),
    }
    if layout := recipe.student.layout:
        with torch.no_grad():
            parts |= _by_block(step, layout.blocks(generated.x0.shape[2])[0].stop)
            parts["exit_time"] = generated.time.mean()
    return LossReport(loss, parts, bins | distances(batch, nets, generated, draw))


@torch.no_grad()
def distances(
    batch: Batch, nets: Networks, generated: Generated, draw: Draw
) -> dict[str, tuple[Tensor, Tensor]]:
    """‖x − G‖² per element, Eq. 7's left side, by the times of the score and of G's input."""
    distance = per_sample(nets.free(batch.latents - generated.x0) ** 2)  # (B,)
    return {
        "distance2": (draw.t, distance),
        "distance2_by_input_time": (generated.time, distance),
    }


def _by_block(step: Gap, first: int) -> dict[str, Tensor]:
    """mean (f − r)² of a rollout's first block of so many frames, and of those after it."""
    by_frame = step.raw.square().mean((0, 1, 3, 4))  # (T,)
    parts = {"first_block_direction2": by_frame[:first].mean()}
    return parts | (
        {"later_blocks_direction2": by_frame[first:].mean()} if first < len(by_frame) else {}
    )


def fake_score_report(
    batch: Batch, nets: Networks, recipe: Recipe, rng: Stream, generated: Generated
) -> LossReport:
    """The fake score's denoising loss on G, and the discriminator's where there is a GAN."""
    g = generated.x0.detach()
    gan = recipe.gan.weight > 0
    draw = rng.score_draw(g, recipe.schedule)
    x_t = add_noise(g, draw.eps, draw.t)
    terms: dict[str, Tensor] = {}
    logits = None
    if gan and not nets.gan_teacher:
        # One pass of the fake score gives both its prediction and its features for the heads.
        v, logits = discriminator.logits(batch, nets, x_t, draw.t)
    else:
        v = nets.fake_score_v(x_t, draw.t, batch.conditioning)
    if gan:
        if logits is None:
            _, logits = discriminator.logits(batch, nets, x_t, draw.t)
        terms = discriminator.loss_terms(batch, nets, recipe.gan, rng, draw, logits)
    if recipe.fake_score.loss == "x0":
        prediction, target = x0_from_v(x_t, v, draw.t), g
    else:
        prediction, target = v, velocity(g, draw.eps)
    error = losses.denoising_error(nets.free(prediction), nets.free(target))  # (B,)
    terms["fake_score"] = error.mean()
    # "critic_" is the fake score's and the discriminator's name in metrics.jsonl.
    parts = {f"critic_{name}": term.detach() for name, term in terms.items()}
    loss = torch.stack(list(terms.values())).sum()
    return LossReport(loss, parts, {"fake_score_error": (draw.t, error.detach())})
