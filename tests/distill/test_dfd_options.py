"""DFD's coin and its forward-KL form, on the gradient that reaches G."""

import pytest
import torch

from dfdbench.distill.discriminator import Heads
from dfdbench.distill.inputs import Generated
from dfdbench.distill.methods import dfd, dmd2
from dfdbench.distill.sections import Schedule
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise, x0_from_v

CPU = torch.device("cpu")
COUNT = 6


def stream(iteration=0, round_=0):
    return Stream(0, iteration, round_, CPU)


@pytest.fixture
def on_generated(tools, monkeypatch):
    """(options, stream, networks) -> the gradient on G (B C T H W) of DFD, or DMD2 for None."""
    g = torch.randn(COUNT, *tools.shape, generator=torch.Generator().manual_seed(9))

    def gradient(options, rng=None, nets=None):
        leaf = g.clone().requires_grad_()
        method = dmd2 if options is None else dfd
        monkeypatch.setattr(method, "generate", lambda *_: Generated(leaf, torch.ones(COUNT)))
        recipe = tools.recipe() if options is None else tools.recipe("dfd", dfd=options)
        report = method.student_loss(
            tools.batch(COUNT), nets or tools.nets(), recipe, rng or stream()
        )
        return torch.autograd.grad(report.loss, leaf)[0]

    gradient.g = g
    return gradient


# --- the coin


def test_by_default_one_coin_decides_for_the_whole_update(tools, on_generated):
    assert tools.recipe("dfd").options.coin == "update"
    for iteration in range(6):
        real = stream(iteration).bernoulli("real_clip", 0.5)
        for round_ in range(3):
            ours = on_generated({"p": 0.5}, stream(iteration, round_))
            assert torch.equal(ours, on_generated({"p": float(real)}, stream(iteration, round_)))


def test_a_coin_a_round_decides_for_all_clips_of_its_round(on_generated):
    drawn = []
    for iteration in range(12):
        for round_ in range(4):
            at = stream(iteration, round_)
            ours = on_generated({"p": 0.5, "coin": "round"}, at)
            sides = [torch.equal(ours, on_generated({"p": p}, at)) for p in (0.0, 1.0)]
            assert sum(sides) == 1, "all clips DMD2's or all DFD's"
            drawn.append(sides[1])
    updates = [drawn[i : i + 4] for i in range(0, len(drawn), 4)]
    assert any(len(set(rounds)) == 2 for rounds in updates), "rounds of one update differ"
    assert 14 <= sum(drawn) <= 34


@pytest.mark.parametrize("t_min", [0.0, 0.9])
@pytest.mark.parametrize("cfg_dfd", [None, 1.0])
def test_a_coin_a_clip_takes_each_row_from_one_side(on_generated, t_min, cfg_dfd):
    """Row by row bitwise DFD with p = 1 or DMD2, by the clip's own coin and noise level."""
    shared = {"t_min": t_min, "cfg_dfd": cfg_dfd}
    seen = set()
    for iteration in range(8):
        at = stream(iteration)
        ours = on_generated({"p": 0.4, "coin": "sample", **shared}, at)
        real, fake = on_generated({"p": 1.0, **shared}, at), on_generated(None, at)
        coin = at.bernoullis("real_clip", 0.4, COUNT)
        high = at.score_draw(on_generated.g, Schedule()).t >= t_min
        for row in range(COUNT):
            expected = real if coin[row] and high[row] else fake
            torch.testing.assert_close(ours[row], expected[row], rtol=1e-5, atol=1e-9)
            seen.add((bool(coin[row]), bool(high[row])))
        assert not torch.allclose(real[high], fake[high])
    assert len(seen) == (4 if t_min else 2)


@pytest.mark.parametrize("coin", ["round", "sample"])
def test_the_ends_of_p_are_dmd2_and_the_real_branch(on_generated, coin):
    assert torch.equal(on_generated({"p": 0.0, "coin": coin}), on_generated(None))
    assert torch.equal(on_generated({"p": 1.0, "coin": coin}), on_generated({"p": 1.0}))


@pytest.mark.parametrize("coin", ["update", "round", "sample"])
def test_the_exact_mixture_draws_no_coin(tools, on_generated, coin):
    mixed = on_generated({"w": 0.25, "coin": coin, "p": 0.9})
    assert torch.equal(mixed, on_generated({"w": 0.25}))
    recipe = tools.recipe("dfd", dfd={"w": 0.25, "coin": coin})
    assert dfd.record(recipe, None)["real_clip_drawn_per"] == "never: exact mixture"
    recipe = tools.recipe("dfd", dfd={"coin": coin})
    assert dfd.record(recipe, None)["real_clip_drawn_per"] == coin


def test_the_mean_over_coins_is_the_exact_mixture(on_generated):
    """Over all 2^B outcomes of the clips' coins with p = ½, by hand-set coins."""
    total, outcomes = torch.zeros_like(on_generated.g), 2**COUNT
    for outcome in range(outcomes):
        at = stream()
        coins = torch.tensor([bool(outcome >> i & 1) for i in range(COUNT)])
        at.bernoullis = lambda *_, coins=coins: coins
        total += on_generated({"coin": "sample"}, at)
    torch.testing.assert_close(total / outcomes, on_generated({"w": 0.5}))


@pytest.mark.parametrize("coin", ["round", "sample"])
@pytest.mark.parametrize("passes", ["batched", "sequential"])
def test_processes_with_other_coins_run_the_same_passes(tools, on_generated, coin, passes):
    """Networks cut among processes hang if one of them runs a guidance pass that others skip."""
    counts = set()
    for round_ in range(16):
        nets = tools.nets(guidance_passes=passes)
        on_generated({"coin": coin, "cfg_dfd": 1.0}, stream(0, round_), nets)
        counts.add(sum(module is nets.family.teacher for module, _ in nets.family.rows))
    assert counts == {2 if passes == "sequential" else 1}


# --- the fake score at the real clip


def test_forward_kl_scores_the_real_clip_with_both_networks(tools, on_generated):
    """(f − r)/n with f and r by hand at the noised clip, n = mean |G − r|."""
    nets, batch, g = tools.nets(cfg=1.0), tools.batch(COUNT), on_generated.g
    ours = on_generated({"p": 1.0, "forward_kl": True}, nets=nets)
    draw = stream().score_draw(g, Schedule())
    x_t = add_noise(batch.latents, draw.eps, draw.t)
    f, r = (
        x0_from_v(x_t, net(x_t, draw.t, batch.conditioning.prompt_embeds), draw.t).detach()
        for net in (nets.fake_score, nets.family.teacher)
    )
    n = (g - r).abs().mean((1, 2, 3, 4), keepdim=True) + 1e-6
    torch.testing.assert_close(ours, (f - r) / n / g.numel(), rtol=1e-4, atol=1e-9)


def test_forward_kl_has_no_gradient_where_fake_score_and_teacher_agree(tools, on_generated):
    same = tools.nets(cfg=1.0)
    same.fake_score = tools.Linear(0.4, 0.2)  # the teacher's weights
    assert on_generated({"p": 1.0, "forward_kl": True}, nets=same).abs().max() == 0
    assert on_generated({"p": 1.0}, nets=same).abs().max() > 0, "the x0 form pulls G to x"


def test_forward_kl_knows_one_gradient_space(on_generated):
    x0, score = (
        on_generated({"p": 1.0, "forward_kl": True, "gradient_space": space})
        for space in ("x0", "score")
    )
    assert torch.equal(x0, score)


def test_forward_kl_without_a_real_clip_is_dmd2(on_generated):
    assert torch.equal(on_generated({"p": 0.0, "forward_kl": True}), on_generated(None))
    assert torch.equal(
        on_generated({"p": 1.0, "t_min": 1.0, "forward_kl": True}), on_generated(None)
    )


@pytest.mark.parametrize("space", ["x0", "score"])
def test_forward_kl_mixes_and_draws_by_row(on_generated, space):
    on = {"forward_kl": True, "gradient_space": space}
    real, fake = on_generated({"p": 1.0, **on}), on_generated(None)
    torch.testing.assert_close(on_generated({"w": 0.3, **on}), 0.7 * fake + 0.3 * real)
    drawn = on_generated({"coin": "sample", **on})
    coin = stream().bernoullis("real_clip", 0.5, COUNT).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(drawn, torch.where(coin, real, fake))


def test_forward_kl_leaves_the_gan_at_the_generated_clip(tools, monkeypatch):
    """With a GAN its part of the loss is that of G, and the fake score gets no gradient."""
    parts = {}
    for on in (False, True):
        torch.manual_seed(0)
        nets = tools.nets(heads=Heads(1, tools.shape[0]), blocks=(0,))
        nets.train_only(nets.student)
        options = {"p": 1.0, "forward_kl": on}
        recipe = tools.recipe("dfd", dfd=options, gan={"weight": 0.1})
        report = dfd.student_loss(tools.batch(), nets, recipe, stream())
        report.loss.backward()
        assert all(p.grad is None for p in nets.fake_score.parameters())
        parts[on] = report.parts
    assert parts[True]["gan"] == parts[False]["gan"]
    assert parts[True]["matching"] != parts[False]["matching"]


def test_record_says_what_the_fake_score_looks_at(tools):
    said = [
        dfd.record(tools.recipe("dfd", dfd={"forward_kl": on}), None)["fake_score_looks_at"]
        for on in (False, True)
    ]
    assert said == ["generated", "what the teacher looks at"]
