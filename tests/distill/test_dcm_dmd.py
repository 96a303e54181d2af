"""Consistency by the teacher's Euler steps, with DMD beside it."""

import pytest
import torch
from torch import nn

from dfdbench.distill.methods import dcm_dmd, dmd2
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, shift_time
from dfdbench.utils.errors import UserError

CPU = torch.device("cpu")


def stream(iteration=0, round_=0, update=None):
    return Stream(0, iteration, round_, CPU, update)


def recipe_of(tools, **options):
    return tools.recipe("dcm_dmd", dcm_dmd=options)


def test_without_consistency_it_is_dmd2_bitwise(tools):
    recipe = recipe_of(tools, consistency=0.0, weight=1.0, rollout="input")
    nets, other = tools.nets(), tools.nets()
    left = dcm_dmd.student_loss(tools.batch(), nets, recipe, stream())
    right = dmd2.student_loss(tools.batch(), other, tools.recipe(), stream())
    left, right = tools.gradients(left, nets.student), tools.gradients(right, other.student)
    assert left["a"] != 0 and all(torch.equal(left[name], right[name]) for name in left)


def test_without_dmd_nothing_asks_for_the_fake_score_or_a_rollout(tools):
    nets = tools.nets()
    report = dcm_dmd.student_loss(tools.batch(), nets, recipe_of(tools, weight=0.0), stream())
    assert report.parts.keys() == {"consistency"}
    rows = [(module, count) for module, count in nets.family.rows]
    assert rows == [(nets.student, 6), (nets.family.teacher, 12), (nets.student, 6)]


def test_the_two_parts_add_up(tools):
    def loss(**options):
        recipe = recipe_of(tools, **options)
        return dcm_dmd.student_loss(tools.batch(), tools.nets(), recipe, stream(update=1)).loss

    both = loss(weight=0.25, consistency=2.0)
    apart = 0.25 * loss(consistency=0.0, weight=1.0) + 2.0 * loss(weight=0.0)
    torch.testing.assert_close(both, apart)


class Exact(nn.Module):
    """Knows that every clip is `x`: v = (x_t − x) / t."""

    def __init__(self, x):
        super().__init__()
        self.x = x
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t, prompt):
        return (x_t - self.x) / t.view(-1, 1, 1, 1, 1) + self.none


def test_a_student_on_the_teacher_s_trajectories_is_consistent(tools):
    batch = tools.batch()
    exact = Exact(batch.latents)
    nets = tools.nets(student=exact, cfg=1.0)
    nets.family.teacher = exact
    error, t = dcm_dmd.consistency(batch, nets, recipe_of(tools), stream())
    assert error.max() < 1e-8 and t.max() <= nets.times[0]


def test_times_are_neighbours_of_the_shifted_grid_and_the_target_is_a_constant(tools):
    seen = []

    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(0.9))

        def forward(self, x_t, t, prompt):
            seen.append((t, x_t, torch.is_grad_enabled()))
            return self.a * x_t

    batch, recipe = tools.batch(200), recipe_of(tools, intervals=48)
    nets = tools.nets(student=Noting())
    error, _ = dcm_dmd.consistency(batch, nets, recipe, stream())
    (t, x_t, with_grad), (after, nearer, without) = seen
    assert with_grad and not without
    u, below = (1 - t / (5 - 4 * t) for t in (t, after))  # the shift's inverse
    inside = (t < 0.998) & (after > 0.002)
    torch.testing.assert_close((below - u)[inside], torch.full_like(u[inside], 1 / 48),
                               rtol=0, atol=2e-4)  # fmt: skip
    assert u.min() >= 0 and u.max() <= 1 - 1 / 48 + 1e-4 and (after >= 0.001).all()
    eps = stream().normal("consistency_eps", batch.latents)
    torch.testing.assert_close(x_t, add_noise(batch.latents, eps, t))
    v = nets.teacher_v(x_t, t, batch.conditioning, nets.cfg)
    torch.testing.assert_close(nearer, x_t + (after - t).view(-1, 1, 1, 1, 1) * v)
    expected = (x_t * (1 - t.view(-1, 1, 1, 1, 1) * 0.9) - nearer * (1 - after.view(-1, 1, 1, 1, 1)
                                                                      * 0.9)) ** 2  # fmt: skip
    torch.testing.assert_close(error, expected.flatten(1).mean(1))


def test_rollouts_take_one_to_n_steps_in_turn_at_falling_times(tools):
    recipe, seen = recipe_of(tools), []

    class Noting(nn.Module):
        def forward(self, x_t, t, prompt):
            seen.append((float(t[0]), torch.is_grad_enabled()))
            return 0.5 * x_t

    for update in range(8):
        seen.clear()
        nets = tools.nets(student=Noting())
        generated = dcm_dmd.generate(tools.batch(), nets, recipe, stream(5 * update, 0, update))
        times = [t for t, _ in seen]
        assert len(seen) == update % 4 + 1 and times == sorted(times, reverse=True)
        assert times[0] == pytest.approx(0.999) and times[-1] == pytest.approx(generated.time[0])
        assert [grad for _, grad in seen] == [False] * (len(seen) - 1) + [True]
        again, seen_before = seen.copy(), seen.clear()
        dcm_dmd.generate(tools.batch(), nets, recipe, stream(5 * update, 1, update))
        assert seen == again and seen_before is None, "the same times in every round"


def test_the_rollout_s_noise_is_fresh_at_every_step(tools):
    """A student that knows x0 = 0 is shown the noise alone."""
    states = []

    class Zero(nn.Module):
        def forward(self, x_t, t, prompt):
            states.append(x_t / t.view(-1, 1, 1, 1, 1))
            return x_t / t.view(-1, 1, 1, 1, 1)

    nets = tools.nets(student=Zero())
    dcm_dmd.generate(tools.batch(50), nets, recipe_of(tools), stream(0, 0, 3))
    assert len(states) == 4
    flat = torch.stack([state.flatten() for state in states])
    torch.testing.assert_close(torch.corrcoef(flat), torch.eye(4), rtol=0, atol=0.06)


def test_warm_up_is_consistency_alone(tools):
    recipe = recipe_of(tools, warm_up=3)
    for update in range(5):
        report = dcm_dmd.student_loss(
            tools.batch(), tools.nets(), recipe, stream(5 * update, 0, update)
        )
        assert ("matching" in report.parts) is (update >= 3)
    assert "matching" in dcm_dmd.student_loss(tools.batch(), tools.nets(), recipe, stream()).parts


def test_record_says_where_sampling_starts(tools):
    said = dcm_dmd.record(recipe_of(tools), None)
    assert said["start_time"] == 0.999 and said["input"] == "random_rollout"
    recipe = tools.recipe("dcm_dmd", student={"times": [0.98, 0.5], "steps": 2},
                          dcm_dmd={"rollout": "input"})  # fmt: skip
    said = dcm_dmd.record(recipe, None)
    assert said["start_time"] == 0.98 and said["input"] == "noised_real"


def test_what_leaves_no_loss_or_no_student_is_refused(tools):
    for options in ({"consistency": 0.0, "weight": 0.0}, {"consistency": 0.0, "warm_up": 2}):
        with pytest.raises(UserError, match="consistency is 0"):
            recipe_of(tools, **options)
    causal = {"input": "self_forcing", "block_frames": 1}
    with pytest.raises(UserError, match="bidirectional student"):
        dcm_dmd.record(tools.recipe("dcm_dmd", student=causal), None)


def test_common_numbers_are_shared_by_rounds_and_uniform():
    draws = torch.tensor([stream(i).common("u", 3) for i in range(300)])
    assert abs(draws.mean() - 0.5) < 0.03 and abs(draws.std() - 12**-0.5) < 0.02
    assert stream(7, 0).common("u", 3) == stream(7, 5).common("u", 3)
    uniform = stream().uniform("u", 1000)
    assert uniform.shape == (1000,) and abs(uniform.mean() - 0.5) < 0.03
    assert not torch.equal(uniform, stream(0, 1).uniform("u", 1000))
    assert float(shift_time(torch.tensor(0.5), 5.0)) == pytest.approx(5 / 6)
