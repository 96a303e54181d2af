"""The further methods against closed forms: teacher, student and real clips are Gaussians."""

import pytest
import torch
from torch import nn

from dfdbench.distill import losses
from dfdbench.distill.batch import Batch
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.inputs import Generated
from dfdbench.distill.methods import adversarial, avd, dcm_dmd, f_distill, sid
from dfdbench.distill.nets import Networks
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import student_times

CPU = torch.device("cpu")
TARGET = (0.3, 1.2)  # mean and deviation of the teacher, or of the real clips
NOISE = {"student": {"steps": 1, "input": "backward_simulation"}}


class Score(nn.Module):
    """v of the denoiser of N(mean, std²), exact, with both as parameters."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = (nn.Parameter(torch.tensor(v).double()) for v in (mean, std))

    def forward(self, x, t, prompt):
        t = t.double().view(-1, 1, 1, 1, 1)
        variance = (1 - t) ** 2 * self.std**2 + t**2
        x0 = self.mean + (1 - t) * self.std**2 / variance * (x - (1 - t) * self.mean)
        return (x - x0) / t


class Consistent(Score):
    """v whose x̂0 is the end of the ODE's trajectory for N(mean, std²), exact."""

    def forward(self, x, t, prompt):
        t = t.double().view(-1, 1, 1, 1, 1)
        spread = ((1 - t) ** 2 * self.std**2 + t**2).sqrt()
        return (x - (self.mean + self.std * (x - (1 - t) * self.mean) / spread)) / t


class OneStep(Score):
    """A one-step student whose G = mean + std ε."""

    def forward(self, x, t, prompt):
        t = t.double().view(-1, 1, 1, 1, 1)
        return (x - (self.mean + self.std * x / t)) / t


def setting(tools, student, fake=None, teacher=TARGET, real=TARGET, clips=8, side=8):
    nets = Networks(
        family=tools.MockFamily(Score(*teacher)),
        student=student,
        fake_score=Score(*(fake or real)),
        negative=Conditioning(torch.zeros(1, 1, 1)),
        cfg=1.0,
        times=student_times(1, 5.0),
    )
    noise = torch.randn(clips, 4, 4, side, side, generator=torch.Generator().manual_seed(3))
    latents = real[0] + real[1] * noise.double()
    return nets, Batch(latents, Conditioning(torch.zeros(clips, 1, 1)))


def trained(tools, method, student, recipe, steps=60, before=lambda nets: None, **kind):
    """The student's mean and deviation after gradient steps of `method`."""
    nets, batch = setting(tools, student, **kind)
    nets.statistics = getattr(method, "statistics", lambda _: None)(recipe)
    if nets.statistics is not None:
        nets.statistics.double()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.05)
    for step in range(steps):
        before(nets)
        nets.train_only(student)
        rng = Stream(0, step, 0, CPU, step)
        report = method.student_loss(batch, nets, recipe, rng)
        optimiser.zero_grad()
        report.loss.backward()
        optimiser.step()
        if report.observed is not None:
            nets.statistics.update(report.observed)
    return student.mean.item(), student.std.item()


def follow(nets):
    """An exact fake score of what the student makes now."""
    nets.fake_score.load_state_dict(nets.student.state_dict())


def test_consistency_leads_to_the_teacher_s_trajectories(tools):
    recipe = tools.recipe("dcm_dmd", student={"steps": 1}, dcm_dmd={"weight": 0.0})
    mean, std = trained(tools, dcm_dmd, Consistent(-0.6, 0.7), recipe)
    assert (mean, std) == pytest.approx(TARGET, abs=0.08)


def test_dmd_of_the_rollouts_leads_to_the_teacher(tools):
    recipe = tools.recipe(
        "dcm_dmd", student={"steps": 1}, dcm_dmd={"weight": 1.0, "consistency": 0}
    )
    mean, std = trained(tools, dcm_dmd, OneStep(-0.6, 0.7), recipe, before=follow)
    assert (mean, std) == pytest.approx(TARGET, abs=0.1)


def test_flow_regression_leads_to_the_real_clips_whatever_the_teacher_is(tools):
    recipe = tools.recipe("avd", student={"steps": 1}, avd={"weight": 1e4})
    mean, _ = trained(tools, avd, Score(-0.6, 0.7), recipe, teacher=(-2.0, 1.0), fake=(-2.0, 1.0))
    assert mean == pytest.approx(TARGET[0], abs=0.05)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_sid_leads_to_the_teacher(tools, alpha):
    recipe = tools.recipe("sid", sid={"alpha": alpha}, **NOISE)
    mean, std = trained(tools, sid, OneStep(-0.6, 0.7), recipe, before=follow)
    assert (mean, std) == pytest.approx(TARGET, abs=0.1)


@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_sid_s_gradient_is_that_of_the_closed_form(tools, level):
    """E (r − f)((r − x) − α (r − f)) / n by moments of Gaussians, differentiated by autograd."""
    alpha, start = 1.0, (-0.6, 0.7)
    student = OneStep(*start)
    nets, batch = setting(tools, student, fake=start, clips=64, side=16)
    nets.train_only(student)
    recipe = tools.recipe("sid", schedule={"t_low": level, "t_high": level + 1e-9}, **NOISE)
    report = sid.student_loss(batch, nets, recipe, Stream(0, 0, 0, CPU))
    ours = torch.stack(torch.autograd.grad(report.loss, [student.mean, student.std]))

    m, s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in start)
    a = 1 - level

    def affine(mean, std):  # x0 = offset + slope x_t
        slope = a * std**2 / (a**2 * std**2 + level**2)
        return mean * (1 - slope * a), slope

    (r0, r1), (f0, f1) = affine(*TARGET), affine(*start)
    d0, d1 = r0 - f0, r1 - f1
    first, second = a * m, (a * m) ** 2 + (a * s) ** 2 + level**2  # moments of x_t
    mixed = a * (m**2 + s**2)  # E x_t x
    value = (d0 * (r0 - alpha * d0) + (d0 * (r1 - alpha * d1) + d1 * (r0 - alpha * d0)) * first
             + d1 * (r1 - alpha * d1) * second - d0 * m - d1 * mixed)  # fmt: skip
    closed = torch.stack(torch.autograd.grad(value, [m, s])) / report.bins["normaliser"][1].mean()
    torch.testing.assert_close(ours, closed, rtol=0.05, atol=5e-3)


def test_the_discriminator_s_best_logit_is_the_log_of_real_over_fake():
    """D = a x + b between N(1, 1) and N(0, 1): log p_real / p_fake = x − ½."""
    generator = torch.Generator().manual_seed(0)
    fake = torch.randn(20_000, generator=generator)
    real = 1 + torch.randn(20_000, generator=generator)
    a, b = (torch.zeros((), requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([a, b], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        losses.discriminator_gan_loss(a * real + b, a * fake + b).backward()
        optimiser.step()
    assert (a.item(), b.item()) == pytest.approx((1.0, -0.5), abs=0.07)


def test_clips_nearer_to_the_real_ones_weigh_more_in_the_kl(tools, monkeypatch):
    """Heads that know the exact log ratio of N(1, 1) to N(0, 1); G's clips lie at −1, 0, 1, 2."""
    recipe = tools.recipe("f_distill", gan={"weight": 0.1}, f_distill={"divergence": "kl"})
    nets, batch = tools.nets(statistics=f_distill.statistics(recipe)), tools.batch(4)
    monkeypatch.setattr(
        "dfdbench.distill.discriminator.logits",
        lambda batch, nets, x_t, t: (x_t, x_t.flatten(1).mean(1, keepdim=True) - 0.5),
    )
    places = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    x0 = places.view(-1, 1, 1, 1, 1).expand_as(batch.latents).clone().requires_grad_()
    monkeypatch.setattr(f_distill, "generate", lambda *_: Generated(x0, torch.ones(4)))
    monkeypatch.setattr(Stream, "score_draw", lambda *_: Draw(torch.full((4,), 1e-3), 0 * x0))
    report = f_distill.student_loss(batch, nets, recipe, Stream(0, 0, 0, CPU))
    r = ((1 - 1e-3) * places - 0.5).exp()
    torch.testing.assert_close(report.bins["h"][1], r / r.mean())


@pytest.mark.parametrize("side", [-1, 1])
def test_an_adversarial_student_follows_the_real_clips(tools, side):
    recipe = tools.recipe(
        "adversarial", gan={"weight": 1.0, "features": "teacher", "r1_weight": 0.1}, **NOISE
    )
    student, real = OneStep(0.0, 1.0), (0.8 * side, 1.0)
    nets, batch = setting(tools, student, teacher=(0.0, 1.0), real=real, side=4)
    torch.manual_seed(0)
    nets.heads, nets.blocks, nets.gan_teacher = Heads(1, 4), (0,), True
    nets.heads.heads[0][0] = nn.Identity()  # a layer norm would hide the mean of all channels
    trained = [
        (student, adversarial.student_loss, 1, 0.02),
        (nets.heads, adversarial.fake_score_loss, 3, 0.05),
    ]
    optimisers = [torch.optim.Adam(net.parameters(), lr=lr) for net, *_, lr in trained]
    for step in range(60):
        for optimiser, (net, loss, times, _) in zip(optimisers, trained, strict=True):
            for again in range(times):
                nets.train_only(net)
                report = loss(batch, nets, recipe, Stream(0, 10 * step + again + times, 0, CPU))
                optimiser.zero_grad()
                report.loss.backward()
                optimiser.step()
    assert 0.3 < side * student.mean.item() < 1.2
