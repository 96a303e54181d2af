"""What a second stage goes on with: the saved, averaged student, the fake score, a GAN's heads."""

import gc
import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file

from dfdbench.distill import loop
from dfdbench.distill.discriminator import FILE, Heads, heads_fit, load_heads, save_heads
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.methods import dmd2
from dfdbench.distill.streams import Stream
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

GAN = "gan.weight=0.1"
DECAY = 0.6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFDBENCH_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    own = ("schedule.student_updates=2", "log.probe_every=0")
    return lambda name, *overrides: tiny_recipe(name, *own, *overrides)


def state(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def saved(run, part="student/transformer"):
    return load_file(run.path / part / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def first(recipe, runs):
    """A finished DMD2 run with GAN and average, what it held at the end, and its student's path."""
    held, path = {}, []
    with pytest.MonkeyPatch.context() as patch:
        train, finish, step = Trainer.train, Trainer.finish, Trainer.step

        def begin(self):
            path.append(state(self.nets.student))
            return train(self)

        def look(self, seconds):
            held.update({name: state(module) for name, module in self.modules.items()})
            return finish(self, seconds)

        def noting(self, role, iteration):
            values = step(self, role, iteration)
            if role == "student":
                path.append(state(self.nets.student))
            return values

        patch.setattr(Trainer, "train", begin)
        patch.setattr(Trainer, "finish", look)
        patch.setattr(Trainer, "step", noting)
        settings = recipe("dmd2", GAN, f"optim.ema={DECAY}", "schedule.student_updates=3")
        run = distill(settings, runs / "first", device="cpu")
    return run, held, path


@pytest.fixture
def start(monkeypatch):
    """What a run holds before its first step."""

    def begin(settings, out, parent):
        seen = {}

        def look(self):
            seen.update({name: state(module) for name, module in self.modules.items()})
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train", look)
            with pytest.raises(KeyboardInterrupt):
                distill(settings, out, init=parent, device="cpu")
        return seen, Run.open(out).info["fairness"]

    return begin


# --- the average


def test_the_saved_student_is_the_average_over_student_updates(first):
    """Ē ← d Ē + (1 − d) θ after each student update, from the initial student, by hand."""
    run, _, path = first
    assert len(path) == 1 + 3, "three student updates; those of the fake score do not count"
    expected = path[0]
    for weights in path[1:]:
        expected = {k: DECAY * v + (1 - DECAY) * weights[k] for k, v in expected.items()}
    for name, value in saved(run).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)
    assert not equal(saved(run), path[-1])
    assert run.info["fairness"]["saved_student"] == "average"
    assert run.info["fairness"]["ema"] == DECAY


def test_a_second_stage_starts_from_the_average_with_the_last_fake_score(
    first, recipe, start, tmp_path
):
    run, held, _ = first
    seen, said = start(recipe("dfd", "optim.ema=0.5"), tmp_path / "b", run.path)
    assert equal(seen["student"], held["ema"]) and not equal(seen["student"], held["student"])
    assert equal(seen["critic"], held["critic"])
    assert equal(seen["ema"], held["ema"]), "its own average begins there too"
    assert said["initial_student"] == said["initial_fake_score"] == run.info["id"]
    assert said["initial_student_weights"] == "average" and said["saved_student"] == "average"


def test_without_an_average_the_last_student_is_saved_and_said(recipe, start, runs, tmp_path):
    plain = distill(recipe("dmd2"), runs / "plain", device="cpu")
    assert plain.info["fairness"]["saved_student"] == "last"
    assert plain.info["fairness"]["initial_student_weights"] == "teacher"
    assert plain.info["fairness"]["initial_heads"] is None and not plain.heads.exists()
    assert "heads_sha256" not in plain.info
    _, said = start(recipe("dfd"), tmp_path / "b", plain.path)
    assert said["initial_student_weights"] == said["saved_student"] == "last"
    _, said = start(recipe("dfd", GAN), tmp_path / "c", plain.path)
    assert said["initial_heads"] == "fresh", "the parent had no GAN"


# --- heads


def test_a_second_stage_goes_on_with_the_heads_bit_for_bit(first, recipe, start, tmp_path):
    run, held, _ = first
    assert run.info["fairness"]["initial_heads"] == "fresh"
    seen, said = start(recipe("dfd", GAN), tmp_path / "b", run.path)
    assert equal(seen["heads"], held["heads"])
    assert said["initial_heads"] == run.info["id"]
    third = distill(recipe("dfd", GAN), tmp_path / "c", init=run.path, device="cpu")
    assert not equal(load_file(third.heads / FILE), held["heads"]), "and trains and saves its own"
    seen, said = start(recipe("dmd2_control", GAN), tmp_path / "d", third.path)
    assert equal(seen["heads"], load_file(third.heads / FILE))
    assert said["initial_heads"] == third.info["id"]


def test_heads_that_look_elsewhere_are_begun_anew_and_said(first, recipe, start, tmp_path):
    run, held, _ = first
    for number, change in enumerate(("gan.features=teacher", "gan.blocks=[0]")):
        seen, said = start(recipe("dfd", GAN, change), tmp_path / str(number), run.path)
        assert said["initial_heads"] == "fresh" and said["initial_student"] == run.info["id"]
        assert not equal(seen["heads"], held["heads"])
    seen, said = start(recipe("dfd"), tmp_path / "none", run.path)
    assert "heads" not in seen and said["initial_heads"] is None


def test_fresh_heads_follow_the_seed_as_before(recipe, start, tmp_path):
    begun = [
        start(recipe("dmd2", GAN, f"seed={seed}"), tmp_path / f"{seed}{i}", None)[0]["heads"]
        for i, seed in enumerate((0, 0, 1))
    ]
    assert equal(begun[0], begun[1]) and not equal(begun[0], begun[2])


def test_a_run_of_the_previous_version_kept_no_heads(first, recipe, start, tmp_path):
    shutil.copytree(first[0].path, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "heads")
    info = json.loads((tmp_path / "old" / "run.json").read_text())
    del info["heads_sha256"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(info))
    _, said = start(recipe("dfd", GAN), tmp_path / "b", tmp_path / "old")
    assert said["initial_heads"] == "fresh"


@pytest.mark.parametrize("fault", ["changed", "lost"])
def test_heads_that_are_not_the_runs_are_refused(first, recipe, tmp_path, fault):
    shutil.copytree(first[0].path, tmp_path / "old")
    file = tmp_path / "old" / "heads" / FILE
    if fault == "changed":
        save_heads(Heads(1, 8), file.parent, (0,), "fake_score")
    else:
        file.unlink()
    with pytest.raises(UserError, match=r"heads.*(not the weights|no safetensors)"):
        distill(recipe("dfd", GAN), tmp_path / "b", init=tmp_path / "old", device="cpu")


def test_heads_know_what_they_look_at(tmp_path):
    heads, other = Heads(2, 8), Heads(2, 8)
    save_heads(heads, tmp_path, (1, 3), "teacher")
    assert heads_fit(tmp_path, (1, 3), "teacher")
    assert not heads_fit(tmp_path, (1, 3), "fake_score")
    assert not heads_fit(tmp_path, (1, 2), "teacher")
    assert not equal(state(other), state(heads))
    load_heads(other, tmp_path)
    assert equal(state(other), state(heads))
    files = set()
    for i in range(8):
        save_heads(heads, tmp_path / str(i), (1, 3), "teacher")
        files.add((tmp_path / str(i) / FILE).read_bytes())
    assert len(files) == 1, "equal heads have one hash"


@pytest.mark.parametrize("update", [1, 2])
def test_a_second_stage_with_gan_and_average_resumes_bit_for_bit(
    first, recipe, tmp_path, monkeypatch, update
):
    settings = recipe("dfd", GAN, "optim.ema=0.5", "checkpoint.every_updates=1",
                      "schedule.student_updates=3", "dfd.coin=round",
                      "optim.accumulate=2")  # fmt: skip
    whole = distill(settings, tmp_path / "whole", init=first[0].path, device="cpu")
    cycle = Trainer.cycle

    def dying(self, number):
        if number > update:
            raise KeyboardInterrupt
        cycle(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "cycle", dying)
        with pytest.raises(KeyboardInterrupt):
            distill(settings, tmp_path / "broken", init=first[0].path, device="cpu")
    resumed = distill(settings, tmp_path / "broken", True, init=first[0].path, device="cpu")
    for key in ("student_sha256", "critic_sha256", "heads_sha256"):
        assert resumed.info[key] == whole.info[key]
    assert list(resumed.metrics()) == list(whole.metrics())


# --- the discriminator's weight


def test_discriminator_weight_scales_its_gradient_on_fake_score_and_heads(tools):
    """On the fake score the gradient is that of denoising and w times the discriminator's."""
    torch.manual_seed(0)
    nets = tools.nets(heads=Heads(1, tools.shape[0]), blocks=(0,))
    nets.train_only(nets.fake_score, nets.heads)

    def at(weight):
        options = {"weight": 0.1, "discriminator_weight": weight}
        recipe = tools.recipe(gan=options)
        reports = [
            dmd2.fake_score_loss(tools.batch(), nets, recipe, Stream(0, 0, 0, torch.device("cpu")))
            for _ in range(2)
        ]
        trained = zip(reports, (nets.fake_score, nets.heads), strict=True)
        return *(tools.gradients(report, module) for report, module in trained), reports[0].parts

    (none, still, _), (small, heads, parts), (whole, full, all_parts) = map(at, (0.0, 0.01, 1.0))
    for name, value in small.items():
        expected = none[name] + 0.01 * (whole[name] - none[name])
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-7)
        assert whole[name] != none[name]
    for name, value in heads.items():
        torch.testing.assert_close(value, 0.01 * full[name], rtol=1e-4, atol=1e-9)
        assert (still[name] == 0).all()
    assert parts["critic_gan_critic"] == pytest.approx(0.01 * float(all_parts["critic_gan_critic"]))
    assert parts["critic_fake_score"] == all_parts["critic_fake_score"]


def test_the_first_stages_networks_are_gone_before_the_seconds_are_made(recipe, runs, monkeypatch):
    alive, build = [], loop.build_networks

    def noted(recipe, family, *rest):
        before = [network() for network in alive]
        assert before == [None] * len(alive), "a network of the first stage is still there"
        nets = build(recipe, family, *rest)
        alive.extend(map(weakref.ref, (nets.student, nets.fake_score, family.teacher)))
        return nets

    monkeypatch.setattr(loop, "build_networks", noted)
    gc.disable()  # it would come by chance
    try:
        distill(recipe("dfd", "init.updates=1"), runs / "freed" / "dfd", device="cpu")
    finally:
        gc.enable()
    assert len(alive) == 6
