import importlib
import sys

import pytest
import torch
from torch import nn

from dfdbench.distill import inputs, methods
from dfdbench.distill.discriminator import Heads, tapped_blocks
from dfdbench.distill.inputs import Generated
from dfdbench.distill.loop import distill
from dfdbench.distill.methods import dfd, dmd2, dp_dmd, get_method, method_names
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.distill.sections import Gan
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import x0_from_v
from dfdbench.utils.errors import UserError


def stream(iteration=0, round_=0):
    return Stream(0, iteration, round_, torch.device("cpu"))


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def student_gradients(tools, method, recipe, nets=None, **kwargs):
    nets = nets or tools.nets()
    report = method.student_loss(tools.batch(), nets, recipe, stream(**kwargs))
    return tools.gradients(report, nets.student)


# --- DFD against DMD2


@pytest.mark.parametrize("space", ["x0", "score"])
def test_dfd_with_p_zero_is_dmd2_bitwise(tools, space):
    for iteration in range(4):
        ours = student_gradients(
            tools, dfd, tools.recipe("dfd", dfd={"p": 0.0, "gradient_space": space}),
            iteration=iteration,
        )  # fmt: skip
        assert same(ours, student_gradients(tools, dmd2, tools.recipe(), iteration=iteration))


def test_dfd_with_p_one_is_not_dmd2(tools):
    ours = student_gradients(tools, dfd, tools.recipe("dfd", dfd={"p": 1.0}))
    assert not same(ours, student_gradients(tools, dmd2, tools.recipe()))


def test_dfd_equals_dmd_when_the_real_clip_is_the_generated_one(tools, monkeypatch):
    nets, batch = tools.nets(), tools.batch()

    def reproduce(batch, nets, recipe, rng):
        return Generated(batch.latents * (nets.student.a / 0.9), torch.ones(len(batch.latents)))

    monkeypatch.setattr(dfd, "generate", reproduce)
    monkeypatch.setattr(dmd2, "generate", reproduce)
    assert torch.equal(reproduce(batch, nets, None, None).x0, batch.latents)
    ours = dfd.student_loss(batch, nets, tools.recipe("dfd", dfd={"p": 1.0}), stream())
    theirs = dmd2.student_loss(batch, nets, tools.recipe(), stream())
    ours, theirs = tools.gradients(ours, nets.student), tools.gradients(theirs, nets.student)
    assert same(ours, theirs) and ours["a"] != 0


def test_exact_mixture_is_the_expectation_of_the_draw(tools):
    at = {p: student_gradients(tools, dfd, tools.recipe("dfd", dfd={"p": p})) for p in (0.0, 1.0)}
    mixed = student_gradients(tools, dfd, tools.recipe("dfd", dfd={"w": 0.25}))
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.75 * at[0.0][name] + 0.25 * at[1.0][name])


def test_dfd_draws_the_real_branch_with_probability_p(tools):
    recipe = tools.recipe("dfd", dfd={"p": 0.5})
    differs = [
        not same(
            student_gradients(tools, dfd, recipe, iteration=i),
            student_gradients(tools, dmd2, tools.recipe(), iteration=i),
        )
        for i in range(60)
    ]
    assert 18 <= sum(differs) <= 42


def test_t_min_keeps_low_noise_levels_on_dmd(tools):
    above_all = tools.recipe("dfd", dfd={"p": 1.0, "t_min": 1.0})
    expected = student_gradients(tools, dmd2, tools.recipe())
    assert same(student_gradients(tools, dfd, above_all), expected)
    partly = tools.recipe("dfd", dfd={"p": 1.0, "t_min": 0.8, "cfg_dfd": 1.0})
    assert not same(student_gradients(tools, dfd, partly), expected)


def test_cfg_dfd_guides_the_real_branch_alone(tools):
    def at(**options):
        return student_gradients(tools, dfd, tools.recipe("dfd", dfd=options))

    assert same(at(p=0.0, cfg_dfd=1.0), at(p=0.0))
    assert not same(at(p=1.0, cfg_dfd=1.0), at(p=1.0))
    unguided = student_gradients(
        tools, dfd, tools.recipe("dfd", dfd={"p": 1.0}), nets=tools.nets(cfg=1.0)
    )
    assert same(at(p=1.0, cfg_dfd=1.0), unguided)


def test_score_space_drops_the_pull_of_g_towards_x(tools):
    x0 = student_gradients(tools, dfd, tools.recipe("dfd", dfd={"p": 1.0}))
    score = student_gradients(
        tools, dfd, tools.recipe("dfd", dfd={"p": 1.0, "gradient_space": "score"})
    )
    assert not same(x0, score)


# --- passes


@pytest.mark.parametrize(("cfg", "rows"), [(3.0, 12), (1.0, 6)])
def test_no_negative_pass_without_guidance(tools, cfg, rows):
    nets = tools.nets(cfg=cfg)
    dmd2.student_loss(tools.batch(), nets, tools.recipe(), stream())
    calls = {module: count for module, count in nets.family.rows}
    assert calls == {nets.student: 6, nets.fake_score: 6, nets.family.teacher: rows}


@pytest.mark.parametrize(
    "name",
    [n for n in method_names() if hasattr(get_method(n), "fake_score_loss") and n != "adversarial"],
)
def test_fake_score_update_trains_the_fake_score_alone(tools, name):
    nets = tools.nets()
    report = get_method(name).fake_score_loss(
        tools.batch(), nets, stages_filled(tools.recipe(name)), stream()
    )
    assert all(g.abs() > 0 for g in tools.gradients(report, nets.fake_score).values())
    assert all(g == 0 for g in tools.gradients(report, nets.student).values())


def stages_filled(recipe):
    from dfdbench.distill.stages import resolve
    from dfdbench.models.wan import WAN_DEFAULTS

    return resolve(recipe, WAN_DEFAULTS)


@pytest.mark.parametrize("loss", ["x0", "flow"])
def test_fake_score_loss_vanishes_for_an_exact_fake_score(tools, loss):
    class Exact(nn.Module):
        """Knows that G is zero everywhere: v = x / t."""

        def forward(self, x, t, prompt):
            return x / t.view(-1, 1, 1, 1, 1)

    nets = tools.nets(fake_score=Exact(), student=Exact())
    recipe = tools.recipe(fake_score={"loss": loss})
    report = dmd2.fake_score_loss(tools.batch(), nets, recipe, stream())
    assert report.parts["critic_fake_score"] < 1e-10


# --- student inputs


def test_noised_real_steps_once_from_a_student_time(tools):
    nets, batch = tools.nets(), tools.batch(200)
    generated = inputs.generate(batch, nets, tools.recipe(), stream())
    grid = nets.times[:-1].float()
    assert set(generated.time.tolist()) == set(grid.tolist())
    assert [count for _, count in nets.family.rows] == [200]
    # At t → 0 the input is the clip itself: paired by construction.
    nets.times = torch.tensor([1e-6, 0.0])
    close = inputs.generate(batch, nets, tools.recipe(), stream())
    torch.testing.assert_close(close.x0, batch.latents, rtol=0, atol=1e-4)


def test_backward_simulation_has_a_gradient_on_its_last_step_only(tools):
    recipe = tools.recipe(student={"input": "backward_simulation"})
    exits = set()
    for iteration in range(40):
        nets = tools.nets(student=tools.PerStep(tools.nets().times))
        generated = inputs.generate(tools.batch(), nets, recipe, stream(iteration))
        grad = torch.autograd.grad(generated.x0.sum(), nets.student.bias)[0]
        last = int(grad.abs().argmax())
        exits.add(last)
        assert (grad != 0).sum() == 1 and len(nets.family.rows) == last + 1
        assert generated.time[0] == pytest.approx(nets.times[last].item())
    assert exits == {0, 1, 2, 3}


def test_backward_simulation_exits_alike_in_every_round_of_an_update(tools):
    recipe = tools.recipe(student={"input": "backward_simulation"})
    for iteration in range(10):
        a, b = (
            inputs.generate(tools.batch(), tools.nets(), recipe, stream(iteration, r))
            for r in (0, 1)
        )
        assert a.time[0] == b.time[0] and not torch.equal(a.x0, b.x0)


# --- DP-DMD


def dp_gradients(tools, **options):
    nets = tools.nets(student=tools.PerStep(tools.nets().times))
    recipe = stages_filled(tools.recipe("dp_dmd", dp_dmd=options))
    report = dp_dmd.student_loss(tools.batch(), nets, recipe, stream(options.pop("it", 0)))
    return tools.gradients(report, nets.student)["bias"]


def test_dp_dmd_sends_no_dmd_gradient_into_step_one(tools):
    without = dp_gradients(tools, **{"lambda": 0.0})
    assert without[0] == 0 and (without[1:] != 0).all()
    with_anchor = dp_gradients(tools, **{"lambda": 0.05})
    assert with_anchor[0] != 0, "the anchor loss does reach step one"
    assert torch.equal(with_anchor[1:], without[1:]), "and no other"


def test_dp_dmd_gradient_steps_choose_which_later_steps_learn(tools):
    last = dp_gradients(tools, **{"lambda": 0.0, "gradient_steps": "last"})
    assert (last[:3] == 0).all() and last[3] != 0
    random = dp_gradients(tools, **{"lambda": 0.0, "gradient_steps": "random"})
    assert (random != 0).sum() == 1 and random[0] == 0


def test_dp_dmd_target_is_noise_minus_data_on_a_linear_flow(tools):
    nets, batch = tools.nets(), tools.batch()
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    nets.teacher_v = lambda x_t, t, conditioning, cfg: noise - batch.latents
    recipe = stages_filled(tools.recipe("dp_dmd", dp_dmd={"anchor_step": 7}))
    target = dp_dmd.anchor_velocity(batch, nets, recipe, noise)
    torch.testing.assert_close(target, noise - batch.latents, rtol=0, atol=1e-4)


def test_dp_dmd_records_its_anchor_time_by_step_or_by_time(tools):
    def record(**options):
        return dp_dmd.record(stages_filled(tools.recipe("dp_dmd", dp_dmd=options)), None)

    assert record(anchor_step=5)["anchor_time"] == pytest.approx(0.978, abs=5e-4)
    near = record(anchor_time=0.95)
    assert near["anchor_step"] == 10 and near["anchor_time"] == pytest.approx(0.952, abs=5e-4)
    assert record(anchor_step=5, grid_steps=25)["anchor_time"] == pytest.approx(0.952, abs=5e-4)


def test_dp_dmd_refuses_what_it_cannot_do(tools):
    with pytest.raises(UserError, match=r"student\.steps of at least 2"):
        dp_dmd.record(stages_filled(tools.recipe("dp_dmd", student={"steps": 1})), None)
    with pytest.raises(UserError, match="anchor_step"):
        dp_dmd.record(stages_filled(tools.recipe("dp_dmd", dp_dmd={"anchor_step": 99})), None)


# --- GAN


@pytest.mark.parametrize("source", ["fake_score", "teacher"])
def test_gan_gradients_reach_the_nets_they_should(tools, source):
    nets = tools.nets(
        heads=Heads(2, tools.shape[0]), blocks=(0, 1), gan_teacher=source == "teacher"
    )
    options = {"weight": 0.1, "features": source, "r1_weight": 1.0}
    recipe = tools.recipe(gan=options)
    nets.train_only(nets.student)
    report = dmd2.student_loss(tools.batch(), nets, recipe, stream())
    report.loss.backward()
    assert report.parts["gan"] > 0
    assert all(p.grad is not None for p in nets.student.parameters())
    assert all(p.grad is None for m in (nets.fake_score, nets.heads) for p in m.parameters())
    plain = student_gradients(tools, dmd2, tools.recipe())
    assert nets.student.a.grad != plain["a"]

    nets.student.zero_grad(set_to_none=True)
    nets.train_only(nets.fake_score, nets.heads)
    report = dmd2.fake_score_loss(tools.batch(), nets, recipe, stream())
    report.loss.backward()
    assert {"critic_gan_critic", "critic_r1", "critic_fake_score"} == set(report.parts)
    assert all(p.grad is None for p in nets.student.parameters())
    assert all(
        p.grad is not None for p in [*nets.fake_score.parameters(), *nets.heads.parameters()]
    )
    assert all(p.grad is None for p in nets.family.teacher.parameters())


@pytest.mark.parametrize(
    ("method", "options", "rows"),
    [
        ("dmd2", {}, [6, 6]), ("regression", {}, [6, 6]), ("dfd", {"p": 0.0}, [6, 6]),
        ("dfd", {"p": 1.0}, [6, 12]), ("dfd", {"w": 0.5}, [6, 6, 12]),
    ],
)  # fmt: skip
def test_one_teacher_pass_gives_its_features_and_its_prediction(tools, method, options, rows):
    """A look at G with the prompt; what is left is the negative prompt's, or y's where y is x."""

    def run(**changes):
        nets = tools.nets(heads=Heads(2, tools.shape[0]), blocks=(0, 1), **changes)
        gan = {"weight": 1e-12, "features": "teacher"}
        own = {method: options} if options else {}
        report = get_method(method).student_loss(
            tools.batch(), nets, tools.recipe(method, gan=gan, **own), stream()
        )
        return nets, report, tools.gradients(report, nets.student)

    nets, report, ours = run(gan_teacher=True)
    assert [count for module, count in nets.family.rows if module is nets.family.teacher] == rows
    _, apart, expected = run(gan_teacher=False)
    torch.testing.assert_close(report.parts["matching"], apart.parts["matching"])
    for name, gradient in expected.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-7)


def test_matching_gradient_is_the_same_with_and_without_a_gan_beside_it(tools):
    nets = tools.nets(heads=Heads(1, tools.shape[0]), blocks=(0,))
    report = dmd2.student_loss(tools.batch(), nets, tools.recipe(gan={"weight": 1e-12}),
                               stream())  # fmt: skip
    plain = dmd2.student_loss(tools.batch(), tools.nets(), tools.recipe(), stream())
    assert torch.equal(report.parts["matching"], plain.parts["matching"])


def test_dfd_goes_without_a_gan_unless_asked(tools):
    weight = {"weight": 0.03}
    assert not dfd.uses_gan(tools.recipe("dfd"))
    assert dfd.uses_gan(tools.recipe("dfd", gan=weight))
    assert dmd2.uses_gan(tools.recipe(gan=weight)) and not dp_dmd.uses_gan(tools.recipe("dp_dmd"))
    with pytest.raises(UserError, match=r"gan\.weight: method dp_dmd has no GAN"):
        tools.recipe("dp_dmd", gan=weight)


def test_default_blocks_are_the_published_ones_for_wan():
    assert tapped_blocks(Gan(), 30) == (15, 22, 29)
    assert tapped_blocks(Gan(), 1) == (0,)
    with pytest.raises(UserError, match=r"gan\.blocks"):
        tapped_blocks(Gan(blocks=(3, 40)), 30)


def test_an_unknown_method_offers_near_names():
    with pytest.raises(UserError, match="did you mean dmd2"):
        get_method("dmd")


def test_student_loss_uses_the_x0_of_its_own_noised_input(tools):
    """G = x̂0_student((1−t_s) x + t_s ε', t_s): recomputed by hand from the recorded time."""
    nets, batch = tools.nets(), tools.batch()
    generated = inputs.generate(batch, nets, tools.recipe(), stream())
    eps = stream().normal("input_eps", batch.latents)
    t = generated.time.view(-1, 1, 1, 1, 1)
    x_t = (1 - t) * batch.latents + t * eps
    expected = x0_from_v(
        x_t, nets.student(x_t, generated.time, batch.conditioning.prompt_embeds), generated.time
    )
    torch.testing.assert_close(generated.x0, expected)


def test_logged_distance_is_the_squared_one_per_element(tools):
    nets, batch = tools.nets(), tools.batch()
    report = dmd2.student_loss(batch, nets, tools.recipe(), stream())
    generated = inputs.generate(batch, nets, tools.recipe(), stream())
    expected = torch.stack(
        [((x - g) ** 2).mean() for x, g in zip(batch.latents, generated.x0, strict=True)]
    )
    for name in ("distance2", "distance2_by_input_time"):
        torch.testing.assert_close(report.bins[name][1], expected)
    assert torch.equal(report.bins["distance2_by_input_time"][0], generated.time)


# --- a method from outside

OWN_METHOD = '''
"""Imitation: the student learns the real clip itself, the fake score G. No GAN, no teacher."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from dfdbench.distill import inputs, losses
from dfdbench.distill.nets import LossReport
from dfdbench.distill.sections import MethodOptions


@dataclass(frozen=True)
class Options(MethodOptions):
    scale: Annotated[float, Field(gt=0)] = 1.0


def uses_gan(recipe):
    return False


def record(recipe, family):
    return {"input": recipe.student.input, "imitation_scale": recipe.options.scale}


def generate(batch, nets, recipe, rng):
    return inputs.generate(batch, nets, recipe, rng)


def student_loss(batch, nets, recipe, rng):
    generated = generate(batch, nets, recipe, rng)
    error = losses.denoising_error(generated.x0, batch.latents)
    loss = recipe.options.scale * error.mean()
    return LossReport(loss, {"imitation": loss.detach()}, {})


def fake_score_loss(batch, nets, recipe, rng):
    with torch.no_grad():
        generated = generate(batch, nets, recipe, rng)
    v = nets.fake_score_v(generated.x0, generated.time, batch.conditioning)
    loss = (v**2).mean()
    return LossReport(loss, {"critic_imitation": loss.detach()}, {})
'''


@pytest.fixture
def own_method(tmp_path, monkeypatch):
    """A method of a package that dfdbench does not know, registered as its README would say."""
    package = tmp_path / "site" / "own_losses"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "imitation.py").write_text(OWN_METHOD)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(methods, "_registered", {})
    methods.register("imitation", importlib.import_module("own_losses.imitation"))
    recipe = tmp_path / "imitation.toml"
    recipe.write_text(
        """
        method = "imitation"
        model = "toy-t2v"
        [data]
        count = 4
        [student]
        steps = 2
        [optim]
        lr = 1e-3
        batch = 2
        [schedule]
        student_updates = 2
        student_update_freq = 2
        [imitation]
        scale = 0.5
        [log]
        every = 1
        probe_every = 0
        decode_every = 0
        """
    )
    yield recipe
    for name in [n for n in sys.modules if n.split(".")[0] == "own_losses"]:
        del sys.modules[name]


def test_a_method_of_another_package_trains_by_a_recipe_of_its_own(
    own_method, tmp_path, monkeypatch
):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    assert methods.method_names() == [*methods.SHIPPED, "imitation"]
    recipe = load_recipe(own_method, ["imitation.scale=0.25"])
    assert recipe.as_dict()["imitation"] == {"scale": 0.25}
    assert recipe.digest() != load_recipe(own_method).digest()
    run = distill(recipe, tmp_path / "run")
    assert run.finished and run.info["fairness"]["imitation_scale"] == 0.25
    assert recipe_from_dict(run.info["recipe"]).options == recipe.options
    lines = list(run.metrics("update"))
    assert len(lines) == 2 and all(line["imitation"] > 0 for line in lines)
    assert all(line["critic_imitation"] > 0 for line in lines)


def test_a_section_from_outside_is_checked_and_changes_no_other_recipe(own_method):
    with pytest.raises(UserError, match=r"imitation\.scale: not greater than 0 .is -1"):
        load_recipe(own_method, ["imitation.scale=-1"])
    with pytest.raises(UserError, match=r"'imitation\.scal' .did you mean imitation\.scale"):
        load_recipe(own_method, ["imitation.scal=1"])
    with pytest.raises(UserError, match=r"imitation\.scale is an option of imitation"):
        load_recipe("toy/dfd", ["imitation.scale=2"])
    assert load_recipe("toy/dfd").digest() == "4ce5810a71485d21", "as without it"
