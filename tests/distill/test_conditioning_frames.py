"""Given frames: what is generated of the others is as if they were not there, in every mean."""

from types import SimpleNamespace

import pytest
import torch

from dfdbench.distill import matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.diagnostics import discrepancy
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.inputs import Generated
from dfdbench.distill.methods import dfd, dmd2, dp_dmd, get_method
from dfdbench.distill.stages import resolve
from dfdbench.distill.statistics import new_statistics
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.wan import WAN_DEFAULTS

METHODS = {"dmd2": dmd2, "dp_dmd": dp_dmd, "dfd": dfd} | {
    name: get_method(name)
    for name in ("decoupled_dmd", "dcm_dmd", "avd", "f_distill", "sid", "adversarial")
}
OPTIONS = {
    "dmd2": [
        {"gan": {"weight": 0.1, "r1_weight": 1.0}},
        {"fake_score": {"loss": "flow"}},
        {"student": {"input": "backward_simulation"}},
        {"student": {"input": "backward_simulation", "sampler": "sde"}},
    ],
    "dp_dmd": [{"dp_dmd": {"grid_steps": 8, "anchor_step": 2}}],
    "dfd": [
        {"dfd": {"p": 1.0}},
        {"dfd": {"p": 1.0, "gradient_space": "score", "normaliser": "scored"}},
        {"dfd": {"w": 0.5, "t_min": 0.5, "cfg_dfd": 1.0}},
    ],
    "decoupled_dmd": [{}, {"decoupled_dmd": {"split": False, "parts": "guidance"}}],
    "dcm_dmd": [{"dcm_dmd": {"weight": 1.0}}],
    "avd": [{}],
    "f_distill": [{"gan": {"weight": 0.1}, "f_distill": {"divergence": "kl"}}],
    "sid": [{}],
    "adversarial": [{"gan": {"weight": 1.0, "features": "teacher", "r1_weight": 1.0}}],
}
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]


class LastFrames(Stream):
    """Noise of a clip of two frames is that of the last two of a clip of three."""

    def normal(self, name, like):
        shape = (like.shape[0], like.shape[1], 3, *like.shape[3:])
        whole = torch.randn(shape, generator=self.generator(name))
        return whole[:, :, 3 - like.shape[2] :]


def stream():
    return LastFrames(0, 0, 0, torch.device("cpu"))


@pytest.fixture
def given(tools):
    """A family of elementwise networks whose first latent frame is given, and its batch."""

    class Given(tools.MockFamily):
        conditioning_frames = 1

        def predict(self, module, x_t, t, conditioning):
            first = conditioning.image_latents
            assert first is not None and len(first) == len(x_t)
            v = super().predict(module, x_t, t, conditioning)
            to_first = (x_t[:, :, :1] - first) / t.view(-1, 1, 1, 1, 1)
            return torch.cat([to_first, v[:, :, 1:]], 2)

        def predict_with_features(self, module, x_t, t, conditioning, blocks):
            v = self.predict(module, x_t, t, conditioning)
            free = v[:, :, 1:].flatten(2).transpose(1, 2)
            return v, [free * (1 + block) for block in blocks]

    plain = tools.batch()
    extra = torch.randn(6, 3, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    latents = torch.cat([extra, plain.latents], 2)
    return SimpleNamespace(
        family=Given(tools.Linear(0.4, 0.2)),
        batch=Batch(latents, plain.conditioning.given(extra)),
        plain=plain,
        first=extra,
    )


def setting(tools, given, recipe):
    gan = {}
    if recipe.gan.weight:
        torch.manual_seed(0)
        gan = {"heads": Heads(1, tools.shape[0]), "blocks": (0,)}
    gan["gan_teacher"] = recipe.gan.features == "teacher"
    with_frame, without = tools.nets(family=given.family, **gan), tools.nets(**gan)
    for nets in (with_frame, without):
        nets.statistics = new_statistics(get_method(recipe.method), recipe, torch.device("cpu"))
    return with_frame, without


def equal_reports(ours, theirs):
    assert ours.parts.keys() == theirs.parts.keys() and ours.bins.keys() == theirs.bins.keys()
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-6)
    for name, value in ours.parts.items():
        torch.testing.assert_close(value, theirs.parts[name], rtol=1e-5, atol=1e-6)
    for name, (t, value) in ours.bins.items():
        torch.testing.assert_close(t, theirs.bins[name][0])
        torch.testing.assert_close(value, theirs.bins[name][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_losses_of_a_given_frame_are_those_of_the_clip_without_it(tools, given, method, options):
    recipe = resolve(tools.recipe(method, **options), WAN_DEFAULTS)
    with_frame, without = setting(tools, given, recipe)
    trained = "heads" if method == "adversarial" else "fake_score"
    for role, network in (("student_loss", "student"), ("fake_score_loss", trained)):
        loss_of = getattr(METHODS[method], role)
        ours = loss_of(given.batch, with_frame, recipe, stream())
        theirs = loss_of(given.plain, without, recipe, stream())
        equal_reports(ours, theirs)
        left = tools.gradients(ours, getattr(with_frame, network))
        right = tools.gradients(theirs, getattr(without, network))
        for name, gradient in left.items():
            assert gradient.any()
            torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_discrepancies_of_a_given_frame_are_those_of_the_clip_without_it(tools, given, cfg):
    recipe = tools.recipe()
    with_frame = tools.nets(family=given.family, cfg=cfg)
    ours, generated = discrepancy(dmd2.generate, given.batch, with_frame, recipe, stream())
    theirs, _ = discrepancy(dmd2.generate, given.plain, tools.nets(cfg=cfg), recipe, stream())
    for name, (_, value) in ours.items():
        torch.testing.assert_close(value, theirs[name][1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(generated[:, :, :1], given.first, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("method", "options"), CASES)
def test_everything_generated_begins_with_the_given_frame(tools, given, method, options):
    recipe = resolve(tools.recipe(method, **options), WAN_DEFAULTS)
    nets = tools.nets(family=given.family)
    generated = METHODS[method].generate(given.batch, nets, recipe, stream())
    torch.testing.assert_close(generated.x0[:, :, :1], given.first, atol=1e-5, rtol=0)


def test_the_normaliser_counts_generated_frames_only(tools, given):
    """G and the teacher agree on the given frame: counting it would shrink n by (T − 1) / T."""
    nets = tools.nets(family=given.family)
    generated = Generated(given.batch.latents + 1, torch.full((6,), 0.5))
    generated.x0[:, :, :1] = given.first
    draw = Draw(torch.full((6,), 0.5), torch.zeros_like(generated.x0))
    fake = matching.fake_score(given.batch, nets, tools.recipe(), generated, draw)
    gap = matching.gap(given.batch, nets, generated, fake, draw, generated.x0, 1.0)
    real = nets.teacher_x0(0.5 * generated.x0, draw.t, given.batch.conditioning, 1.0)
    distance = (generated.x0 - real).abs()
    assert distance[:, :, 0].max() < 1e-5
    expected = distance[:, :, 1:].flatten(1).mean(1) + 1e-6
    torch.testing.assert_close(gap.normaliser, expected)
    torch.testing.assert_close(gap.normaliser, distance.flatten(1).mean(1) * 3 / 2 + 1e-6)
    assert gap.direction.shape[2] == 2
