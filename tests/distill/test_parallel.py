"""Training on two gloo processes on the CPU gives what one process gives, and ends cleanly."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from two_processes import LIMIT_SECONDS, on_two

from dfdbench.distill import checkpoint, loop, parallel
from dfdbench.distill.data.clips import ClipsInMemory
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.parallel import Group
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.registry import load_family
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "parallel-cache"
    monkeypatch.setenv("DFDBENCH_CACHE", str(folder))


def settings(model, *more):
    """`--set` values of a run of 4 updates of 3 iterations, each of 4 rounds of one clip."""
    return [
        f"model={model}", "data.count=8", "optim.batch=4", "optim.accumulate=4", "optim.lr=1e-3",
        "optim.fake_lr=1e-3", "schedule.student_updates=4", "schedule.student_update_freq=3",
        "log.every=1", "log.probe_every=2", "log.decode_every=2", "init.updates=1",
        "checkpoint.every_updates=1",
        *more,
    ]  # fmt: skip


def die_while_writing(rank):
    from torch.distributed.checkpoint import HuggingFaceStorageWriter as Writer

    write, calls = Writer.write_data, []

    def dying(self, plan, planner):
        calls.append(1)
        if rank == 1 and len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, plan, planner)

    Writer.write_data = dying


def fill_the_disk(rank):
    from torch.distributed.checkpoint import HuggingFaceStorageWriter as Writer

    write, calls = Writer.write_data, []

    def failing(self, plan, planner):
        calls.append(1)
        if rank == 1 and len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, plan, planner)

    Writer.write_data = failing


def download(rank, folder, how):
    """Rank 1 finds its model long after the other, which waits longer than collectives may take."""
    from datetime import timedelta

    parallel.TIMEOUT = timedelta(seconds=3)
    with parallel.joined("cpu") as group:

        def work():
            time.sleep(8 * rank)
            return rank

        if how == "patiently":
            assert parallel.patiently(work, group) == rank
        else:
            with group.main_process_first():
                group.on_main(work)
            work()
        assert int(group.total(torch.ones(1))) == 2
        (folder / f"done-{rank}").touch()


@pytest.mark.parametrize("how", ["patiently", "impatiently"])
def test_a_download_may_take_longer_than_processes_wait_for_one_another(tmp_path, how):
    done = on_two(tmp_path / "logs", download, tmp_path, how)
    finished = len(list(tmp_path.glob("done-*")))
    assert finished == (2 if how == "patiently" else 0), done.text
    assert (done.codes == [0, 0]) is (how == "patiently"), done.text


def test_a_model_is_found_before_any_process_waits_for_another(
    tmp_path, monkeypatch, tiny_checkpoint
):
    order = []
    found, loaded = loop.resolve_folder, loop.load_family
    monkeypatch.setattr(loop, "resolve_folder", lambda n: order.append("found") or found(n))
    monkeypatch.setattr(loop, "load_family", lambda *a: order.append("loaded") or loaded(*a))
    distill(
        load_recipe("toy/dmd2", settings(tiny_checkpoint, "schedule.student_updates=1")),
        tmp_path / "run", device="cpu",
    )  # fmt: skip
    assert order == ["found", "loaded"]


def command(rank, arguments, fault=None):
    """`dfdbench distill …` as torchrun would start it."""
    from dfdbench.cli import main

    if fault:
        fault(rank)
    sys.argv = ["dfdbench", "distill", "--device", "cpu", *arguments]
    main()


def on_two_distill(out, recipe, values, *more, fault=None):
    sets = [part for value in values for part in ("--set", value)]
    recipe = recipe if "/" in recipe else f"toy/{recipe}"
    arguments = ["--recipe", recipe, "--out", str(out), *sets, *more]
    return on_two(out.parent / f"{out.name}-logs", command, arguments, fault)


def flat(line):
    return {
        f"{name} {i}": -1.0 if number is None else number  # an empty bin
        for name, value in line.items()
        if name != "kind"
        for i, number in enumerate(value if isinstance(value, list) else [value])
    }


def assert_same_run(one, two):
    """Every logged value and every weight of two run folders agree."""
    ours, theirs = (list(Run.open(path).metrics()) for path in (one, two))
    assert len(ours) == len(theirs)
    for line, other in zip(ours, theirs, strict=True):
        assert other["kind"] == line["kind"]
        exact = {"rel": 1e-5, "abs": 1e-9} if line["kind"] == "update" else {"rel": 1e-4}
        assert flat(other) == pytest.approx(flat(line), **exact), line["update"]
    networks = ("student/transformer", "critic")
    files = [f"{part}/diffusion_pytorch_model.safetensors" for part in networks]
    assert (one / "heads").exists() == (two / "heads").exists()
    if (one / "heads").exists():
        files.append("heads/heads.safetensors")
    for file in files:
        left, right = (load_file(path / file) for path in (one, two))
        assert left.keys() == right.keys()
        for name, value in left.items():
            torch.testing.assert_close(right[name], value, rtol=0, atol=1e-5)
    for part in networks:
        config, other = (json.loads((p / part / "config.json").read_text()) for p in (one, two))
        assert config == other


CASES = {
    "dmd2": ["gan.weight=0.03", "gan.r1_weight=1", "optim.ema=0.5", "optim.clip=0.05",
             "optim.gradient_checkpointing=true", "schedule.student_updates=2",
             "schedule.student_update_freq=2", "checkpoint.every_updates=0", "log.decode_every=0"],
    "dp_dmd": ["dp_dmd.anchor_step=2", "schedule.student_updates=2"],
    "dfd": ["gan.weight=0.03", "gan.features=teacher",
            "student.input=backward_simulation", "optim.accumulate=2"],
    # Rounds with other coins: a guidance pass that one process skips would let the other wait.
    "dfd round": ["dfd.coin=round", "dfd.cfg_dfd=1", "teacher.guidance_passes=sequential",
                  "schedule.student_updates=2", "log.decode_every=0"],
    "dp_dmd one time": ["schedule.one_time=true", "dp_dmd.anchor_step=2", "dp_dmd.detach=false",
                        "schedule.student_updates=2", "log.decode_every=0"],
    "dmd2 self forcing": ["student.input=self_forcing", "student.sampler=sde",
                          "student.block_frames=2", "optim.gradient_checkpointing=true",
                          "schedule.student_updates=2", "log.decode_every=0"],
    "toy-ar/teacher_forcing": ["schedule.student_update_freq=1", "log.decode_every=0",
                               "optim.checkpointing=full", "schedule.student_updates=2"],
    "toy-ar/ode_init": ["schedule.student_update_freq=1", "log.decode_every=0",
                        "ode_init.grid_steps=4", "schedule.student_updates=2"],
    # The exit step and the coins are those of the round, whichever process does it.
    "toy-ar/dfd": ["init.recipe=", "optim.checkpointing=full", "optim.ema_start=2",
                   "dfd.coin=round", "schedule.student_updates=2", "log.decode_every=0"],
    "toy-ar/dp_dmd": ["init.recipe=", "dp_dmd.anchor_step=2", "dp_dmd.grid_steps=6",
                      "schedule.student_updates=2", "log.decode_every=0"],
    "avd": ["avd.weight=5", "log.decode_every=0"],
    "f_distill": ["f_distill.divergence=kl", "gan.weight=0.1", "log.decode_every=0"],
    "sid": ["optim.gradient_checkpointing=true", "schedule.student_updates=2",
            "log.decode_every=0"],
    "adversarial": ["schedule.student_updates=2", "log.decode_every=0"],
    "dcm_dmd": ["dcm_dmd.weight=0.5", "log.decode_every=0"],
    "regression": ["gan.weight=0.03", "schedule.student_updates=2", "log.decode_every=0"],
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c == "dmd2" else pytest.mark.slow) for c in CASES]
)
def test_two_processes_train_what_one_does(tiny_checkpoint, tmp_path, case):
    method, values = case.split()[0], settings(tiny_checkpoint, *CASES[case])
    recipe = load_recipe(method if "/" in method else f"toy/{method}", values)
    one = distill(recipe, tmp_path / "a" / "one", device="cpu")
    done = on_two_distill(tmp_path / "b" / "two", method, values)
    assert done.codes == [0, 0], done.text
    assert "run: " in done.logs[0] and done.logs[1] == "", "one process talks"
    assert_same_run(one.path, tmp_path / "b" / "two")
    assert Run.open(tmp_path / "b" / "two").info["processes"] == 2


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tiny_checkpoint, tmp_path, monkeypatch):
    values = settings(tiny_checkpoint, "gan.weight=0.03", "optim.ema=0.5")
    recipe = load_recipe("toy/dmd2", values)
    distill(recipe, tmp_path / "whole", device="cpu")

    killed = on_two_distill(tmp_path / "two", "dmd2", values, fault=die_while_writing)
    assert killed.codes == [2, -signal.SIGKILL]
    errors = [line for line in killed.text.splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and "another process of this run ended" in errors[0]
    left = tmp_path / "two" / "checkpoints"
    assert sorted(p.name for p in left.iterdir()) == ["step-1", "step-2"], "nothing half-written"
    shutil.copytree(tmp_path / "two", tmp_path / "two-one")

    again = on_two_distill(tmp_path / "two", "dmd2", values, "--resume")
    assert again.codes == [0, 0], again.text
    assert_same_run(tmp_path / "whole", tmp_path / "two")
    distill(recipe, tmp_path / "two-one", resume=True, device="cpu")
    assert_same_run(tmp_path / "whole", tmp_path / "two-one")

    cycle = Trainer.cycle
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, "cycle", lambda self, n: cycle(self, n) if n < 3 else pytest.fail("stop")
        )
        with pytest.raises(pytest.fail.Exception):
            distill(recipe, tmp_path / "one-two", device="cpu")
    more = on_two_distill(tmp_path / "one-two", "dmd2", values, "--resume")
    assert more.codes == [0, 0], more.text
    assert_same_run(tmp_path / "whole", tmp_path / "one-two")


def test_a_full_disk_of_one_process_ends_all_with_one_line(tiny_checkpoint, tmp_path):
    values = settings(tiny_checkpoint, "log.probe_every=0", "log.decode_every=0")
    full = on_two_distill(tmp_path / "run", "dmd2", values, fault=fill_the_disk)
    assert full.codes == [2, 2]
    errors = [line for line in full.text.splitlines() if "rror" in line]
    assert len(errors) == 1 and "Traceback" not in full.text
    assert "No space left on device" in errors[0] and "step-1 stays" in errors[0]
    assert str(tmp_path / "run" / "checkpoints") in errors[0]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]


def test_a_full_disk_keeps_the_older_checkpoint_of_a_single_process(tmp_path, monkeypatch):
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(net.parameters())
    checkpoint.save(tmp_path, checkpoint.Position(1), {"net": net}, {"net": optimiser}, keep=1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.HuggingFaceStorageWriter.write_data", full)
    with pytest.raises(UserError, match=r"step-2 could not be written \(No space .*step-1 stays"):
        checkpoint.save(tmp_path, checkpoint.Position(2), {"net": net}, {"net": optimiser}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_checkpoints_in_the_older_format_are_still_read(tmp_path):
    from safetensors.torch import save_file

    def trained(seed):
        torch.manual_seed(seed)
        net = torch.nn.Linear(2, 2)
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.1)
        net(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        return net, optimiser

    net, optimiser = trained(0)
    old = tmp_path / "step-7"
    old.mkdir()
    save_file(net.state_dict(), old / "net.safetensors")
    torch.save(optimiser.state_dict(), old / "net.optimiser.pt")
    (old / "state.json").write_text('{"updates": 7, "seconds": 1.5}')
    other, its = trained(1)
    at = checkpoint.restore(tmp_path, {"net": other}, {"net": its}, CPU)
    assert at == checkpoint.Position(7, 1.5)
    assert torch.equal(other.weight, net.weight)
    moments = [o.state_dict()["state"][0]["exp_avg"] for o in (its, optimiser)]
    assert torch.equal(*moments)


def test_real_clips_that_are_not_finite_are_named(tiny_checkpoint, tmp_path, monkeypatch):
    batch = ClipsInMemory.batch

    def broken(self, start, count):
        made = batch(self, start, count)
        return made._replace(latents=made.latents * float("nan")) if start >= 24 else made

    monkeypatch.setattr(ClipsInMemory, "batch", broken)
    values = settings(tiny_checkpoint, "log.probe_every=0", "log.decode_every=0", "log.every=3")
    with pytest.raises(UserError, match=r"data.source toy has latents with NaN.*\(update 3\)"):
        distill(load_recipe("toy/dmd2", values), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_share_the_rounds_without_overlap(size):
    shares = [Group(rank, size).rounds(8, 16) for rank in range(size)]
    assert [round_ for share in shares for round_ in share] == list(range(8))
    assert len({len(share) for share in shares}) == 1


def test_rounds_that_cannot_be_shared_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"optim\.accumulate=12"):
        Group(0, 4).rounds(9, 36)


def test_where_no_number_of_rounds_fits_the_batch_the_processes_are_to_change():
    with pytest.raises(UserError, match=r"processes that divides optim\.batch = 16"):
        Group(0, 3).rounds(1, 16)


def test_processes_share_coin_and_exit_but_not_noise():
    first, second = (
        [Stream(3, iteration, Group(rank, 2).rounds(2, 4)[0], CPU) for iteration in range(40)]
        for rank in range(2)
    )
    coins = [[rng.bernoulli("real_clip", 0.5) for rng in streams] for streams in (first, second)]
    exits = [[rng.integer("exit", 4) for rng in streams] for streams in (first, second)]
    assert coins[0] == coins[1] and {True, False} == set(coins[0])
    assert exits[0] == exits[1] and set(exits[0]) == {0, 1, 2, 3}
    like = torch.zeros(2, 3)
    for a, b in zip(first, second, strict=True):
        assert not torch.equal(a.normal("score_eps", like), b.normal("score_eps", like))


def gradients_in_bfloat16(family, student):
    """Loss and gradients of a student pass under autocast, v̂ of the teacher, times it was told."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *family.latent_shape(17, 64, 64), generator=g)
    cond = Conditioning(torch.randn(2, 16, 64, generator=g))
    seen = []
    hook = student.condition_embedder.timesteps_proj.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].tolist())
    )
    with torch.autocast("cpu", torch.bfloat16):
        v = family.predict(student, x, torch.tensor([0.999, 0.998]), cond)
        with torch.no_grad():
            scored = family.predict(family.teacher, x, torch.tensor([0.999, 0.998]), cond)
    hook.remove()
    loss = (v**2).mean()
    loss.backward()
    gradients = torch.cat([parallel.local(p.grad).flatten() for p in student.parameters()])
    return loss.item(), gradients, scored, seen


def compare_bfloat16(rank, model):
    family = load_family(model, torch.bfloat16)
    expected, gradients, scored, _ = gradients_in_bfloat16(family, family.new_module())
    family = load_family(model, torch.bfloat16)
    student = family.new_module()
    with parallel.joined("cpu") as group:
        parallel.shard(family.teacher, family.blocks(family.teacher), group)
        parallel.shard(student, family.blocks(student), group)
        loss, found, cut, seen = gradients_in_bfloat16(family, student)
        assert all(p.grad.dtype == p.dtype == torch.float32 for p in student.parameters())
    assert torch.equal(cut, scored), "the frozen teacher gives the same, bit for bit"
    assert abs(seen[0][0] - 999) < 1e-3 and abs(seen[0][1] - 998) < 1e-3
    assert abs(loss / expected - 1) < 1e-5, (loss, expected)
    # What blocks share gets its gradients in another order, and those are in bfloat16.
    assert (found - gradients).norm() < 1e-3 * gradients.norm()


def test_under_bfloat16_autocast_two_processes_have_the_loss_of_one(tiny_checkpoint, tmp_path):
    done = on_two(tmp_path, compare_bfloat16, tiny_checkpoint)
    assert done.codes == [0, 0], done.text


def watch_gradients(rank):
    """Print what each process has of the student's gradients when a second round begins."""
    step, batch, now = Trainer.step, ClipsInMemory.batch, {}

    def noted(self, role, iteration):
        now.update(trained=self.student_params if role == "student" else (), rounds=0)
        return step(self, role, iteration)

    def watched(self, start, count):
        now["rounds"] += 1
        if now["trained"] and now["rounds"] == 2:
            whole = sum(4 * p.numel() for p in now["trained"])
            own = sum(0 if p.grad is None else p.grad.to_local().nbytes for p in now["trained"])
            print(f"share {own / whole:.3f}", flush=True)
        return batch(self, start, count)

    Trainer.step, ClipsInMemory.batch = noted, watched


def test_between_rounds_each_process_keeps_its_part_of_the_gradients(tiny_checkpoint, tmp_path):
    values = settings(tiny_checkpoint, "schedule.student_updates=1", "log.probe_every=0",
                      "log.decode_every=0")  # fmt: skip
    done = on_two_distill(tmp_path / "run", "dmd2", values, fault=watch_gradients)
    assert done.codes == [0, 0], done.text
    shares = [float(log.split("share ")[1].split()[0]) for log in done.logs]
    assert all(0.4 < share < 0.6 for share in shares) and sum(shares) == pytest.approx(1, abs=2e-3)


@pytest.mark.slow
def test_torchrun_starts_the_command_and_one_process_talks(tiny_checkpoint, tmp_path):
    def torchrun(*sets):
        values = [part for value in settings(tiny_checkpoint, *sets) for part in ("--set", value)]
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
             "-m", "dfdbench", "distill", "--method", "dmd2", "--device", "cpu",
             "--out", str(tmp_path / "run"), *values],
            capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    refused = torchrun("optim.accumulate=1")
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "--set optim.accumulate=2" in lines[0]
    assert refused.returncode != 0 and not (tmp_path / "run").exists()
    done = torchrun("schedule.student_updates=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run: ") == 1 and Run.open(tmp_path / "run").finished
