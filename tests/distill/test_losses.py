import pytest
import torch

from dfdbench.distill import losses
from dfdbench.models import flow as schedule

SHAPE = (4, 3, 2, 4, 4)


@pytest.fixture
def tensors():
    g = torch.Generator().manual_seed(1)
    return torch.randn(6, *SHAPE, generator=g).unbind(0)


def test_matching_gradient_is_the_direction_over_the_number_of_elements(tensors):
    generated, direction = tensors[0].clone().requires_grad_(), tensors[1]
    losses.matching_loss(generated, direction).backward()
    torch.testing.assert_close(generated.grad, direction / direction.numel(), rtol=1e-4, atol=1e-9)


def test_matching_moves_the_student_towards_the_teacher_and_from_the_fake_score():
    generated = torch.zeros(1, 1, 1, 1, 1, requires_grad=True)
    fake, real = torch.full_like(generated, -1.0), torch.full_like(generated, 2.0)
    gap = losses.score_gap(generated.detach(), fake, real, generated.detach())
    losses.matching_loss(generated, gap.direction).backward()
    assert generated.grad.item() < 0, "descent raises G, towards r = 2 and away from f = −1"


def test_x0_gap_is_score_gap_plus_a_regression_of_g_towards_x(tensors):
    """METHODS 3: f − r = (G − x) + t²/(1−t) (s_F(x̃_t) − s_T(x_t)), unguided, shared ε."""
    generated, real, eps, fake_v, teacher_v, _ = (x.double() for x in tensors)
    t = torch.tensor([0.05, 0.4, 0.8, 0.98], dtype=torch.float64)
    noisy_g, noisy_x = (schedule.add_noise(x, eps, t) for x in (generated, real))
    f = schedule.x0_from_v(noisy_g, fake_v, t)
    r = schedule.x0_from_v(noisy_x, teacher_v, t)
    scale = (t * t / (1 - t)).view(-1, 1, 1, 1, 1)
    scores = schedule.score_from_v(noisy_g, fake_v, t) - schedule.score_from_v(
        noisy_x, teacher_v, t
    )
    torch.testing.assert_close(f - r, (generated - real) + scale * scores, rtol=0, atol=1e-5)
    gap = losses.score_gap(generated, f, r, real, space="score")
    torch.testing.assert_close(gap.raw, scale * scores, rtol=0, atol=1e-5)
    assert (gap.raw - (f - r)).abs().max() > 0.1


def test_the_identity_holds_in_float32_as_training_computes_it(tensors):
    generated, real, eps, fake_v, teacher_v, _ = tensors
    t = torch.tensor([0.05, 0.4, 0.8, 0.9])
    noisy_g, noisy_x = (schedule.add_noise(x, eps, t) for x in (generated, real))
    f, r = schedule.x0_from_v(noisy_g, fake_v, t), schedule.x0_from_v(noisy_x, teacher_v, t)
    weight = (t * t / (1 - t)).view(-1, 1, 1, 1, 1)
    scores = schedule.score_from_v(noisy_g, fake_v, t) - schedule.score_from_v(
        noisy_x, teacher_v, t
    )
    gap = losses.score_gap(generated, f, r, real, space="score")
    torch.testing.assert_close(gap.raw, weight * scores, rtol=1e-5, atol=1e-5)


def test_spaces_agree_bitwise_when_the_teacher_looks_at_g(tensors):
    generated, fake, real = tensors[:3]
    x0, score = (losses.score_gap(generated, fake, real, generated, s) for s in ("x0", "score"))
    assert torch.equal(x0.direction, score.direction)


def test_normaliser_is_each_samples_mean_distance_to_the_teacher(tensors):
    generated, fake, real, scored = tensors[:4]
    gap = losses.score_gap(generated, fake, real, scored)
    expected = torch.stack([(generated[i] - real[i]).abs().mean() for i in range(4)]) + 1e-6
    torch.testing.assert_close(gap.normaliser, expected)
    torch.testing.assert_close(gap.direction[2], (fake - real)[2] / expected[2])
    other = losses.score_gap(generated, fake, real, scored, normalise_by="scored")
    torch.testing.assert_close(other.normaliser[1], (scored[1] - real[1]).abs().mean() + 1e-6)


def test_gan_losses_have_the_right_signs():
    fake = torch.tensor([0.3, -1.0], requires_grad=True)
    real = torch.tensor([0.2, 0.5], requires_grad=True)
    (g,) = torch.autograd.grad(losses.generator_gan_loss(fake), fake)
    assert (g < 0).all(), "the generator raises the logits of G"
    to_real, to_fake = torch.autograd.grad(losses.discriminator_gan_loss(real, fake), [real, fake])
    assert (to_real < 0).all(), "the discriminator raises logits of real clips"
    assert (to_fake > 0).all(), "and lowers those of G"


def test_an_undecided_discriminator_pays_two_log_two():
    zero = torch.zeros(3)
    assert losses.discriminator_gan_loss(zero, zero).item() == pytest.approx(2 * 0.6931472)


def test_approximate_r1_is_the_squared_change_of_the_logit():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0])
    assert losses.approximate_r1(a, a) == 0
    assert losses.approximate_r1(a, b).item() == pytest.approx(0.125)


def test_mean_velocity_on_a_linear_flow_is_noise_minus_data(tensors):
    x0, eps = tensors[0].double(), tensors[1].double()
    for time in (0.9, 0.978, 0.2):
        anchor = schedule.add_noise(x0, eps, torch.full((4,), time, dtype=torch.float64))
        torch.testing.assert_close(losses.mean_velocity(eps, anchor, time), eps - x0)


def test_exact_mixture_weighs_the_normalised_gradients(tensors):
    generated, fake, r1, r2, y = tensors[:5]
    a = losses.score_gap(generated, fake, r1, generated)
    b = losses.score_gap(generated, fake, r2, y)
    mixed = losses.mix(a, b, 0.3)
    torch.testing.assert_close(mixed.direction, 0.7 * a.direction + 0.3 * b.direction)
    assert torch.equal(losses.mix(a, b, 0.0).direction, a.direction)
