"""Training of causal students: rollouts, their first stages, and the chain of stages."""

import json
from types import SimpleNamespace

import pytest
import torch
from self_forcing_files import loud_checkpoint

from dfdbench.distill import matching
from dfdbench.distill.batch import Batch
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.methods import dfd, dmd2, dp_dmd, ode_init, teacher_forcing
from dfdbench.distill.nets import Networks
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.distill.stages import grid
from dfdbench.distill.streams import Stream
from dfdbench.generate.arms import Item, student_sampler
from dfdbench.generate.suites.base import Prompt
from dfdbench.models import blocks
from dfdbench.models.blocks import run_blocks
from dfdbench.models.causal import Layout
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.flow import add_noise, student_times, x0_from_v
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import batch_noise, sample_blocks, sample_teacher
from dfdbench.toy.checkpoint import TINY
from dfdbench.utils.errors import UserError

FRAMES, EXITS = 4, 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny Wan whose output is far from zero."""
    return loud_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def family(checkpoint):
    return load_family(checkpoint)


def networks(family, layout=None, **changes):
    """Student (causal with a layout), a fake score that is not the teacher, and the rest."""
    fake_score = family.new_module()
    with torch.no_grad():
        fake_score.proj_out.weight.mul_(0.5)
    nets = Networks(
        family=family,
        student=family.new_causal_module(layout) if layout else family.new_module(),
        fake_score=fake_score,
        negative=Conditioning(torch.full((1, 5, TINY.text_dim), -0.5)),
        cfg=3.0,
        times=student_times(4, 5.0),
    )
    for name, value in changes.items():
        setattr(nets, name, value)
    return nets


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(2, TINY.latent_channels, FRAMES, 4, 4, generator=g)
    return Batch(latents, Conditioning(torch.randn(2, 5, TINY.text_dim, generator=g)))


def recipe(method="dmd2", **sections):
    student = {"input": "self_forcing", "sampler": "sde", "block_frames": 1}
    return recipe_from_dict({"method": method, **{"student": student, **sections}})


def stream(iteration=0, round_=0):
    return Stream(0, iteration, round_, torch.device("cpu"))


def exit_of(iteration):
    return stream(iteration).integer("exit", EXITS)


FIRST_WITH_EXIT = {exit_of(i): i for i in reversed(range(40))}  # exit -> an iteration that draws it


def gradients(loss, module):
    named = dict(module.named_parameters())
    found = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
    return {
        k: torch.zeros_like(p) if g is None else g
        for (k, p), g in zip(named.items(), found, strict=True)
    }


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    largest = max(g.abs().max() for g in theirs.values())
    assert largest > 0
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5 * float(largest), rtol=1e-4)


class Spy:
    """Notes the passes of a network: gradients on or off, time, input, what is kept for a cache."""

    def __init__(self, module):
        self.passes = []
        self.handle = module.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module, args, kwargs):
        called = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        self.passes.append(
            SimpleNamespace(
                gradient=torch.is_grad_enabled(),
                time=float(called["timestep"].max()) / 1000,
                x=called["hidden_states"],
                past=kwargs.get("past"),
                remembers=kwargs.get("kept") is not None,
            )
        )


# --- The rollout


@pytest.mark.parametrize("exit_", range(EXITS))
def test_each_block_steps_without_gradient_to_the_exit_and_is_then_remembered(family, batch, exit_):
    nets = networks(family, Layout(2))
    spy = Spy(nets.student)
    rng = stream(FIRST_WITH_EXIT[exit_])
    generated = dmd2.generate(
        batch,
        nets,
        recipe(student={"input": "self_forcing", "sampler": "sde", "block_frames": 2}),
        rng,
    )
    times = nets.times.tolist()
    steps = [(i == exit_, times[i], False) for i in range(exit_ + 1)]
    expected = [*steps, (False, 0.0, True), *steps]  # nothing follows the last block
    assert [
        (p.gradient, pytest.approx(p.time, abs=1e-6), p.remembers) for p in spy.passes
    ] == expected
    assert generated.time.tolist() == pytest.approx([times[exit_]] * 2)
    remembered = next(p for p in spy.passes if p.remembers)
    assert not remembered.x.requires_grad
    assert torch.equal(remembered.x, generated.x0[:, :, :2]), "the clean block, as it came out"
    past = spy.passes[-1].past
    assert past.start == 2
    assert not any(x.requires_grad for layer in past.layers for pair in layer for x in pair)


def test_the_gradient_of_a_block_goes_through_its_exit_step_alone(family, batch):
    nets = networks(family, Layout(1))
    spy = Spy(nets.student)
    rng = stream(FIRST_WITH_EXIT[2])
    g = dmd2.generate(batch, nets, recipe(), rng).x0
    ours = gradients(g[:, :, 3:].square().mean(), nets.student)
    # The same last step from constants: its input, and a cache of the blocks as they came out.
    last, past, clean = spy.passes[-1], None, g.detach()
    for frame in range(3):
        past = family.causal.remember(
            nets.student, clean[:, :, frame : frame + 1], batch.conditioning, past
        )
    t = torch.full((2,), nets.times[2].item())
    x_t = last.x.detach()
    v = family.causal.predict(nets.student, x_t, t, batch.conditioning, past)
    x0 = x0_from_v(x_t, v, t)
    torch.testing.assert_close(x0, g[:, :, 3:])
    close(ours, gradients(x0.square().mean(), nets.student))


def test_a_seed_gives_the_same_clip_bit_for_bit_and_rounds_share_the_exit_alone(family, batch):
    nets = networks(family, Layout(1))

    def clip(**where):
        with torch.no_grad():
            return dmd2.generate(batch, nets, recipe(), stream(**where))

    first = clip(iteration=1)
    assert torch.equal(first.x0, clip(iteration=1).x0)
    other = clip(iteration=1, round_=1)
    assert not torch.equal(first.x0, other.x0) and torch.equal(first.time, other.time)
    assert len({exit_of(i) for i in range(40)}) == EXITS


def test_blocks_of_another_length_change_none_of_the_noise(family, batch):
    def starts(frames):
        nets = networks(family, Layout(frames))
        spy = Spy(nets.student)
        with torch.no_grad():
            dmd2.generate(batch, nets, recipe(), stream(FIRST_WITH_EXIT[0]))
        return torch.cat([p.x for p in spy.passes if not p.remembers], 2)

    assert torch.equal(starts(1), starts(2)) and torch.equal(starts(2), starts(4))


@pytest.mark.parametrize("exit_", range(EXITS))
@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_the_loss_is_dmd2s_when_the_clip_is_one_block(family, batch, exit_, sampler):
    rng = FIRST_WITH_EXIT[exit_]
    causal, plain = networks(family, Layout(FRAMES)), networks(family)
    rolled = recipe(student={"input": "self_forcing", "sampler": sampler, "block_frames": FRAMES})
    simulated = recipe(student={"input": "backward_simulation", "sampler": sampler})
    ours = dmd2.student_loss(batch, causal, rolled, stream(rng))
    theirs = dmd2.student_loss(batch, plain, simulated, stream(rng))
    torch.testing.assert_close(ours.loss, theirs.loss)
    close(gradients(ours.loss, causal.student), gradients(theirs.loss, plain.student))
    fake, expected = (
        dmd2.fake_score_loss(batch, nets, r, stream(rng))
        for nets, r in ((causal, rolled), (plain, simulated))
    )
    torch.testing.assert_close(fake.loss, expected.loss)


@pytest.mark.parametrize(("method", "frames"), [("dmd2", 1), ("dfd", 3), ("dp_dmd", 1)])
def test_the_log_tells_the_exit_and_the_first_block_from_those_after_it(
    family, batch, monkeypatch, method, frames
):
    nets = networks(family, Layout(frames))
    section = {"dp_dmd": {"dp_dmd": ANCHOR}, "dfd": {"dfd": {"p": 0.0}}}.get(method, {})
    r = recipe(method, student={"input": "self_forcing", "block_frames": frames}, **section)
    steps = []
    gap = matching.gap
    monkeypatch.setattr(matching, "gap", lambda *a, **k: steps.append(gap(*a, **k)) or steps[-1])
    rng = FIRST_WITH_EXIT[1]
    module = {"dmd2": dmd2, "dfd": dfd, "dp_dmd": dp_dmd}[method]
    parts = module.student_loss(batch, nets, r, stream(rng)).parts
    assert parts["exit_time"] == pytest.approx(nets.times[1].item())
    first = Layout(frames).blocks(FRAMES)[0].stop
    squares = steps[0].raw.square()
    torch.testing.assert_close(parts["first_block_direction2"], squares[:, :, :first].mean())
    if first < FRAMES:
        torch.testing.assert_close(parts["later_blocks_direction2"], squares[:, :, first:].mean())
    else:
        assert "later_blocks_direction2" not in parts
    plain = recipe("dmd2", student={"input": "backward_simulation"})
    logged = dmd2.student_loss(batch, networks(family), plain, stream(rng)).parts
    assert set(logged) == {"matching"}, "of a bidirectional student nothing changes"


@pytest.mark.parametrize("mode", ["full", "save_attention"])
def test_recomputed_blocks_of_a_rollout_give_its_gradient(family, batch, mode):
    found = []
    for checkpointing in ("none", mode):
        nets = networks(family, Layout(1, window_frames=2))
        run_blocks(family.blocks(nets.student), checkpointing=checkpointing)
        loss = dmd2.student_loss(batch, nets, recipe(), stream(FIRST_WITH_EXIT[2])).loss
        found.append(gradients(loss, nets.student))
    plain, again = found
    assert all(torch.equal(g, again[name]) for name, g in plain.items())


def test_attention_to_a_cache_is_kept_as_dear_and_to_a_prompt_is_not():
    op = torch.ops.aten._scaled_dot_product_flash_attention.default
    queries = torch.empty(1, 2, 12, 8)
    for keys, policy in ((12, "MUST_SAVE"), (36, "MUST_SAVE"), (5, "PREFER_RECOMPUTE")):
        assert blocks._keep(None, op, queries, torch.empty(1, 2, keys, 8)).name == policy


def test_several_blocks_are_not_the_bidirectional_student(family, batch):
    losses = [
        dmd2.student_loss(batch, networks(family, Layout(n)), recipe(), stream()).loss
        for n in (1, FRAMES)
    ]
    assert (losses[0] - losses[1]).abs() > 1e-6


def test_dfd_on_rollouts_is_dmd_but_for_the_clip_that_the_teacher_sees(family, batch):
    nets = networks(family, Layout(1))

    def at(method, r):
        return gradients(method.student_loss(batch, nets, r, stream()).loss, nets.student)

    dmd = at(dmd2, recipe())
    assert all(torch.equal(g, dmd[k]) for k, g in at(dfd, recipe("dfd", dfd={"p": 0.0})).items())
    real = at(dfd, recipe("dfd", dfd={"p": 1.0}))
    assert any(not torch.equal(g, dmd[k]) for k, g in real.items())
    assert dfd.record(recipe("dfd"), family)["real_and_generated_paired"] is False


def test_in_half_precision_gradients_reach_every_weight_after_the_passes_without(family, batch):
    nets = networks(family, Layout(1), autocast=torch.bfloat16)
    spy = Spy(nets.student)
    report = dmd2.student_loss(batch, nets, recipe(), stream(FIRST_WITH_EXIT[2]))
    assert all(g.abs().max() > 0 for g in gradients(report.loss, nets.student).values())
    held = {x.dtype for layer in spy.passes[-1].past.layers for pair in layer for x in pair}
    assert held == {torch.bfloat16}
    with torch.no_grad():
        half = dmd2.generate(batch, nets, recipe(), stream()).x0
        whole = dmd2.generate(batch, networks(family, Layout(1)), recipe(), stream()).x0
    assert (half - whole).abs().max() < 0.1 * whole.abs().max()


def test_the_average_follows_the_student_until_its_start():
    student, ema = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    r = recipe(optim={"ema": 0.9, "ema_start": 3})
    trainer = SimpleNamespace(recipe=r, student_params=[*student.parameters()])
    Trainer.update_ema(trainer, ema, 2)
    assert torch.equal(ema.weight, student.weight)
    before = ema.weight.clone()
    with torch.no_grad():
        student.weight.add_(1)
    Trainer.update_ema(trainer, ema, 3)
    torch.testing.assert_close(ema.weight, before + 0.1)


# --- First stages


def frame_times(t, blocks):
    """Whether all frames of a block have one time."""
    return all((t[:, b.start : b.stop] == t[:, b.start : b.start + 1]).all() for b in blocks)


def test_teacher_forcing_is_flow_matching_of_blocks_after_clean_ones(family, batch, monkeypatch):
    layout = Layout(1)
    nets, seen = networks(family, layout), {}
    monkeypatch.setattr(
        type(nets), "causal_v",
        lambda self, x_t, t, conditioning, after: seen.update(x_t=x_t, t=t, after=after)
        or family.causal.predict(self.student, x_t, t, conditioning, after),
    )  # fmt: skip
    r = recipe("teacher_forcing", student={"block_frames": 1}, schedule={"student_update_freq": 1})
    report = teacher_forcing.student_loss(batch, nets, r, stream())
    t, x = seen["t"], batch.latents
    assert t.shape == (2, FRAMES) and t.unique().numel() == 2 * FRAMES
    eps = (seen["x_t"] - (1 - t[:, None, :, None, None]) * x) / t[:, None, :, None, None]
    assert (eps.std() - 1).abs() < 0.1 and torch.equal(seen["after"], x)
    past, error = None, []
    for i in range(FRAMES):  # block after block, from a cache of the clean ones
        now = slice(i, i + 1)
        v = family.causal.predict(
            nets.student, seen["x_t"][:, :, now], t[:, i], batch.conditioning, past
        )
        error.append((v - (eps - x)[:, :, now]).square())
        past = family.causal.remember(nets.student, x[:, :, now], batch.conditioning, past)
    torch.testing.assert_close(report.loss, torch.cat(error, 2).mean(), atol=1e-4, rtol=1e-4)
    assert all(g.abs().max() > 0 for g in gradients(report.loss, nets.student).values())


def test_the_blocks_of_a_first_stage_have_times_of_their_own(family, batch, monkeypatch):
    layout = Layout(2)
    seen = []
    nets = networks(family, layout)
    nets.student.register_forward_pre_hook(
        lambda _m, args, kwargs: seen.append((args[1:2] or [kwargs["timestep"]])[0]),
        with_kwargs=True,
    )
    for method, module in (("teacher_forcing", teacher_forcing), ("ode_init", ode_init)):
        r = recipe(method, student={"block_frames": 2}, schedule={"student_update_freq": 1})
        if method == "ode_init":
            r = recipe(method, student={"block_frames": 2}, schedule={"student_update_freq": 1},
                       ode_init={"grid_steps": 4, "grid_shift": 5.0})  # fmt: skip
        differs = []
        for iteration in range(4):
            module.student_loss(batch, nets, r, stream(iteration))
            t = seen.pop()
            assert frame_times(t, layout.blocks(FRAMES))
            differs.append(bool((t[:, 0] != t[:, 2]).any()))
        assert any(differs)


def test_a_trajectory_is_the_guided_teachers_at_the_students_times(family, batch):
    times = torch.cat([torch.tensor([1.0], dtype=torch.float64), student_times(4, 5.0)[1:]])
    nets = networks(family, Layout(1), times=times)
    options = ode_init.Options(grid_steps=8, grid_shift=5.0)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    states = ode_init.trajectory(batch, nets, options, noise)

    def guided(x_t, t):
        return nets.teacher_v(x_t, t, batch.conditioning, 3.0)

    assert len(states) == 5 and torch.equal(states[0], noise)
    for i, state in enumerate(states):  # every second point of the teacher's own grid
        expected, time = sample_teacher(guided, noise, 8, 5.0, stop_after=2 * i)
        assert time == pytest.approx(float(times[i]))
        torch.testing.assert_close(state, expected)


def test_a_trajectory_meets_times_that_are_not_on_the_teachers_grid(family, batch, monkeypatch):
    nets = networks(family, Layout(1))
    x0, eps = torch.randn(2, *batch.latents.shape, generator=torch.Generator().manual_seed(6))
    # On a straight path any grid is exact: x_t = (1 − t) x0 + t ε.
    monkeypatch.setattr(type(nets), "teacher_v", lambda self, x_t, t, conditioning, cfg: eps - x0)
    states = ode_init.trajectory(batch, nets, ode_init.Options(7, 8.0), eps)
    for time, state in zip(nets.times, states, strict=True):
        torch.testing.assert_close(
            state, add_noise(x0, eps, time.float().repeat(2)), atol=1e-5, rtol=1e-5
        )


def test_ode_regression_leads_states_of_random_times_to_the_end(family, batch):
    nets = networks(family, Layout(1))
    r = recipe(
        "ode_init", student={"block_frames": 1}, schedule={"student_update_freq": 1},
        ode_init={"grid_steps": 4, "grid_shift": 5.0},
    )  # fmt: skip
    ours = ode_init.student_loss(batch, nets, r, stream())
    noise = stream().normal("start", batch.latents)
    states = ode_init.trajectory(batch, nets, r.options, noise)
    index = stream().integers("block_time", 4, 2 * FRAMES).view(2, FRAMES)
    assert index.unique().numel() > 1
    x_t = torch.empty_like(noise)
    for i in range(2):
        for frame in range(FRAMES):
            x_t[i, :, frame] = states[index[i, frame], i, :, frame]
    t = nets.times.float()[index]
    v = family.predict(nets.student, x_t, t, batch.conditioning)
    x0 = x_t - t.view(2, 1, FRAMES, 1, 1) * v
    loss = (x0 - states[-1]).square().mean()
    torch.testing.assert_close(ours.loss, loss)
    close(gradients(ours.loss, nets.student), gradients(loss, nets.student))


def test_blocks_at_the_trajectorys_end_are_context_without_a_loss(family, batch, monkeypatch):
    nets, seen = networks(family, Layout(1)), []
    student = type(nets).student_v
    monkeypatch.setattr(
        type(nets), "student_v",
        lambda self, x_t, t, c: seen.append((x_t, t)) or student(self, x_t, t, c),
    )  # fmt: skip
    r = recipe(
        "ode_init", student={"block_frames": 1}, schedule={"student_update_freq": 1},
        ode_init={"grid_steps": 4, "grid_shift": 5.0, "clean_blocks": True},
    )  # fmt: skip
    shown = [stream(i).integers("block_time", EXITS + 1, 2 * FRAMES) for i in range(40)]
    drawn = next(i for i, index in enumerate(shown) if 1 < (index == EXITS).sum() < FRAMES)
    report = ode_init.student_loss(batch, nets, r, stream(drawn))
    (x_t, t), noise = seen[0], stream(drawn).normal("start", batch.latents)
    end = ode_init.trajectory(batch, nets, r.options, noise)[-1]
    clean = t == 0
    assert 1 < clean.sum() < FRAMES
    assert torch.equal(x_t.transpose(1, 2)[clean], end.transpose(1, 2)[clean])
    x0 = x0_from_v(x_t, family.predict(nets.student, x_t, t, batch.conditioning), t)
    loss = (x0 - end).square().transpose(1, 2)[~clean].mean()
    torch.testing.assert_close(report.loss, loss)
    assert torch.equal(t.flatten(), nets.times.float()[shown[drawn]])
    assert ode_init.record(r, family)["clean_blocks"] is True


def test_a_loss_of_clean_blocks_alone_is_zero_and_not_nan(family, batch, monkeypatch):
    nets = networks(family, Layout(FRAMES))
    r = recipe(
        "ode_init", student={"block_frames": FRAMES}, schedule={"student_update_freq": 1},
        ode_init={"grid_steps": 4, "grid_shift": 5.0, "clean_blocks": True},
    )  # fmt: skip
    monkeypatch.setattr(Stream, "integers", lambda self, _, high, count: torch.full((count,), 4))
    loss = ode_init.student_loss(batch, nets, r, stream()).loss
    assert loss == 0 and not any(g.any() for g in gradients(loss, nets.student).values())


@pytest.mark.parametrize("module", [teacher_forcing, ode_init])
def test_a_first_stage_refuses_a_bidirectional_student(family, module):
    name = module.__name__.rpartition(".")[2]
    r = recipe_from_dict({"method": name, "schedule": {"student_update_freq": 1}})
    with pytest.raises(UserError, match=r"trains a causal student; set student\.block_frames"):
        module.record(r, family)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"method": "ode_init"}, "ode_init has no fake score to update; make it 1"),
        (
            {"method": "dmd2", "schedule": {"student_update_freq": 1}},
            "make it 2: correct it",
        ),
        ({"method": "dmd2", "student": {"input": "self_forcing"}}, "block_frames, say 3"),
        ({"method": "dmd2", "student": {"sink_frames": 1}}, "need a causal student"),
        (
            {"method": "dmd2", "student": {"block_frames": 3, "window_frames": 2}},
            "set window_frames to 3 or more",
        ),
        ({"method": "dmd2", "student": {"block_frames": 3}}, "learns from its rollouts"),
    ],
)
def test_what_does_not_fit_together_is_one_line(table, words):
    with pytest.raises(UserError, match=words) as caught:
        recipe_from_dict(table)
    assert "\n" not in str(caught.value)


def test_bidirectional_recipes_keep_their_digests():
    plain = {"method": "dmd2"}
    same = {"method": "dmd2", "student": {"block_frames": 0}, "optim": {"ema_start": 0}}
    causal = {"method": "dmd2", "student": {"block_frames": 3, "input": "self_forcing"}}
    digests = [recipe_from_dict(table).digest() for table in (plain, same, causal)]
    assert digests[0] == digests[1] != digests[2]


# --- The chain of stages

SMALL = [
    "data.count=8", "optim.batch=2", "schedule.student_updates=2", "log.every=1",
    "log.probe_every=1", "log.decode_every=0", "optim.lr=1e-3", "optim.fake_lr=1e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def chain(checkpoint, tmp_path_factory):
    """Runs of ODE initialisation, Self Forcing with DMD, and DFD and its control from that."""
    folder = tmp_path_factory.mktemp("runs")
    small = [f"model={checkpoint}", *SMALL]
    start = distill(
        load_recipe("toy-ar/ode_init", [*small, "ode_init.grid_steps=4"]), folder / "ode"
    )
    runs = {"ode_init": start}
    for name, before in (("dmd", "ode_init"), ("dfd", "dmd"), ("dmd_control", "dmd")):
        r = load_recipe(f"toy-ar/{name}", [*small, "schedule.student_update_freq=2"])
        runs[name] = distill(r, folder / name, init=runs[before].path)
    return small, runs


def test_every_stage_leaves_a_causal_student_and_a_bidirectional_fake_score(chain, family):
    for run in chain[1].values():
        student = json.loads((run.student / "transformer" / "config.json").read_text())
        assert (student["_class_name"], student["block_frames"]) == (
            "CausalWanTransformer3DModel",
            1,
        )
        fake = json.loads((run.fake_score / "config.json").read_text())
        assert fake["_class_name"] == "WanTransformer3DModel"
        assert run.info["fairness"]["causal_student"]["block_frames"] == 1
    start = chain[1]["ode_init"]
    assert (start.info["fake_updates"], start.info["iterations_total"]) == (0, 2)
    untouched, teacher = family.load_network(start.fake_score), family.teacher.state_dict()
    assert all(torch.equal(p, teacher[name]) for name, p in untouched.state_dict().items())
    moved = family.load_student(start.student).state_dict()
    assert any(not torch.equal(p, teacher[name]) for name, p in moved.items())


def test_a_later_stage_starts_from_the_student_before_it(chain, family):
    runs = chain[1]
    assert runs["dmd"].info["parent"]["id"] == runs["ode_init"].info["id"]
    assert runs["dfd"].info["parent"] == runs["dmd_control"].info["parent"]
    lines = [json.loads(line) for line in runs["dmd"].metrics_file.read_text().splitlines()]
    updates = [line for line in lines if line["kind"] == "update"]
    assert len(updates) == 2 and all(line["critic_fake_score"] > 0 for line in updates)


def test_training_again_gives_the_same_weights_and_a_resume_too(chain, tmp_path):
    small, runs = chain
    again = load_recipe(
        "toy-ar/dmd", [*small, "schedule.student_update_freq=2", "checkpoint.every_updates=1"]
    )
    calls = []

    class Stop(Exception):
        pass

    original = Trainer.cycle

    def interrupted(self, update):
        calls.append(update)
        if len(calls) == 2:
            raise Stop
        original(self, update)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "cycle", interrupted)
        with pytest.raises(Stop):
            distill(again, tmp_path / "run", init=runs["ode_init"].path)
    run = distill(again, tmp_path / "run", resume=True, init=runs["ode_init"].path)
    assert run.info["student_sha256"] == runs["dmd"].info["student_sha256"]
    assert run.info["critic_sha256"] == runs["dmd"].info["critic_sha256"]


def test_generation_takes_a_causal_student_block_by_block(chain, family):
    run = chain[1]["dmd"]
    items = [Item(Prompt(id="one", text="a red ball"), 3), Item(Prompt(id="two", text="a bar"), 4)]
    ours = student_sampler(run, family, compiled=False).prepare(items)(items)
    student, shape = family.load_student(run.student).eval(), ours.shape[1:]
    conditioning = family.encode_prompt(["a red ball", "a bar"])
    noise = [batch_noise(["one", "two"], [3, 4], shape, step) for step in range(5)]
    with torch.no_grad():
        blocks = sample_blocks(
            family, student, conditioning, noise[0], grid(load_recipe("toy-ar/dmd")), "sde",
            lambda step: noise[step],
        )  # fmt: skip
        assert torch.equal(ours, torch.cat([*blocks], 2))


ANCHOR = {"anchor_step": 2, "grid_steps": 6, "grid_shift": 5.0}


def dp_dmd_recipe(frames):
    student = {"input": "self_forcing", "sampler": "ode", "block_frames": frames}
    return recipe("dp_dmd", student=student, dp_dmd=ANCHOR)


def test_dp_dmd_of_one_block_is_that_of_a_bidirectional_student(family, batch):
    causal, plain = networks(family, Layout(FRAMES)), networks(family)
    ours = dp_dmd.student_loss(batch, causal, dp_dmd_recipe(FRAMES), stream())
    other = recipe("dp_dmd", student={}, dp_dmd=ANCHOR)
    theirs = dp_dmd.student_loss(batch, plain, other, stream())
    torch.testing.assert_close(ours.loss, theirs.loss)
    close(gradients(ours.loss, causal.student), gradients(theirs.loss, plain.student))


def test_dp_dmd_anchors_the_first_block_alone_and_rolls_the_others_out(family, batch):
    nets, r = networks(family, Layout(1)), dp_dmd_recipe(1)
    spy = Spy(nets.student)
    noise, first_v, generated = dp_dmd.rollout(batch, nets, r, stream())
    assert torch.equal(noise, stream().normal("start", batch.latents))
    assert first_v.shape[2] == 1 and generated.x0.shape == batch.latents.shape
    steps = [p for p in spy.passes if not p.remembers]
    assert [p.gradient for p in steps[:EXITS]] == [True] * EXITS, "all of the first block"
    assert sum(p.gradient for p in steps[EXITS:]) == FRAMES - 1, "the exit step of each other one"
    assert all(p.past.start == 0 for p in steps[:EXITS]) and steps[-1].past.start == FRAMES - 1
    report = dp_dmd.student_loss(batch, nets, r, stream())
    anchor = dp_dmd.anchor_velocity(batch, nets, r, noise)
    expected = (first_v - anchor[:, :, :1]).square().mean()
    torch.testing.assert_close(report.parts["diversity"], expected.detach())


def test_a_run_with_other_blocks_is_refused_as_a_start(chain, tmp_path):
    small, runs = chain
    r = load_recipe("toy-ar/dmd", [*small, "student.block_frames=2"])
    with pytest.raises(UserError, match=r"with student.block_frames = 1, this recipe has 2"):
        distill(r, tmp_path / "run", init=runs["ode_init"].path)


@pytest.mark.parametrize("folder", ["toy-ar", "wan-self-forcing"])
def test_the_recipes_are_one_chain_that_agrees(folder):
    first, dmd = load_recipe(f"{folder}/ode_init"), load_recipe(f"{folder}/dmd")
    assert dmd.init.recipe == f"{folder}/ode_init"
    after = [load_recipe(f"{folder}/{name}") for name in ("dfd", "dmd_control")]
    assert [(r.method, r.init.recipe) for r in after] == [
        ("dfd", f"{folder}/dmd"), ("dmd2", f"{folder}/dmd"),
    ]  # fmt: skip
    assert after[0].options.p == 0.5
    assert {str(r.schedule) + str(r.optim) for r in after} == {
        str(after[0].schedule) + str(after[0].optim)
    }
    for r in (first, dmd, *after):
        assert r.student.layout == first.student.layout and torch.equal(grid(r), grid(dmd))
    assert all(
        r.student.input == "self_forcing" and r.student.sampler == "sde" for r in (dmd, *after)
    )


def test_the_recipes_for_wan_have_the_published_values():
    """Self Forcing's and DFD's released configs: iterations count the fake score's updates."""
    r = load_recipe("wan-self-forcing/dmd")
    o, s = r.optim, r.schedule
    assert (o.lr, o.fake_lr, o.betas, o.batch, o.clip) == (2e-6, 4e-7, (0.0, 0.999), 64, 10.0)
    assert (o.ema, (o.ema_start - 1) * 5) == (0.99, 200), "averaged from iteration 200 on"
    assert (s.shift, s.t_low, s.t_high, s.student_update_freq - 1) == (5.0, 0.02, 0.98, 5)
    assert (r.student.layout, r.teacher.cfg, r.fake_score.loss) == (Layout(3), 4.0, "flow")
    assert s.student_updates * 5 == 1200
    assert load_recipe("wan-self-forcing/dfd").schedule.student_updates == 32
    ode = load_recipe("wan-self-forcing/ode_init")
    options = ode.options
    assert (options.grid_steps, options.grid_shift, ode.teacher.cfg) == (48, 8.0, 6.0)
    assert options.clean_blocks and (ode.optim.lr, ode.optim.betas) == (2e-6, (0.9, 0.999))
    assert ode.schedule.student_updates == 3000
