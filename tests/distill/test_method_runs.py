"""The further methods in the real loop: resume, rounds, and what is left of each run."""

import pytest
import torch
from safetensors.torch import load_file

from dfdbench.distill import checkpoint, loop
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.parallel import Group

GAN = ["gan.weight=0.1"]
CASES = {
    "decoupled_dmd": [],
    "dcm_dmd": ["dcm_dmd.weight=0.5", "dcm_dmd.warm_up=1"],
    "avd": ["optim.ema=0.5"],
    "f_distill": ["f_distill.divergence=kl"],
    "sid": [],
    "adversarial": ["schedule.student_update_freq=3"],
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def recipe(tiny_recipe):
    own = ("schedule.student_updates=3", "log.probe_every=2", "optim.accumulate=2")
    return lambda name, *overrides: tiny_recipe(name, *own, *CASES[name], *overrides)


def weights(run, part="student/transformer"):
    return load_file(run.path / part / "diffusion_pytorch_model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(recipe, tmp_path, monkeypatch, name):
    settings = recipe(name, "checkpoint.every_updates=1")
    whole = distill(settings, tmp_path / "whole")
    cycle = Trainer.cycle

    def dying(self, update):
        if update > 2:
            raise KeyboardInterrupt
        cycle(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "cycle", dying)
        with pytest.raises(KeyboardInterrupt):
            distill(settings, tmp_path / "broken")
    kept = checkpoint.complete(tmp_path / "broken" / "checkpoints")[-1]
    names = {key.split(".")[0] for file in kept.glob("*.safetensors") for key in load_file(file)}
    assert ("statistics" in names) is (name in ("avd", "f_distill"))
    resumed = distill(settings, tmp_path / "broken", resume=True)
    assert equal(weights(resumed), weights(whole))
    assert equal(weights(resumed, "critic"), weights(whole, "critic"))
    assert list(resumed.metrics()) == list(whole.metrics())
    lines = list(whole.metrics("update"))
    assert len(lines) == 3 and not equal(weights(whole), weights(whole, "critic"))
    if name == "dcm_dmd":
        assert ["matching" in line for line in lines] == [False, True, True]
    if name == "f_distill":
        assert all(line["h_spread"] > 0 for line in lines)


def test_an_adversarial_run_leaves_the_teacher_s_copy_as_fake_score(recipe, tmp_path, tiny_family):
    run = distill(recipe("adversarial", "schedule.student_updates=1"), tmp_path / "run")
    assert equal(weights(run, "critic"), dict(tiny_family.teacher.state_dict()))
    assert (run.heads / "heads.safetensors").is_file()
    assert run.info["fairness"]["fake_score"] == "the teacher's copy"


@pytest.mark.parametrize("name", ["avd", "f_distill"])
def test_the_order_of_rounds_changes_no_loss(recipe, tmp_path, monkeypatch, name):
    """Both remember values of earlier updates, and f-distill weighs over all rounds."""
    settings = recipe(name, "optim.batch=4", "optim.accumulate=4")
    forth = distill(settings, tmp_path / "forth")
    rounds = Group.rounds
    monkeypatch.setattr(Group, "rounds", lambda *a: rounds(*a)[::-1])
    back = distill(settings, tmp_path / "back")
    for ours, theirs in zip(forth.metrics("update"), back.metrics("update"), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    assert any(line["flow_weight" if name == "avd" else "h_spread"] not in (0.5, 0.0)
               for line in forth.metrics("update"))  # fmt: skip


def test_h_has_mean_one_over_all_rounds(recipe, tmp_path, monkeypatch):
    seen, surveyed = [], []
    step, survey = Trainer.step, loop.statistics.survey

    class Bins(list):
        def add_bins(self, report, ours=True):
            seen.extend(report.bins["h"][1].tolist() if "h" in report.bins else [])

    def watched(self, role, iteration):
        add, self.recorder.add_bins = self.recorder.add_bins, Bins().add_bins
        try:
            return step(self, role, iteration)
        finally:
            self.recorder.add_bins = add

    monkeypatch.setattr(Trainer, "step", watched)
    monkeypatch.setattr(
        loop.statistics, "survey", lambda *a: (surveyed.append(a[1].whole_batch), survey(*a))
    )
    updates = ["schedule.student_updates=2", "optim.batch=4", "log.probe_every=0"]
    for accumulate, whole in ((4, False), (1, True)):
        seen.clear(), surveyed.clear()
        settings = recipe("f_distill", *updates, f"optim.accumulate={accumulate}")
        distill(settings, tmp_path / f"run-{accumulate}")
        h = torch.tensor(seen).view(2, 4)
        torch.testing.assert_close(h.mean(1), torch.ones(2))
        assert (h.std(1) > 0).all() and surveyed == [whole, whole]


def test_a_run_in_one_round_knows_of_every_clip_what_a_survey_would(recipe, tmp_path):
    """The same clips in one round of four, and in four rounds: only the noise differs, so the
    statistics are of as many clips."""
    for accumulate in (1, 4):
        settings = recipe("avd", "optim.batch=4", f"optim.accumulate={accumulate}",
                          "schedule.student_updates=1", "checkpoint.every_updates=1")  # fmt: skip
        run = distill(settings, tmp_path / f"run-{accumulate}")
        (line,) = run.metrics("update")
        assert line["flow_weight"] == 0.5, "no mean yet"


def test_flat_weights_are_told_while_it_trains(recipe, tmp_path, capsys):
    clipped = ["f_distill.ratio_low=0.999999", "f_distill.ratio_high=1.000001"]
    distill(recipe("f_distill", "schedule.student_updates=2", *clipped), tmp_path / "run")
    assert capsys.readouterr().err.count("trains as DMD2 with a GAN") == 1
