"""`distill` end to end on a tiny random checkpoint."""

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from dfdbench.distill import checkpoint, diagnostics, loop, stages
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    before = os.environ.get("DFDBENCH_CACHE")
    os.environ["DFDBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["DFDBENCH_CACHE"]
    else:
        os.environ["DFDBENCH_CACHE"] = before


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    own = ("schedule.student_updates=3", "log.probe_every=2", "init.updates=2")
    return lambda name, *overrides: tiny_recipe(name, *own, *overrides)


@pytest.fixture(scope="module")
def parent(recipe, tmp_path_factory):
    """A finished DMD2 run."""
    out = tmp_path_factory.mktemp("runs") / "dmd2-seed0"
    return distill(recipe("dmd2", "schedule.student_updates=2"), out)


def weights(run, part="student/transformer"):
    return load_file(run.path / part / "diffusion_pytorch_model.safetensors")


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def curve(run):
    return [line for line in run.metrics()]


def interrupt_after(monkeypatch, updates):
    """Make training die right after `updates` student updates."""
    cycle = Trainer.cycle

    def dying(self, update):
        if update > updates:
            raise KeyboardInterrupt
        cycle(self, update)

    monkeypatch.setattr(Trainer, "cycle", dying)


def test_the_student_trains_and_loads_in_the_plain_pipeline(parent, tiny_family):
    assert not equal(weights(parent), tiny_family.teacher.state_dict())
    assert not equal(weights(parent, "critic"), weights(parent))
    pipeline = diffusers.WanPipeline.from_pretrained(parent.student)
    clip = pipeline("a ball", height=64, width=64, num_frames=17, num_inference_steps=1,
                    guidance_scale=1.0, max_sequence_length=16,
                    output_type="np").frames  # fmt: skip
    assert clip.shape == (1, 17, 64, 64, 3)


def test_run_json_states_the_fairness_record(parent):
    info = Run.open(parent.path).info
    assert info["status"] == "finished" and info["student_updates"] == 2
    assert info["fake_updates"] == 2 and info["training_seed"] == 0 and info["arm"] == "dmd2"
    fairness = info["fairness"]
    assert fairness["cfg"] == 3.0 and fairness["input"] == "noised_real"
    assert fairness["student_times"][0] == 0.999 and len(fairness["data_sha256"]) == 64
    assert {"sampler", "cfg_convention", "negative_prompt", "teacher_parameters", "score_times",
            "ema", "dtypes", "batch", "ratio", "initial_student"} <= fairness.keys()  # fmt: skip
    assert info["wall_seconds"] > 0 and len(info["student_sha256"]) == 64
    assert str(parent.path) not in json.dumps(info).replace(info["model"], "")


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(recipe, tmp_path, monkeypatch):
    settings = recipe("dmd2", "checkpoint.every_updates=1", "optim.ema=0.5", "gan.weight=0.1",
                      "schedule.student_updates=4")  # fmt: skip
    whole = distill(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            distill(settings, tmp_path / "broken")
    assert Run.open(tmp_path / "broken").info["status"] == "running"
    kept = checkpoint.complete(tmp_path / "broken" / "checkpoints")[-1]
    names = {key.split(".")[0] for file in kept.glob("*.safetensors") for key in load_file(file)}
    assert {"student", "critic", "heads", "ema"} <= names, "as the previous version stored them"
    seen = []
    with monkeypatch.context() as patch:
        cycle = Trainer.cycle
        patch.setattr(
            Trainer, "cycle", lambda self, update: (seen.append(update), cycle(self, update))
        )
        resumed = distill(settings, tmp_path / "broken", resume=True)
    assert seen == [3, 4], "only what was not checkpointed is done again"
    assert equal(weights(resumed), weights(whole))
    assert equal(weights(resumed, "critic"), weights(whole, "critic"))
    assert curve(resumed) == curve(whole)
    assert not resumed.checkpoints.exists()


def test_two_runs_of_one_seed_agree_and_of_two_seeds_do_not(recipe, parent, tmp_path):
    again = distill(recipe("dmd2", "schedule.student_updates=2"), tmp_path / "again")
    assert equal(weights(again), weights(parent)) and again.info["id"] == parent.info["id"]
    other = distill(recipe("dmd2", "schedule.student_updates=2", "seed=1"), tmp_path / "other")
    assert not equal(weights(other), weights(parent))


def test_dfd_with_p_zero_trains_the_control_bitwise(recipe, parent, tmp_path):
    control = distill(recipe("dmd2_control"), tmp_path / "control", init=parent.path)
    zero = distill(recipe("dfd", "dfd.p=0"), tmp_path / "zero", init=parent.path)
    full = distill(recipe("dfd", "dfd.p=1"), tmp_path / "full", init=parent.path)
    assert equal(weights(zero), weights(control))
    assert equal(weights(zero, "critic"), weights(control, "critic"))
    assert not equal(weights(full), weights(control))
    assert control.info["parent"]["id"] == zero.info["parent"]["id"] == parent.info["id"]
    assert zero.info["student_updates"] == 3 and zero.info["student_updates_total"] == 5


def test_a_second_stage_goes_on_with_the_parents_data_order_and_noise(
    recipe, parent, tmp_path, monkeypatch
):
    seen = []

    def stop(self, role, iteration):
        seen.append((role, iteration))
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", stop)
    for number, start in enumerate((parent.path, None)):
        settings = recipe("dfd") if start else recipe("dmd2")
        with pytest.raises(KeyboardInterrupt):
            distill(settings, tmp_path / str(number), init=start)
    assert seen == [("student", 4), ("student", 0)], "the parent did 2 updates of 2 iterations"


def test_a_second_stage_starts_from_the_parents_student_and_fake_score(
    recipe, parent, tmp_path, monkeypatch
):
    started = {}

    def look(self):
        started["student"] = {k: v.clone() for k, v in self.nets.student.state_dict().items()}
        started["critic"] = {k: v.clone() for k, v in self.nets.fake_score.state_dict().items()}
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        distill(recipe("dfd"), tmp_path / "dfd", init=parent.path)
    assert equal(started["student"], weights(parent))
    assert equal(started["critic"], weights(parent, "critic"))


def test_without_init_the_first_stage_is_made_once_beside_the_run(recipe, tmp_path, capsys):
    dfd = distill(recipe("dfd"), tmp_path / "dfd")
    first = Run.open(tmp_path / "dmd2-seed0")
    assert first.finished and first.info["student_updates"] == 2
    assert "first stage: toy/dmd2" in capsys.readouterr().err
    control = distill(recipe("dmd2_control"), tmp_path / "control")
    assert "starting from the finished run" in capsys.readouterr().err
    assert control.info["parent"] == dfd.info["parent"]
    scratch = distill(recipe("dfd", "init.recipe=''"), tmp_path / "scratch")
    assert scratch.info["parent"] is None and scratch.info["fairness"]["initial_student"] == (
        "teacher"
    )


def test_another_first_stage_gets_a_folder_of_its_own(recipe, tmp_path):
    distill(recipe("dfd"), tmp_path / "a")
    other = distill(recipe("dfd", "init.updates=1"), tmp_path / "b")
    folders = sorted(p.name for p in tmp_path.glob("dmd2-seed0*"))
    assert len(folders) == 2 and other.info["parent"]["student_updates"] == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["dfd.gradient_space=score", "dfd.normaliser=scored"],
        ["teacher.cfg=1"],
        ["dfd.cfg_dfd=1", "dfd.t_min=0.5", "dfd.p=1"],
        ["dfd.w=0.5"],
        ["student.input=backward_simulation", "student.sampler=sde"],
        ["gan.weight=0.03", "gan.r1_weight=100"],
        ["gan.weight=0.03", "gan.features=teacher", "gan.blocks=[1]"],
        ["optim.accumulate=2", "optim.ema=0.9", "fake_score.loss=flow"],
        ["optim.gradient_checkpointing=true"],
    ],
    ids=" ".join,
)
def test_every_ablation_is_one_override_away(recipe, parent, tmp_path, overrides):
    run = distill(
        recipe("dfd", "schedule.student_updates=1", *overrides), tmp_path / "run", init=parent.path
    )
    assert run.finished and not equal(weights(run), weights(parent))


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_student_steps_train_too(recipe, tmp_path, steps):
    run = distill(
        recipe("dmd2", "schedule.student_updates=1", f"student.steps={steps}"), tmp_path / "run"
    )
    assert len(run.info["fairness"]["student_times"]) == steps + 1


@pytest.mark.parametrize("policy", ["all", "last", "random"])
def test_dp_dmd_trains_and_logs_its_anchor_time(recipe, tmp_path, policy):
    run = distill(
        recipe("dp_dmd", "schedule.student_updates=2", "dp_dmd.anchor_step=2",
               f"dp_dmd.gradient_steps={policy}", "student.sampler=sde"),
        tmp_path / "run",
    )  # fmt: skip
    assert run.info["fairness"]["anchor_time"] == pytest.approx(0.9917, abs=1e-3)
    assert all(line["diversity"] > 0 for line in run.metrics("update"))


def test_accumulated_rounds_add_up_to_one_batch(recipe, tmp_path, monkeypatch):
    """With the noise of a round made a function of its clips, cutting the batch changes nothing."""
    from dfdbench.distill.streams import Stream, seeded

    def by_content(self, name, like):
        # Coarse, as predictions differ in the last digit between batch sizes.
        keys = [f"{row.detach().flatten()[0]:.2f}" for row in like]
        rows = [torch.randn(like.shape[1:], generator=seeded("cpu", name, key)) for key in keys]
        return torch.stack(rows)

    monkeypatch.setattr(Stream, "normal", by_content)
    monkeypatch.setattr(
        Stream, "integers", lambda self, name, high, count: torch.ones(count, dtype=torch.long)
    )
    fixed = [
        "schedule.t_low=0.5", "schedule.t_high=0.5000001", "optim.batch=4", "log.probe_every=0",
        "schedule.student_updates=1", "student.times=[0.999,0.9,0.8,0.6]",
    ]  # fmt: skip
    one = distill(recipe("dmd2", *fixed), tmp_path / "one")
    two = distill(recipe("dmd2", "optim.accumulate=2", *fixed), tmp_path / "two")
    (a,), (b,) = one.metrics("update"), two.metrics("update")
    for name in ("matching", "student_gradient_norm", "critic_fake_score", "critic_gradient_norm"):
        assert a[name] == pytest.approx(b[name], rel=1e-3), name


def test_the_curve_has_losses_bins_and_probes(recipe, tmp_path):
    run = distill(recipe("dmd2", "log.decode_every=1", "log.decode_count=1"), tmp_path / "run")
    updates = list(run.metrics("update"))
    assert [line["update"] for line in updates] == [1, 2, 3]
    assert {"matching", "critic_fake_score", "student_gradient_norm", "critic_gradient_norm"} <= (
        updates[0].keys()
    )
    bins = list(run.metrics("bins"))
    assert sum(sum(line["normaliser_count"]) for line in bins) == 3 * 2
    assert sum(sum(line["fake_score_error_count"]) for line in bins) == 3 * 2
    probed = [line for line in bins if "probe_delta" in line]
    assert probed and len(probed[0]["t_edges"]) == diagnostics.BINS + 1
    looks = list(run.metrics("probe"))
    assert len(looks) == 3
    for name in ("saturation", "contrast"):
        for side in ("generated", "real"):
            assert 0 <= looks[0][f"{name}_{side}"] <= 1


def test_a_diverged_loss_stops_naming_the_update_and_the_last_good_checkpoint(
    recipe, tmp_path, monkeypatch
):
    step = Trainer.step

    def exploding(self, role, iteration):
        values = step(self, role, iteration)
        if role == "student" and iteration >= 4:
            values["matching"] = values["matching"] * float("nan")
        return values

    monkeypatch.setattr(Trainer, "step", exploding)
    with pytest.raises(UserError, match=r"matching at update 3 is not finite.*step-2"):
        distill(recipe("dmd2", "checkpoint.every_updates=1"), tmp_path / "run")
    assert [p.name for p in checkpoint.complete(tmp_path / "run" / "checkpoints")] == [
        "step-1",
        "step-2",
    ]


def test_wrong_ways_to_go_on_are_refused_in_one_line(recipe, parent, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="already holds a run"):
        distill(recipe("dmd2"), parent.path)
    with pytest.raises(UserError, match=r"another optim\.lr"):
        distill(recipe("dmd2", "schedule.student_updates=2", "optim.lr=1e-4"), parent.path, True)
    with pytest.raises(UserError, match=r"trained with student\.steps = 4, this recipe has 2"):
        distill(recipe("dfd", "student.steps=2"), tmp_path / "x", init=parent.path)
    with pytest.raises(UserError, match="not a run folder"):
        distill(recipe("dfd"), tmp_path / "x", init=tmp_path / "nowhere")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            distill(recipe("dmd2"), tmp_path / "half")
    with pytest.raises(UserError, match="is not finished"):
        distill(recipe("dfd"), tmp_path / "x", init=tmp_path / "half")
    with pytest.raises(UserError, match="does not exist"):
        distill(recipe("dmd2", "model=/nowhere/at/all"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_resuming_a_finished_run_returns_it_untouched(recipe, parent):
    before = (parent.path / "run.json").read_bytes()
    again = distill(recipe("dmd2", "schedule.student_updates=2"), parent.path, resume=True)
    assert again.finished and (parent.path / "run.json").read_bytes() == before


def test_a_run_of_the_previous_version_is_resumed_and_started_from(
    recipe, parent, tiny_family, tmp_path
):
    """It has all sections, old keys and digest in run.json, and maybe in its folder's name."""
    first = stages.resolve(stages.first_stage_recipe(recipe("dfd")), tiny_family.defaults)
    fixture = Path(__file__).parent / "previous_recipes.jsonl"
    rows = map(json.loads, fixture.read_text().splitlines())
    table = next(row["recipe"] for row in rows if row["name"] == "toy/dmd2")
    new = first.as_dict()
    table |= {key: new[key] for key in table if key in new and key != "schedule"}
    schedule = dict(new["schedule"])
    table["schedule"] = {"ratio": schedule.pop("student_update_freq"), **schedule}
    table["dp_dmd"] |= {"grid_steps": 50, "grid_shift": 5.0}  # filled in for every method then
    shutil.copytree(parent.path, tmp_path / "dmd2-seed0")
    previous = Run.open(tmp_path / "dmd2-seed0")
    previous.update(recipe=table, recipe_digest="0123456789abcdef", id="dmd2-seed0-01234567")

    stages.check_resume(previous, first, None)
    other = dataclasses.replace(
        first, schedule=dataclasses.replace(first.schedule, student_update_freq=3)
    )
    with pytest.raises(UserError, match=r"begun with another schedule\.student_update_freq"):
        stages.check_resume(previous, other, None)

    def first_stage(init):
        settings = stages.resolve(recipe("dfd"), tiny_family.defaults)
        return stages.parent_run(settings, tmp_path / "dfd", init, tiny_family, train=None)

    assert first_stage(None).path == first_stage(previous.path).path == previous.path
    # Beside another run of that name, the previous version gave it a folder with its digest.
    moved = previous.path.rename(tmp_path / "dmd2-seed0-01234567")
    shutil.copytree(moved, tmp_path / "dmd2-seed0")
    Run.open(tmp_path / "dmd2-seed0").update(recipe=table | {"seed": 9})
    assert first_stage(None).path == moved


def test_checkpoints_keep_the_newest_two_and_a_misfit_is_named(tmp_path):
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(net.parameters())
    for updates in (1, 2, 3):
        at = checkpoint.Position(updates, 0.5)
        checkpoint.save(tmp_path, at, {"net": net}, {"net": optimiser}, keep=2)
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step-2", "step-3"]
    device = torch.device("cpu")
    at = checkpoint.restore(tmp_path, {"net": net}, {"net": optimiser}, device)
    assert at == checkpoint.Position(3, 0.5)
    other = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match="step-3 does not fit"):
        checkpoint.restore(tmp_path, {"net": other}, {}, device)


def test_average_of_weights_follows_its_decay(recipe, tmp_path):
    still = distill(recipe("dmd2", "optim.ema=0.999999999"), tmp_path / "still")
    start = loop.load_family(still.info["model"]).teacher.state_dict()
    moved = distill(recipe("dmd2"), tmp_path / "moved")
    for name, value in weights(still).items():
        torch.testing.assert_close(value, start[name], rtol=0, atol=1e-6)
    assert not equal(weights(moved), weights(still))


def _work(out, overrides):
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    distill(load_recipe("toy/dmd2", overrides), out, resume=True, device="cpu")


@pytest.mark.slow
def test_killing_at_random_moments_loses_at_most_one_interval(tiny_checkpoint, tmp_path):
    """Five SIGKILLs at random moments of real processes; the end equals an unbroken run's."""
    overrides = [
        f"model={tiny_checkpoint}", "data.count=8", "optim.batch=4", "log.every=1",
        "log.probe_every=0", "log.decode_every=0", "checkpoint.every_updates=3",
        "schedule.student_updates=60", "optim.lr=1e-3", "optim.fake_lr=1e-3",
    ]  # fmt: skip
    whole = distill(load_recipe("toy/dmd2", overrides), tmp_path / "whole")
    out, dice = tmp_path / "killed", random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dfdbench.distill.loop", "dfdbench.models.wan", __name__])
    for _ in range(5):
        before = _updates(out)
        process = context.Process(target=_work, args=(out, overrides))
        process.start()
        # The random moment is counted from the first new update, so that each kill hits training.
        while process.is_alive() and _updates(out) <= before:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.5))
        assert process.is_alive(), "the run must be long enough to be killed five times"
        process.kill()
        process.join()
        kept = checkpoint.complete(out / "checkpoints")
        position = int(kept[-1].name.removeprefix("step-")) if kept else 0
        assert _updates(out) - position <= 3, "at most one checkpoint interval is lost"
    assert not Run.open(out).finished
    process = context.Process(target=_work, args=(out, overrides))
    process.start()
    process.join()
    killed = Run.open(out)
    assert killed.finished and equal(weights(killed), weights(whole))
    assert equal(weights(killed, "critic"), weights(whole, "critic"))
    assert curve(killed) == curve(whole)


def _updates(out):
    file = out / "metrics.jsonl"
    return file.read_text().count('"kind": "update"') if file.exists() else 0
