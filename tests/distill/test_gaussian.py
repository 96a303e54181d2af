"""DMD against closed forms: teacher and student are Gaussians, the fake score is exact."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from dfdbench.distill.batch import Batch
from dfdbench.distill.methods import dmd2
from dfdbench.distill.nets import Networks
from dfdbench.distill.streams import Stream
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import student_times


class GaussianScore(nn.Module):
    """v of the exact denoiser of N(mean, std²): E[x0 | x_t] in closed form."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x, t, prompt):
        t = t.double().view(-1, 1, 1, 1, 1)
        variance = (1 - t) ** 2 * self.std**2 + t**2
        x0 = self.mean + (1 - t) * self.std**2 / variance * (x - (1 - t) * self.mean)
        return (x - x0) / t


class OneStep(nn.Module):
    """A one-step student whose G = mean + std ε exactly."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.std = nn.Parameter(torch.tensor(std, dtype=torch.float64))

    def forward(self, x, t, prompt):
        t = t.double().view(-1, 1, 1, 1, 1)
        eps = x / t  # the input is ε·t₁
        return (x - (self.mean + self.std * eps)) / t


@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.7), (-0.8, 1.6), (0.2, 1.0)])
def test_dmd_gradient_is_the_gradient_of_the_kl_at_that_noise_level(tools, level, mean, std):
    """∇KL(p_G,t ‖ p_T,t) comes from torch.distributions and autograd, not from our code.

    E[(f − r) dG/dθ] = t²/(1−t)² ∇_θ KL; the per-sample normaliser is nearly constant here
    because each sample has many elements, so direction and length are both checked.
    """
    target_mean, target_std = 0.2, 1.0
    student = OneStep(mean, std)
    nets = Networks(
        family=tools.MockFamily(GaussianScore(target_mean, target_std)),
        student=student,
        fake_score=GaussianScore(mean, std),
        negative=Conditioning(torch.zeros(1, 1, 1)),
        cfg=1.0,
        times=student_times(1, 5.0),
    )
    schedule = {"t_low": level, "t_high": level + 1e-9}
    recipe = tools.recipe(
        "dmd2", student={"steps": 1, "input": "backward_simulation"}, schedule=schedule
    )
    latents = torch.zeros(64, 4, 8, 32, 32, dtype=torch.float64)
    batch = Batch(latents, Conditioning(torch.zeros(64, 1, 1)))
    report = dmd2.student_loss(batch, nets, recipe, Stream(0, 0, 0, torch.device("cpu")))
    ours = torch.stack(torch.autograd.grad(report.loss, [student.mean, student.std]))

    m = torch.tensor(mean, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(std, dtype=torch.float64, requires_grad=True)
    a = 1 - level
    spread = lambda deviation: (a**2 * deviation**2 + level**2) ** 0.5  # noqa: E731
    kl = kl_divergence(
        Normal(a * m, spread(s)), Normal(a * target_mean, spread(torch.tensor(target_std)))
    )
    closed = torch.stack(torch.autograd.grad(kl, [m, s])) * level**2 / a**2
    closed = closed / report.bins["normaliser"][1].mean()
    if (mean, std) == (target_mean, target_std):
        assert ours.abs().max() < 1e-3, "no gradient where the distributions agree"
    else:
        torch.testing.assert_close(ours, closed, rtol=0.02, atol=2e-3)
        cosine = torch.nn.functional.cosine_similarity(ours, closed, dim=0)
        assert cosine > 0.999
