"""Decoupled DMD: its two parts are DMD2's gradient taken apart."""

import pytest
import torch

from dfdbench.distill.discriminator import Heads
from dfdbench.distill.methods import decoupled_dmd, dmd2
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, x0_from_v
from dfdbench.utils.errors import UserError


def stream(iteration=0):
    return Stream(0, iteration, 0, torch.device("cpu"))


def gradients(tools, method, recipe, nets=None):
    nets = nets or tools.nets()
    return tools.gradients(method.student_loss(tools.batch(), nets, recipe, stream()), nets.student)


def ours(tools, nets=None, **options):
    return gradients(
        tools, decoupled_dmd, tools.recipe("decoupled_dmd", decoupled_dmd=options), nets
    )


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_both_parts_at_one_draw_are_dmd2_bitwise(tools):
    assert same(ours(tools, split=False), gradients(tools, dmd2, tools.recipe()))


@pytest.mark.parametrize("gan", [{}, {"gan": {"weight": 0.1, "features": "teacher"}}])
def test_matching_alone_is_dmd2_without_guidance_bitwise(tools, gan):
    def nets(**changes):
        torch.manual_seed(0)
        heads = {"heads": Heads(1, tools.shape[0]), "blocks": (0,), "gan_teacher": True}
        return tools.nets(**(heads if gan else {}), **changes)

    recipe = tools.recipe("decoupled_dmd", decoupled_dmd={"parts": "matching"}, **gan)
    left = gradients(tools, decoupled_dmd, recipe, nets(cfg=5.0))
    assert same(left, gradients(tools, dmd2, tools.recipe(**gan), nets(cfg=1.0)))


def test_at_one_draw_the_parts_add_up_to_dmd2(tools):
    parts = [ours(tools, split=False, parts=part) for part in ("matching", "guidance")]
    for name, whole in gradients(tools, dmd2, tools.recipe()).items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole)
        assert parts[1][name] != 0


def test_split_parts_add_up_as_they_share_the_normaliser_of_the_matching_draw(tools):
    both, *parts = (ours(tools, parts=part) for part in ("both", "matching", "guidance"))
    for name, whole in both.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole)


def test_guidance_part_is_minus_g_less_one_times_the_lead_of_the_prompt(tools):
    """By hand, at the draw of its own: −(g − 1)(r_c − r_u) / n with n of the other draw."""
    nets, batch = tools.nets(cfg=4.0), tools.batch()
    recipe = tools.recipe("decoupled_dmd", decoupled_dmd={"parts": "guidance"})
    generated = decoupled_dmd.generate(batch, nets, recipe, stream())
    own = decoupled_dmd.guidance_draw(generated, recipe, stream())
    prompt, teacher = batch.conditioning.prompt_embeds, nets.family.teacher

    def x0(draw, text):
        x_t = add_noise(generated.x0, draw.eps, draw.t)
        return x0_from_v(x_t, teacher(x_t, draw.t, text.expand_as(prompt)), draw.t)

    score = stream().score_draw(generated.x0, recipe.schedule)
    n = (generated.x0 - x0(score, prompt)).abs().mean((1, 2, 3, 4), keepdim=True) + 1e-6
    lead = x0(own, prompt) - x0(own, nets.negative.prompt_embeds)
    direction = (-3.0 * lead / n).detach()
    expected = torch.autograd.grad((direction * generated.x0).mean(), [*nets.student.parameters()])
    found = ours(tools, nets, parts="guidance")
    torch.testing.assert_close(list(found.values()), list(expected), rtol=1e-4, atol=1e-7)


def test_guidance_is_looked_at_below_the_time_of_the_student_s_input(tools):
    batch, recipe = tools.batch(400), tools.recipe("decoupled_dmd")
    generated = decoupled_dmd.generate(batch, tools.nets(), recipe, stream())
    own = decoupled_dmd.guidance_draw(generated, recipe, stream())
    low = recipe.schedule.t_low
    share = (own.t - low) / (generated.time - low)
    assert 0 <= share.min() < 0.02 and 0.98 < share.max() <= 1 and abs(share.mean() - 0.5) < 0.05
    score = stream().score_draw(generated.x0, recipe.schedule)
    both = torch.corrcoef(torch.stack([own.eps.flatten(), score.eps.flatten()]))
    assert abs(both[0, 1]) < 0.02, "noise of its own"


def test_both_norms_are_logged_at_their_own_times(tools):
    recipe = tools.recipe("decoupled_dmd")
    report = decoupled_dmd.student_loss(tools.batch(), tools.nets(), recipe, stream())
    t_matching, matching = report.bins["matching2"]
    t_guidance, guidance = report.bins["guidance2"]
    assert torch.equal(t_matching, report.bins["normaliser"][0])
    assert not torch.equal(t_matching, t_guidance)
    assert (matching > 0).all() and (guidance > 0).all()


def test_guidance_alone_asks_no_fake_score(tools):
    nets = tools.nets()
    ours(tools, nets, parts="guidance")
    assert nets.fake_score not in {module for module, _ in nets.family.rows}


def test_no_guidance_part_without_guidance(tools):
    for parts in ("both", "guidance"):
        recipe = tools.recipe("decoupled_dmd", teacher={"cfg": 1.0}, decoupled_dmd={"parts": parts})
        with pytest.raises(UserError, match=r"teacher\.cfg is 1"):
            decoupled_dmd.record(recipe, None)
    recipe = tools.recipe(
        "decoupled_dmd", teacher={"cfg": 1.0}, decoupled_dmd={"parts": "matching"}
    )
    assert decoupled_dmd.record(recipe, None)["gradient_parts"] == "matching"
