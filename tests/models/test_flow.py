import pytest
import torch

from dfdbench.models import flow as schedule


@pytest.fixture
def path():
    g = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, 5, 3, 2, 4, 4, generator=g, dtype=torch.float64).unbind(0)
    t = torch.tensor([0.03, 0.2, 0.5, 0.83, 0.999], dtype=torch.float64)
    return x0, eps, t, schedule.add_noise(x0, eps, t)


def test_path_ends_are_data_and_noise(path):
    x0, eps, _, _ = path
    assert torch.equal(schedule.add_noise(x0, eps, torch.zeros(5)), x0)
    assert torch.equal(schedule.add_noise(x0, eps, torch.ones(5)), eps)


def test_velocity_is_the_time_derivative_of_the_path(path):
    x0, eps, t, x_t = path
    later = schedule.add_noise(x0, eps, t + 1e-6)
    torch.testing.assert_close((later - x_t) / 1e-6, schedule.velocity(x0, eps), rtol=0, atol=1e-8)


def test_every_conversion_recovers_its_quantity(path):
    x0, eps, t, x_t = path
    v = schedule.velocity(x0, eps)
    close = torch.testing.assert_close
    close(schedule.x0_from_v(x_t, v, t), x0)
    close(schedule.eps_from_v(x_t, v, t), eps)
    close(schedule.score_from_v(x_t, v, t), -eps / t.reshape(-1, 1, 1, 1, 1))


def test_score_is_the_gradient_of_the_log_density_of_a_gaussian():
    # For x0 = m fixed, x_t ~ N((1−t) m, t²): autograd of the log density is independent of ours.
    m, t = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    x_t = torch.tensor([[1.3]], dtype=torch.float64, requires_grad=True)
    log_p = torch.distributions.Normal((1 - t) * m, t).log_prob(x_t).sum()
    v = (x_t.detach() - m) / t
    (expected,) = torch.autograd.grad(log_p, x_t)
    torch.testing.assert_close(schedule.score_from_v(x_t.detach(), v, t), expected)


def test_student_times_are_the_published_grids():
    published = [0.999, 0.937, 0.833, 0.624, 0.0]  # FastGen's Wan recipe, truncated to 3 digits
    torch.testing.assert_close(
        schedule.student_times(4, 5.0), torch.tensor(published).double(), rtol=0, atol=2e-3
    )
    torch.testing.assert_close(
        schedule.student_times(2, 5.0), torch.tensor([0.999, 5 / 6, 0]).double()
    )
    assert schedule.student_times(1, 5.0).tolist() == [0.999, 0.0]


def test_teacher_grid_reaches_the_known_anchor_times():
    # DP-DMD's anchors after K = 1, 3, 5, 10 of 50 steps at shift 5 (METHODS: .996/.987/.978/.952).
    times = schedule.teacher_times(50, 5.0)
    assert [round(times[k].item(), 3) for k in (1, 3, 5, 10)] == [0.996, 0.987, 0.978, 0.952]
    assert times[0] == 1 and times[-1] == 0 and len(times) == 51


def test_sampled_times_are_shifted_uniforms_within_the_clamp():
    g = torch.Generator().manual_seed(0)
    t = schedule.sample_t(20000, g, 5.0, 0.02, 0.98)
    assert t.min() >= 0.02 and t.max() <= 0.98
    # median of shift(U) is shift(median U) = 5·.5/(1+4·.5)
    assert t.median().item() == pytest.approx(5 / 6, abs=0.01)


def test_cfg_convention_one_is_conditional_zero_is_negative(path):
    x0, eps, _, _ = path
    torch.testing.assert_close(schedule.cfg_combine(x0, eps, 1.0), x0)
    assert torch.equal(schedule.cfg_combine(x0, eps, 0.0), eps)
    # g = 4 is the other convention's g' = 3: cond + 3 (cond − neg)
    torch.testing.assert_close(schedule.cfg_combine(x0, eps, 4.0), x0 + 3 * (x0 - eps))
    mixed = schedule.cfg_combine(x0, eps, torch.tensor([1.0, 4, 1, 4, 1]))
    torch.testing.assert_close(mixed[1], (x0 + 3 * (x0 - eps))[1])
    torch.testing.assert_close(mixed[0], x0[0])
