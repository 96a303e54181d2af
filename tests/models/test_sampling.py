import pytest
import torch

from dfdbench.models import flow as schedule
from dfdbench.models import sampling
from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError

SHAPE = (2, 3, 2, 2)


def straight_flow(x0):
    """The exact predictor of a flow whose every path ends in `x0`: v = (x − x0) / t."""
    return lambda x, t: (x - x0) / t.reshape(-1, 1, 1, 1, 1)


def test_noise_depends_on_prompt_seed_and_step_only():
    names, seeds = ["ball", "box", "ball"], [1, 1, 2]
    together = sampling.batch_noise(names, seeds, SHAPE)
    alone = sampling.batch_noise(names[::-1], seeds[::-1], SHAPE).flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together[1], sampling.sample_noise("box", 1, SHAPE))
    rows = [*together, sampling.sample_noise("ball", 1, SHAPE, step=1)]
    assert len({float(row.sum()) for row in rows}) == 4


def test_noise_is_standard_normal():
    noise = sampling.sample_noise("ball", 7, (4, 25, 40, 10))
    assert noise.mean().abs() < 0.02 and (noise.std() - 1).abs() < 0.02


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_student_lands_on_x0_when_its_prediction_is_exact(sampler, steps):
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, *SHAPE, generator=g).unbind(0)
    out = sampling.sample_student(
        straight_flow(x0),
        noise,
        schedule.student_times(steps, 5.0),
        sampler,
        noise_fn=lambda step: torch.randn(noise.shape, generator=g),
    )
    torch.testing.assert_close(out, x0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_each_student_step_renoises_x0_as_the_sampler_says(sampler):
    g = torch.Generator().manual_seed(0)
    x, fresh = torch.randn(2, 2, *SHAPE, generator=g).unbind(0)
    now, after = 0.9, 0.5
    t = torch.full((2,), now)
    v = torch.tanh(x)
    _, x0, following = sampling.student_step(
        lambda x_t, t: torch.tanh(x_t), x, now, after, fresh if sampler == "sde" else None
    )
    torch.testing.assert_close(x0, x - now * v)
    noise = fresh if sampler == "sde" else schedule.eps_from_v(x, v, t)
    torch.testing.assert_close(following, 0.5 * x0 + 0.5 * noise)


def test_student_is_called_at_its_times_only():
    seen = []

    def predict(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    times = schedule.student_times(4, 5.0)
    noise = torch.ones(1, *SHAPE)
    sampling.sample_student(predict, noise, times)
    assert seen == pytest.approx(times[:-1].tolist())


def test_teacher_euler_solves_a_linear_flow_exactly_and_stops_on_its_grid():
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, *SHAPE, generator=g).unbind(0)
    constant = lambda x, t: noise - x0  # noqa: E731
    end, time = sampling.sample_teacher(constant, noise, 50, 5.0)
    assert time == 0
    torch.testing.assert_close(end, x0, rtol=0, atol=1e-5)
    part, time = sampling.sample_teacher(constant, noise, 50, 5.0, stop_after=5)
    assert time == pytest.approx(0.978, abs=5e-4)
    expected = schedule.add_noise(x0, noise, torch.full((2,), time))
    torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)


def test_guidance_combines_both_conditions_and_skips_the_negative_at_one(tiny_family):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *tiny_family.latent_shape(17, 64, 64), generator=g)
    t = torch.tensor([0.4, 0.8])
    cond, neg = (Conditioning(torch.randn(2, 16, 64, generator=g)) for _ in range(2))
    with torch.no_grad():
        one, two = (tiny_family.predict(tiny_family.teacher, x, t, c) for c in (cond, neg))
        call = lambda **k: sampling.guided_v(  # noqa: E731
            tiny_family, tiny_family.teacher, x, t, cond, **k
        )
        torch.testing.assert_close(call(negative=neg, cfg=3.0), two + 3 * (one - two))
        assert torch.equal(call(negative=neg, cfg=1.0), one)
        per_sample = call(negative=neg, cfg=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(per_sample[0], one[0])
    torch.testing.assert_close(per_sample[1], (two + 3 * (one - two))[1])


def test_an_unknown_sampler_offers_the_known_ones():
    with pytest.raises(UserError, match="unknown sampler 'odee'; did you mean ode"):
        sampling.sample_student(lambda x, t: x, torch.zeros(1, *SHAPE), torch.ones(2), "odee")
