"""DP-DMD as released for SD3.5: its times from t = 1, its anchor, no detach, one time a batch."""

import pytest
import torch

from dfdbench.distill import inputs
from dfdbench.distill.loop import distill
from dfdbench.distill.methods import dp_dmd
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.stages import grid, resolve
from dfdbench.distill.streams import Stream
from dfdbench.models.sampling import sample_student
from dfdbench.models.wan import WAN_DEFAULTS
from dfdbench.utils.errors import UserError

TIMES = [1.0, 0.858, 0.602, 0.009]
CPU = torch.device("cpu")


def stream(iteration=0, round_=0):
    return Stream(0, iteration, round_, CPU)


def released(tools, **sections):
    student = {"times": TIMES} | sections.pop("student", {})
    return resolve(tools.recipe("dp_dmd", student=student, **sections), WAN_DEFAULTS)


def bias_gradient(tools, recipe):
    nets = tools.nets(student=tools.PerStep(grid(recipe)), times=grid(recipe))
    report = dp_dmd.student_loss(tools.batch(), nets, recipe, stream())
    return tools.gradients(report, nets.student)["bias"]


def test_without_the_detach_dmd_reaches_the_first_step_through_all_others(tools):
    """G = x₀-prediction of the last of N Euler steps along v = x/2 + b_i, so that
    dG/db_i = (t_{i+1} − t_i) Π_{j>i} (1 + (t_{j+1} − t_j)/2), by hand."""
    recipe = released(tools, dp_dmd={"lambda": 0.0, "detach": False})
    steps = grid(recipe).diff()
    through = [
        float(steps[i]) * float(torch.prod(1 + steps[i + 1 :] / 2)) for i in range(len(steps))
    ]
    ours = bias_gradient(tools, recipe)
    expected = torch.tensor(through) / through[-1] * ours[-1]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    cut = bias_gradient(tools, released(tools, dp_dmd={"lambda": 0.0}))
    assert cut[0] == 0 and torch.equal(cut[1:], ours[1:]), "the detach cuts the first step alone"


def test_the_anchor_is_added_to_what_arrives_without_the_detach(tools):
    def at(**options):
        return bias_gradient(tools, released(tools, dp_dmd=options))

    anchor = at(**{"lambda": 0.05}) - at(**{"lambda": 0.0})
    both = at(**{"lambda": 0.05, "detach": False}) - at(**{"lambda": 0.0, "detach": False})
    torch.testing.assert_close(both, anchor)
    assert anchor[0] != 0 and (anchor[1:] == 0).all()


@pytest.mark.parametrize("policy", ["last", "random"])
def test_no_detach_with_steps_that_cut_anyway_is_refused(tools, policy):
    recipe = released(tools, dp_dmd={"detach": False, "gradient_steps": policy})
    with pytest.raises(UserError, match=r"dp_dmd\.detach = false .*dp_dmd\.gradient_steps"):
        dp_dmd.record(recipe, None)
    recipe = released(tools, dp_dmd={"detach": False})
    assert dp_dmd.record(recipe, None)["first_step_detached"] is False


@pytest.mark.parametrize(("asked", "step", "time"), [(0.935, 5, 0.9375), (0.851, 10, 0.857143)])
def test_anchor_time_finds_its_step_on_thirty_of_shift_three(tools, asked, step, time):
    options = {"anchor_time": asked, "grid_steps": 30, "grid_shift": 3.0}
    said = dp_dmd.record(released(tools, dp_dmd=options), None)
    assert said["anchor_step"] == step and said["anchor_time"] == pytest.approx(time, abs=1e-6)
    assert said["anchor_grid"] == {"steps": 30, "shift": 3.0}


@pytest.mark.parametrize("sampler", ["ode", "sde"])
@pytest.mark.parametrize("policy", ["noised_real", "backward_simulation"])
def test_a_first_time_of_one_is_pure_noise_everywhere(tools, policy, sampler):
    recipe = released(tools, student={"input": policy, "sampler": sampler})
    nets, batch = tools.nets(times=grid(recipe)), tools.batch(64)
    seen = []
    predict = nets.family.predict

    def noting(module, x_t, t, conditioning):
        seen.append((x_t.clone(), t.clone()))
        return predict(module, x_t, t, conditioning)

    nets.family.predict = noting
    generated = inputs.generate(batch, nets, recipe, stream())
    assert torch.isfinite(generated.x0).all()
    x_t, t = seen[0]
    first = t == 1.0
    assert first.any()
    noise = stream().normal("input_eps", batch.latents)
    assert torch.equal(x_t[first], noise[first]), "nothing of the clip is left in it"
    if policy == "noised_real":
        assert set(t.tolist()) == set(torch.tensor(TIMES).tolist())


def test_student_and_losses_are_finite_from_one_to_the_last_time(tools):
    recipe = released(tools, dp_dmd={"anchor_step": 1, "grid_steps": 30, "grid_shift": 3.0},
                      fake_score={"loss": "flow"})  # fmt: skip
    nets = tools.nets(times=grid(recipe))
    for loss in (dp_dmd.student_loss, dp_dmd.fake_score_loss):
        report = loss(tools.batch(), nets, recipe, stream())
        assert torch.isfinite(report.loss)
        for t, value in report.bins.values():
            assert torch.isfinite(t).all() and torch.isfinite(value).all()
    prompt = tools.batch().conditioning
    sampled = sample_student(
        lambda x_t, t: nets.student_v(x_t, t, prompt), tools.batch().latents, nets.times
    )
    assert torch.isfinite(sampled).all()


def test_first_step_target_is_the_teachers_mean_velocity_from_one(tools):
    """On a constant flow ε − x the mean velocity from t = 1 to any anchor is ε − x itself."""
    batch, nets = tools.batch(), tools.nets()
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    nets.teacher_v = lambda x_t, t, conditioning, cfg: noise - batch.latents
    for asked in (0.99, 0.858, 0.3):
        options = {"anchor_time": asked, "grid_steps": 30, "grid_shift": 3.0}
        target = dp_dmd.anchor_velocity(batch, nets, released(tools, dp_dmd=options), noise)
        torch.testing.assert_close(target, noise - batch.latents, rtol=0, atol=1e-4)


@pytest.fixture
def small(tiny_checkpoint, tmp_path, monkeypatch):
    """`--set` values that make a shipped recipe a run of seconds."""
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    return [
        f"model={tiny_checkpoint}", "data.count=4", "optim.batch=2", "optim.accumulate=2",
        "schedule.student_updates=2", "log.every=1", "log.probe_every=1", "log.decode_every=0",
    ]  # fmt: skip


def test_the_released_geometry_trains_whole(small, tmp_path):
    recipe = load_recipe("toy/dp_dmd_released", small)
    o, s = recipe.optim, recipe.schedule
    assert (o.clip, o.weight_decay, recipe.fake_score.loss) == (1.0, 0.0, "flow")
    assert (s.student_update_freq, s.shift, s.one_time) == (6, 3.0, True)
    run = distill(recipe, tmp_path / "run", device="cpu")
    said = run.info["fairness"]
    assert run.arm == "dp_dmd_released" and run.info["method"] == "dp_dmd"
    assert said["student_times"] == [*TIMES, 0.0] and said["score_time_per"] == "batch"
    assert (said["anchor_step"], said["fake_updates"]) == (10, 10)
    assert said["anchor_time"] == pytest.approx(0.857143, abs=1e-6)
    assert abs(said["anchor_time"] - TIMES[1]) < 0.002
    lines = list(run.metrics("update"))
    assert len(lines) == 2 and all(0 < line["diversity"] < 1e3 for line in lines)
    for bins in run.metrics("bins"):
        # One score time for both rounds of the student's update.
        assert sorted(bins["normaliser_count"])[-2:] == [0, 2]
    free = distill(
        load_recipe("toy/dp_dmd_released", [*small, "dp_dmd.detach=false"]),
        tmp_path / "free", device="cpu",
    )  # fmt: skip
    assert free.info["student_sha256"] != run.info["student_sha256"]
