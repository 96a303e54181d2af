"""Losses of the methods as pure functions of latents and predictions.

Used by matching.py, dp_dmd.py and the discriminator. Latents are (B C T H W) float32 in normalised
latent units; f and r are x0 predictions of the fake score and the teacher.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Gap(NamedTuple):
    """The gradient that distribution matching puts on G.

    Attributes:
        direction: (B C T H W), dloss/dG up to a constant, already normalised.
        raw: (B C T H W), before the normaliser.
        normaliser: (B,).
    """

    direction: Tensor
    raw: Tensor
    normaliser: Tensor


def per_sample(x: Tensor) -> Tensor:
    """Mean over everything but the batch: (B,)."""
    return x.flatten(1).mean(1)


def score_gap(
    generated: Tensor,
    fake: Tensor,
    real: Tensor,
    scored: Tensor,
    space: str = "x0",
    normalise_by: str = "generated",
) -> Gap:
    """(f − r) / n of DMD (2311.18828 Eq. 7, 8) and of DFD (2606.18478 Eq. 8).

    Args:
        generated: G. fake: f = F_x0 at the noised G. real: r = T_x0 at the noised `scored`.
        scored: y, what the teacher looked at: G itself (DMD) or the real clip (DFD).
        space: "x0" is the released form f − r. "score" is Eq. 8 as written,
            t²/(1−t) (s_F − s_T) = (f − r) − (G − y), which lacks the pull of G towards y.
            For y = G both are the same.
        normalise_by: n = mean |G − r| ("generated", DMD's) or mean |y − r| ("scored").
    """
    raw = fake - real
    if space == "score":
        raw = raw - (generated - scored)
    base = generated if normalise_by == "generated" else scored
    normaliser = per_sample((base - real).abs()) + 1e-6
    return Gap(raw / normaliser.view(-1, 1, 1, 1, 1), raw, normaliser)


def mix(first: Gap, second: Gap, weight: float) -> Gap:
    """(1 − w) first + w second: DFD's exact mixture (Eq. 9) of normalised gradients."""
    return Gap(*(torch.lerp(a, b, weight) for a, b in zip(first, second, strict=True)))


def with_pull(step: Gap, generated: Tensor, real: Tensor, matching: float, pull: float) -> Gap:
    """a (f − r)/n + b (G − x)/n: a DMD step and a regression of G towards x, over DMD's n.

    Args:
        step: of DMD, at G. generated: G, real: x, both (B C T H W). matching: a. pull: b.
    """
    raw = matching * step.raw + pull * (generated - real)
    return Gap(raw / step.normaliser.view(-1, 1, 1, 1, 1), raw, step.normaliser)


def sid_loss(generated: Tensor, fake: Tensor, real: Tensor, alpha: float) -> Tensor:
    """mean (r − f)·((r − x) − α (r − f)) / n of each sample, (B,), n = mean |x − r| a constant.

    Score identity distillation (SiD, 2404.04057) in the form of Self Forcing's release. Gradients
    go through x and, where f and r were computed with them, through these.

    Args:
        generated: x = G. fake: f. real: r, all (B C T H W). alpha: α.
    """
    step = real - fake
    normaliser = per_sample((generated - real).abs()).detach() + 1e-6
    return per_sample(step * ((real - generated) - alpha * step)) / normaliser


def matching_loss(generated: Tensor, direction: Tensor) -> Tensor:
    """½ mean (G − stopgrad(G − direction))²: its gradient on G is direction / numel."""
    target = (generated - direction).detach()
    return 0.5 * F.mse_loss(generated, target)


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (B,): the fake score's loss in x0 or v."""
    return per_sample((prediction - target) ** 2)


def generator_gan_loss(fake_logits: Tensor) -> Tensor:
    """softplus(−D(G)): falls as the discriminator takes G for real."""
    return F.softplus(-fake_logits).mean()


def discriminator_gan_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """softplus(D(G)) + softplus(−D(x)): falls as real logits rise and fake ones sink."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def approximate_r1(logits: Tensor, perturbed_logits: Tensor) -> Tensor:
    """Squared change of the logit under a small perturbation of the same noised input."""
    return ((logits - perturbed_logits) ** 2).mean()


def mean_velocity(eps: Tensor, anchor: Tensor, time: float) -> Tensor:
    """(ε − z) / (1 − t̃): the straight velocity from noise to the anchor (DP-DMD, 2602.03139)."""
    return (eps - anchor) / (1 - time)
