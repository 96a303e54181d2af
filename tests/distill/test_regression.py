"""The control for DFD: half a DMD step, half a pull to the real clip, no teacher at the clip."""

import pytest
import torch

from dfdbench.distill import losses
from dfdbench.distill.inputs import Generated
from dfdbench.distill.methods import dmd2, regression
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, x0_from_v


def stream(iteration=0):
    return Stream(0, iteration, 0, torch.device("cpu"))


def on_generated(tools, monkeypatch, method, recipe, nets=None, real=None):
    """The loss's gradient on G itself, and G; `real` replaces the batch's clips."""
    nets, batch = nets or tools.nets(), tools.batch()
    generated = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(9))
    generated.requires_grad_()
    monkeypatch.setattr(method, "generate", lambda *_: Generated(generated, torch.ones(6)))
    if real is not None:
        batch = batch._replace(latents=real(generated))
    report = method.student_loss(batch, nets, recipe, stream())
    (gradient,) = torch.autograd.grad(report.loss, generated)
    return gradient, generated.detach(), report


def options(a, b):
    return {"regression": {"matching": a, "pull": b}}


def test_without_its_pull_it_is_dmd2_bitwise(tools, monkeypatch):
    recipe = tools.recipe("regression", **options(1.0, 0.0))
    ours, *_ = on_generated(tools, monkeypatch, regression, recipe)
    theirs, *_ = on_generated(tools, monkeypatch, dmd2, tools.recipe())
    assert torch.equal(ours, theirs) and ours.abs().max() > 0


def test_gradient_on_g_is_the_written_one(tools, monkeypatch):
    """a (f − r)/n + b (G − x)/n, f, r and n by hand at noised G from the linear networks."""
    nets, batch = tools.nets(cfg=3.0), tools.batch()
    recipe = tools.recipe("regression", **options(0.64, 0.29))
    ours, g, _ = on_generated(tools, monkeypatch, regression, recipe, nets)
    draw = stream().score_draw(g, recipe.schedule)
    prompt = batch.conditioning.prompt_embeds
    x_t = add_noise(g, draw.eps, draw.t)

    def x0(net, text):
        return x0_from_v(x_t, net(x_t, draw.t, text), draw.t)

    teacher = nets.family.teacher
    negative = x0(teacher, nets.negative.prompt_embeds.expand_as(prompt))
    r = negative + 3.0 * (x0(teacher, prompt) - negative)
    f = x0(nets.fake_score, prompt)
    n = (g - r).abs().mean((1, 2, 3, 4), keepdim=True) + 1e-6
    expected = (0.64 * (f - r) / n + 0.29 * (g - batch.latents) / n) / g.numel()
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-4, atol=1e-9)


def test_the_two_parts_add_up(tools, monkeypatch):
    def at(a, b):
        recipe = tools.recipe("regression", **options(a, b))
        return on_generated(tools, monkeypatch, regression, recipe)[0]

    torch.testing.assert_close(at(0.3, 0.8), 0.3 * at(1.0, 0.0) + 0.8 * at(0.0, 1.0))


def test_a_step_down_the_pull_brings_g_nearer_to_x(tools, monkeypatch):
    recipe = tools.recipe("regression", **options(0.0, 1.0))
    gradient, g, _ = on_generated(tools, monkeypatch, regression, recipe)
    x = tools.batch().latents
    for step in (1.0, 10.0):
        nearer = g - step * gradient
        assert ((nearer - x) ** 2).sum() < ((g - x) ** 2).sum()
    to_x = torch.nn.functional.cosine_similarity(
        -gradient.flatten(1), (x - g).flatten(1)
    )  # of each sample
    torch.testing.assert_close(to_x, torch.ones(6))


def test_where_g_is_the_clip_the_pull_is_nothing(tools, monkeypatch):
    pulled, *_ = on_generated(
        tools, monkeypatch, regression, tools.recipe("regression", **options(1.0, 7.0)),
        real=lambda g: g.detach(),
    )  # fmt: skip
    theirs, *_ = on_generated(tools, monkeypatch, dmd2, tools.recipe())
    assert torch.equal(pulled, theirs)


@pytest.mark.parametrize("policy", ["noised_real", "backward_simulation"])
def test_the_teacher_never_sees_the_real_clip(tools, monkeypatch, policy):
    """It runs as often as in DMD2 and where the clips do not matter: replaced, its input stays."""
    seen = {}

    def run(method, recipe, shift):
        nets, looks = tools.nets(), []
        predict = nets.family.predict

        def noting(module, x_t, t, conditioning):
            if module is nets.family.teacher:
                looks.append(x_t.clone())
            return predict(module, x_t, t, conditioning)

        monkeypatch.setattr(nets.family, "predict", noting)
        batch = tools.batch()
        if shift:
            generate = regression.generate
            kept = generate(batch, nets, recipe, stream())
            monkeypatch.setattr(regression, "generate", lambda *_: kept)
            batch = batch._replace(latents=batch.latents + shift)
        method.student_loss(batch, nets, recipe, stream())
        return looks

    sections = {"student": {"input": policy}}
    seen["ours"] = run(regression, tools.recipe("regression", **sections), 0.0)
    seen["dmd2"] = run(dmd2, tools.recipe(**sections), 0.0)
    seen["moved"] = run(regression, tools.recipe("regression", **sections), 5.0)
    for looks in seen.values():
        assert len(looks) == 1 and torch.equal(looks[0], seen["dmd2"][0])


def test_given_frames_get_no_gradient_and_the_others_their_own_clip_s(tools, monkeypatch):
    nets = tools.nets()
    nets.family.conditioning_frames = 1
    recipe = tools.recipe("regression", **options(0.0, 1.0))
    gradient, g, _ = on_generated(tools, monkeypatch, regression, recipe, nets)
    assert (gradient[:, :, :1] == 0).all()
    away = (g - tools.batch().latents)[:, :, 1:]
    same = torch.nn.functional.cosine_similarity(gradient[:, :, 1:].flatten(1), away.flatten(1))
    torch.testing.assert_close(same, torch.ones(6))


def test_record_says_whether_it_is_a_regression_to_the_own_clip(tools):
    for policy, paired in (("noised_real", True), ("backward_simulation", False)):
        recipe = tools.recipe("regression", student={"input": policy})
        said = regression.record(recipe, None)
        assert said["real_and_generated_paired"] is paired
        assert said["teacher_looks_at"] == "generated" and said["gan"] is False


def test_pulled_gap_keeps_dmds_normaliser():
    g, f, r, x = torch.randn(4, 2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    dmd = losses.score_gap(g, f, r, g)
    step = losses.with_pull(dmd, g, x, 0.25, 2.0)
    assert torch.equal(step.normaliser, dmd.normaliser)
    torch.testing.assert_close(step.raw, 0.25 * (f - r) + 2 * (g - x))
    torch.testing.assert_close(step.direction * step.normaliser.view(-1, 1, 1, 1, 1), step.raw)
