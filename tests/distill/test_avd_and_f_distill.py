"""AVD, f-distill, SiD and adversarial distillation: their identities, and what gets a gradient."""

import pytest
import torch

from dfdbench.distill.discriminator import Heads
from dfdbench.distill.divergence import WEIGHTS, Ratios
from dfdbench.distill.methods import adversarial, avd, dmd2, f_distill, get_method, sid
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.statistics import RunningMean, warn
from dfdbench.distill.streams import Stream
from dfdbench.models.flow import add_noise
from dfdbench.utils.errors import UserError

CPU = torch.device("cpu")
GAN = {"weight": 0.1}


def stream(iteration=0, round_=0):
    return Stream(0, iteration, round_, CPU)


def with_heads(tools, seed=0, **changes):
    torch.manual_seed(seed)
    return tools.nets(heads=Heads(2, tools.shape[0]), blocks=(0, 1), **changes)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# --- AVD


def test_avd_without_its_regression_is_dmd2_bitwise(tools):
    nets, other = tools.nets(), tools.nets()
    recipe = tools.recipe("avd", avd={"weight": 0.0})
    assert avd.statistics(recipe) is None
    left = avd.student_loss(tools.batch(), nets, recipe, stream())
    right = dmd2.student_loss(tools.batch(), other, tools.recipe(), stream())
    assert left.observed is None
    assert same(tools.gradients(left, nets.student), tools.gradients(right, other.student))


def avd_loss(tools, mean=None, **options):
    recipe = tools.recipe("avd", avd=options)
    kept = avd.statistics(recipe)
    if mean is not None:
        kept.mean.fill_(mean)
        kept.seen.fill_(1)
    nets = tools.nets(statistics=kept)
    return avd.student_loss(tools.batch(), nets, recipe, stream()), nets, kept


def test_avd_adds_the_weighed_flow_loss_of_real_clips_at_student_times(tools):
    report, nets, _ = avd_loss(tools, mean=0.8, weight=0.3, sharpness=2.0)
    batch = tools.batch()
    x, (t, flow) = batch.latents, report.bins["flow_error"]
    assert set(t.tolist()) <= set(nets.times[:-1].float().tolist())
    eps = stream().normal("flow_eps", x)
    v = nets.student(add_noise(x, eps, t), t, batch.conditioning.prompt_embeds)
    by_hand = ((v - (eps - x)) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(flow, by_hand.detach())
    w = 1 - torch.sigmoid(2.0 * (by_hand - 0.8))
    plain = dmd2.student_loss(batch, tools.nets(), tools.recipe(), stream())
    torch.testing.assert_close(report.loss, plain.loss + 0.3 * (w * by_hand).mean())
    index = (t[:, None] == nets.times[:-1].float()).float().argmax(1)
    assert torch.equal(report.observed, torch.stack([index.float(), flow], 1))


def test_avd_s_weight_is_a_constant_that_falls_with_the_loss(tools):
    flow = torch.tensor([0.1, 0.5, 2.0], requires_grad=True)
    w = avd.weights(flow, torch.full((3,), 0.5), 3.0)
    assert not w.requires_grad and w[0] > 0.5 and w[1] == 0.5 and w[2] < 0.02
    report, *_ = avd_loss(tools)
    assert report.parts["flow_weight"] == 0.5, "without a mean yet"
    assert not torch.isclose(avd_loss(tools, mean=5.0)[0].parts["flow_weight"], torch.tensor(0.5))


def test_running_means_take_the_first_value_whole_and_move_only_what_was_seen():
    kept = RunningMean(3, 0.9)
    kept.update(torch.tensor([[0.0, 2.0], [0.0, 4.0], [2.0, 1.0]]))
    assert kept.mean.tolist() == [3.0, 0.0, 1.0] and kept.seen.tolist() == [1.0, 0.0, 1.0]
    kept.update(torch.tensor([[0.0, 13.0], [1.0, 5.0]]))
    torch.testing.assert_close(kept.mean, torch.tensor([4.0, 5.0, 1.0]))
    begun = RunningMean(2, 0.9, start=1.0)
    begun.update(torch.tensor([[1.0, 11.0]]))
    torch.testing.assert_close(begun.mean, torch.tensor([1.0, 2.0]))


# --- f-distill


@pytest.mark.parametrize("features", ["fake_score", "teacher"])
def test_reverse_kl_is_dmd2_with_a_gan_bitwise(tools, features):
    gan = GAN | {"features": features}
    left = with_heads(tools, gan_teacher=features == "teacher")
    right = with_heads(tools, gan_teacher=features == "teacher")
    recipe = tools.recipe("f_distill", gan=gan, f_distill={"divergence": "reverse_kl"})
    assert f_distill.statistics(recipe) is None
    ours = f_distill.student_loss(tools.batch(), left, recipe, stream())
    theirs = dmd2.student_loss(tools.batch(), right, tools.recipe(gan=gan), stream())
    assert same(tools.gradients(ours, left.student), tools.gradients(theirs, right.student))


def test_weights_are_those_of_the_divergences():
    r = torch.tensor([0.25, 1.0, 4.0])
    expected = {
        "js": [0.2, 0.5, 0.8],
        "kl": [0.25, 1, 4],
        "jeffreys": [1.25, 2, 5],
        "hellinger": [0.5, 1, 2],
    }
    assert WEIGHTS.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(WEIGHTS[name](r), torch.tensor(values))


def f_loss(tools, nets=None, **options):
    recipe = tools.recipe("f_distill", gan=GAN, f_distill={"divergence": "kl"} | options)
    nets = nets or with_heads(tools)
    nets.statistics = f_distill.statistics(recipe)
    return f_distill.student_loss(tools.batch(), nets, recipe, stream()), nets, recipe


def test_h_has_mean_one_and_scales_each_clip_s_step(tools, monkeypatch):
    report, nets, recipe = f_loss(tools)
    h = report.bins["h"][1]
    assert h.mean() == pytest.approx(1.0, abs=1e-6) and h.std() > 0
    assert report.parts["h_spread"] == pytest.approx(h.std(correction=0).item(), rel=1e-4)
    monkeypatch.setattr(
        "dfdbench.distill.losses.generator_gan_loss", lambda logits: 0 * logits.sum()
    )
    generated = f_distill.generate(tools.batch(), nets, recipe, stream())
    ours = f_distill.student_loss(tools.batch(), nets, recipe, stream())
    theirs = dmd2.student_loss(tools.batch(), nets, tools.recipe(gan=GAN), stream())
    gap = [
        torch.autograd.grad(r.loss, generated.x0, retain_graph=True, allow_unused=True)[0]
        for r in (ours, theirs)
    ]
    assert gap == [None, None], "each loss made a G of its own"
    direction2 = theirs.bins["direction2"][1] / theirs.bins["normaliser"][1] ** 2
    again = ours.bins["h"][1]
    expected = 0.5 * (again**2 * direction2).mean()
    torch.testing.assert_close(ours.parts["matching"], expected, rtol=1e-4, atol=1e-7)


def test_the_ratio_is_clipped_and_divided_by_its_running_mean(tools):
    recipe = tools.recipe("f_distill", gan=GAN)
    draw = stream().score_draw(tools.batch().latents, recipe.schedule)
    logits = torch.tensor([-9.0, -1, 0, 1, 9, 2]).view(-1, 1) + torch.tensor([[-0.5, 0.5]])
    rows = f_distill.ratio_rows(recipe, draw, logits)
    e = torch.e
    torch.testing.assert_close(rows[:, 1], torch.tensor([0.1, 1 / e, 1, e, 20, e**2]))
    assert torch.equal(rows[:, 0], (10 * (draw.t - 0.001) / 0.998).floor())
    kept = Ratios("kl", 2, 0.5)
    kept.update(torch.tensor([[0.0, 3.0], [1.0, 4.0], [1.0, 6.0]]))
    torch.testing.assert_close(kept.means.mean, torch.tensor([2.0, 3.0]))
    h = torch.tensor([1.5, 4 / 3, 2])
    torch.testing.assert_close(
        kept.h(torch.tensor([[0.0, 3.0], [1.0, 4.0], [1.0, 6.0]])), h / h.mean()
    )


def test_a_flat_h_is_told_once(tools, capsys):
    from dfdbench.distill.parallel import Group

    kept = Ratios("js", 10, 0.9)
    kept.update(torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    for _ in range(2):
        warn(kept, Group())
    assert capsys.readouterr().err.count("trains as DMD2") == 1
    warn(Ratios("js", 10, 0.9), Group(rank=1, size=2))
    kept.update(torch.tensor([[1.0, 2.0], [1.0, 6.0]]))
    assert kept.warning() == "" and capsys.readouterr().err == ""
    warn(None, Group())
    warn(RunningMean(2, 0.5), Group())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({}, r"set gan\.weight"),
        ({"gan": GAN, "optim": {"batch": 1}}, r"optim\.batch to at least 2"),
        ({"gan": GAN, "f_distill": {"ema": 0.0}}, r"f_distill\.ema is 0"),
    ],
)
def test_settings_that_can_only_be_dmd2_are_refused(tools, sections, said):
    with pytest.raises(UserError, match=said):
        f_distill.record(tools.recipe("f_distill", **sections), None)
    with pytest.raises(UserError, match="ratio_low must be less"):
        load_recipe("toy/f_distill", ["f_distill.ratio_low=30"])


# --- SiD


def test_sid_s_gradient_passes_frozen_networks_and_leaves_them_none(tools):
    nets = tools.nets()
    nets.train_only(nets.student)
    report = sid.student_loss(tools.batch(), nets, tools.recipe("sid"), stream())
    report.loss.backward()
    assert all(p.grad is not None and p.grad != 0 for p in nets.student.parameters())
    assert all(p.grad is None for m in (nets.fake_score, nets.family.teacher)
               for p in m.parameters())  # fmt: skip


def test_sid_s_value_is_the_written_one_and_alpha_its_share(tools):
    def at(alpha):
        nets = tools.nets()
        return sid.student_loss(
            tools.batch(), nets, tools.recipe("sid", sid={"alpha": alpha}), stream()
        )

    zero, one, two = (at(alpha) for alpha in (0.0, 1.0, 2.0))
    torch.testing.assert_close(zero.loss - one.loss, one.loss - two.loss)
    squared = zero.bins["direction2"][1] / zero.bins["normaliser"][1]
    torch.testing.assert_close((zero.loss - one.loss), squared.mean())


# --- adversarial


def adversarial_recipe(tools, **gan):
    return tools.recipe("adversarial", gan=GAN | {"features": "teacher"} | gan)


def test_adversarial_asks_neither_guidance_nor_the_fake_score(tools):
    nets, recipe = with_heads(tools, gan_teacher=True), adversarial_recipe(tools, r1_weight=1.0)
    adversarial.student_loss(tools.batch(), nets, recipe, stream())
    adversarial.fake_score_loss(tools.batch(), nets, recipe, stream())
    teacher, student = nets.family.teacher, nets.student
    assert [m for m, _ in nets.family.rows] == [student, teacher, student] + [teacher] * 3
    assert {count for _, count in nets.family.rows} == {6}


def test_adversarial_trains_student_and_heads_alone(tools):
    nets, recipe = with_heads(tools, gan_teacher=True), adversarial_recipe(tools, r1_weight=1.0)
    for loss, trained in (
        (adversarial.student_loss, (nets.student,)),
        (adversarial.fake_score_loss, (nets.fake_score, nets.heads)),
    ):
        nets.train_only(*trained)
        loss(tools.batch(), nets, recipe, stream()).loss.backward()
        for module in (nets.student, nets.fake_score, nets.heads, nets.family.teacher):
            expected = module in trained and module is not nets.fake_score
            assert all((p.grad is not None) is expected for p in module.parameters())
            module.zero_grad(set_to_none=True)


def test_adversarial_needs_a_gan_on_the_teacher_s_features(tools):
    with pytest.raises(UserError, match=r"set gan\.weight"):
        adversarial.record(tools.recipe("adversarial"), None)
    with pytest.raises(UserError, match="features of the teacher"):
        adversarial.record(tools.recipe("adversarial", gan=GAN), None)


@pytest.mark.parametrize("name", ["decoupled_dmd", "dcm_dmd", "avd", "f_distill", "sid",
                                  "adversarial"])  # fmt: skip
def test_a_method_s_file_is_short(name):
    source = get_method(name).__file__
    with open(source, encoding="utf-8") as file:
        assert len(file.readlines()) < 120
