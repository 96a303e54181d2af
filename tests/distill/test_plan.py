"""The plan against what networks and methods really do: counted on the CPU, on the tiny models."""

import dataclasses
import json
from math import prod

import pytest
import torch
from diffusers import CosmosTransformer3DModel, WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill import methods
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.methods import get_method
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.plan import (
    GIB,
    Gpu,
    advice,
    choose_gpu,
    fake_cuda,
    flops,
    make_plan,
    setup_for,
    text,
)
from dfdbench.distill.plan.headline import headline, whole
from dfdbench.distill.plan.measure import Live
from dfdbench.distill.plan.memory import lines
from dfdbench.distill.plan.recording import every_outcome
from dfdbench.distill.plan.trace import Shape, trace
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.distill.sections import MethodOptions
from dfdbench.distill.stages import grid
from dfdbench.distill.statistics import new_statistics
from dfdbench.distill.streams import Stream
from dfdbench.models.published_configs import published_config
from dfdbench.models.random_init import random_init_family
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
from dfdbench.utils.errors import UserError

CLASSES = {
    "wan2.1-t2v-1.3b": (WanTransformer3DModel, 1_418_996_800),
    "cosmos-predict2.5-2b": (CosmosTransformer3DModel, 2_059_174_912),
}
H100 = Gpu("h100", 79, 989)


@pytest.fixture(scope="module")
def tiny_i2v(tmp_path_factory):
    return write_checkpoint_i2v(tmp_path_factory.mktemp("model") / "i2v", TINY_I2V, seed=0)


def tiny_recipe(model, method="dmd2", **sections):
    shape = {"frames": 9, "height": 32, "width": 32}
    return recipe_from_dict({"method": method, "model": str(model), "data": shape, **sections})


def shape_of(model) -> Shape:
    return setup_for(tiny_recipe(model))[1].shape


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_those_of_the_real_network(name):
    cls, known = CLASSES[name]
    with torch.device("meta"):
        network = cls.from_config(published_config(name)["transformer"])
    small = Shape(
        (16, 2, 4, 4), (8, published_config(name)["text"]["width"]), int("cosmos" in name)
    )
    found = trace(name, small, False, True)
    assert found.parameters == sum(p.numel() for p in network.parameters()) == known
    assert found.blocks * found.block_parameters < known < 2 * found.parameter_bytes


def saved_bytes(model, shape, clips) -> int:
    """Distinct storages that autograd saves in a pass on a GPU, cast weights among them."""
    found = {}

    def pack(tensor):
        found[tensor.untyped_storage()._cdata] = tensor
        return tensor

    gpu = fake_cuda.DEVICE
    with (
        fake_cuda.fake_gpu(),
        random_init_family(str(model), torch.bfloat16, gpu) as family,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cuda", torch.bfloat16),
    ):
        batch = shape.batch(clips, gpu)
        t = torch.full((clips,), 0.5, device=gpu)
        module = family._load_part(family.network, family.path / "transformer", torch.float32)
        family.keep_precise(family.adapt(module))
        family.predict(module, batch.latents, t, batch.conditioning).sum()
        weights = {p.untyped_storage()._cdata for p in module.parameters()}
        kept = (tensor for key, tensor in found.items() if key not in weights)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept)


def test_kept_bytes_are_what_autograd_saves_for_one_clip(tiny_checkpoint, tiny_i2v):
    for folder in (tiny_checkpoint, tiny_i2v):
        shape = shape_of(folder)
        two, three = (saved_bytes(folder, shape, clips) for clips in (2, 3))
        whole = trace(str(folder), shape, True, False).whole
        # Cast weights, and what else does not grow with the batch, such as cosines of positions.
        alone = two - 2 * (three - two)
        assert whole.copies < alone
        assert whole.kept == pytest.approx(three - two + alone - whole.copies, rel=0.01)


def test_live_bytes_are_the_most_held_at_a_time():
    with Live() as live:
        a = torch.ones(1000)  # 4000 bytes
        b = a * 2
        del a
        (b + 1).add_(1).view(10, 100)
    assert live.peak == 8000


GAN = {"gan_weight": 0.03}
CASES = {
    "dmd2": ("dmd2", {}),
    "no guidance": ("dmd2", {"teacher": {"cfg": 1.0}}),
    "sequential guidance": ("dmd2", {"teacher": {"guidance_passes": "sequential"}}),
    "gan of the fake score": ("dmd2", {"dmd2": GAN | {"r1_weight": 100.0}}),
    "gan of the teacher": ("dmd2", {"dmd2": GAN | {"gan_features": "teacher", "blocks": [0]}}),
    "dfd on real": ("dfd", {"dfd": {"p": 1.0, "cfg_dfd": 1.0}}),
    "dfd mixed": ("dfd", {"dfd": {"w": 0.5}}),
    "dfd above a level": ("dfd", {"dfd": {"p": 1.0, "t_min": 0.4, "cfg_dfd": 1.0}}),
    "dp_dmd": ("dp_dmd", {"dp_dmd": {"anchor_step": 3}}),
    "decoupled": ("decoupled_dmd", {}),
    "decoupled matching": ("decoupled_dmd", {"decoupled_dmd": {"parts": "matching"}}),
    "consistency": ("dcm_dmd", {"dcm_dmd": {"rollout": "input"}}),
    "avd": ("avd", {}),
    "f-distill": ("f_distill", {"gan": {"weight": 0.1, "features": "teacher"}}),
    "sid": ("sid", {}),
    "sid sequential": ("sid", {"teacher": {"guidance_passes": "sequential"}}),
    "adversarial": (
        "adversarial",
        {"gan": {"weight": 1.0, "features": "teacher", "r1_weight": 1.0}},
    ),
    "dp_dmd last": ("dp_dmd", {"dp_dmd": {"anchor_step": 1, "gradient_steps": "last"}}),
}


def networks(recipe, setup, family) -> Networks:
    heads = None
    if setup.taps:
        heads = Heads(len(setup.taps), family.feature_width(family.teacher))
    return Networks(
        family=family, student=family.new_module(), fake_score=family.new_module(), heads=heads,
        negative=setup.shape.batch(1).conditioning, cfg=recipe.teacher.cfg, times=grid(recipe),
        guidance_passes=recipe.teacher.guidance_passes, blocks=setup.taps,
        gan_teacher=recipe.gan.features == "teacher",
    )  # fmt: skip


def counted(recipe, setup, family, student, rng) -> int:
    """FLOPs of one real step of the method, forward and backward."""
    nets, method = networks(recipe, setup, family), get_method(recipe.method)
    nets.statistics = new_statistics(method, recipe, torch.device("cpu"))
    nets.train_only(*((nets.student,) if student else (nets.fake_score, nets.heads)))
    loss = method.student_loss if student else method.fake_score_loss
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(setup.shape.batch(1), nets, recipe, rng).loss.backward()
    return counter.get_total_flops()


def spare(setup, student) -> float:
    """FLOPs of gradients that fused attention makes and nobody takes: those of a frozen network's
    keys and values of the text, 4 L L' D for each block."""
    n = setup.trained
    tokens = prod(setup.shape.latents[1:]) // 4
    blocks = {"input": n.blocks, "features_input": max(setup.taps, default=0) + 1}
    frozen = (p for p in setup.passes(student) if p.gradient in blocks)
    each = 4 * tokens * setup.shape.text[0] * n.width
    return sum(p.count * blocks[p.gradient] * each for p in frozen)


@pytest.mark.parametrize("name", CASES)
def test_flops_of_a_step_are_those_of_the_method_itself(name, tiny_checkpoint):
    method, sections = CASES[name]
    recipe, setup = setup_for(tiny_recipe(tiny_checkpoint, method, **sections))
    family, rng = load_family(tiny_checkpoint), Stream(0, 0, 0, torch.device("cpu"))
    for student in (True, False):
        real = counted(recipe, setup, family, student, rng) + spare(setup, student)
        assert flops(setup, student)[0] == pytest.approx(real, rel=0.01)


def test_flops_of_image_to_video_count_the_given_frame_as_the_network_does(tiny_i2v):
    recipe, setup = setup_for(tiny_recipe(tiny_i2v, dmd2=GAN))
    family, rng = load_family(tiny_i2v), Stream(0, 0, 0, torch.device("cpu"))
    for student in (True, False):
        real = counted(recipe, setup, family, student, rng) + spare(setup, student)
        assert flops(setup, student)[0] == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize(
    ("method", "sections", "draw"),
    [
        ("dmd2", {"student": {"input": "backward_simulation"}}, 4),
        ("dp_dmd", {"dp_dmd": {"anchor_step": 1, "gradient_steps": "random"}}, 3),
    ],
)
def test_flops_are_means_over_random_exits(method, sections, draw, tiny_checkpoint, monkeypatch):
    recipe, setup = setup_for(tiny_recipe(tiny_checkpoint, method, **sections))
    family, rng = load_family(tiny_checkpoint), Stream(0, 0, 0, torch.device("cpu"))
    for student in (True, False):
        found = []
        for exit_ in range(draw):
            monkeypatch.setattr(rng, "integer", lambda name, high, exit_=exit_: exit_)
            found.append(counted(recipe, setup, family, student, rng))
        real = sum(found) / draw + spare(setup, student)
        assert flops(setup, student)[0] == pytest.approx(real, rel=0.01)


COUNTS = {  # (network, gradient, clips together): count, of a student step and of the fake score's
    "toy/dfd": (
        {("student", "weights", 1): 1, ("fake_score", "none", 1): 1, ("teacher", "none", 2): 2},
        {("student", "none", 1): 1, ("fake_score", "weights", 1): 1},
    ),
    "toy-i2v/dp_dmd": (
        {("student", "weights", 1): 4, ("fake_score", "none", 1): 1, ("teacher", "none", 2): 12},
        {("student", "none", 1): 4, ("fake_score", "weights", 1): 1},
    ),
    "cosmos-predict2.5-2b/dp_dmd": (
        {("student", "weights", 1): 4, ("fake_score", "none", 1): 1, ("teacher", "none", 2): 4},
        {("student", "none", 1): 4, ("fake_score", "weights", 1): 1},
    ),
    "wan2.1-t2v-1.3b/dmd2": (
        {
            ("student", "weights", 1): 1,
            ("fake_score", "none", 1): 1,
            ("teacher", "features_input", 1): 1,  # gives the branch with the prompt as well
            ("teacher", "none", 1): 1,
        },
        {("student", "none", 1): 1, ("fake_score", "weights", 1): 1, ("teacher", "none", 1): 2},
    ),
}


def counts(passes) -> dict:
    return {(p.network, p.gradient, p.together): p.count for p in passes}


@pytest.mark.parametrize("name", COUNTS)
def test_a_shipped_recipe_s_passes_are_those_that_its_method_runs(name):
    _, setup = setup_for(load_recipe(name))
    assert tuple(counts(setup.passes(student)) for student in (True, False)) == COUNTS[name]


def test_the_numbers_of_a_shipped_recipe_stay_as_they_were_when_passes_were_a_table():
    """But for one pass of the teacher, which the pass for the GAN's features makes needless."""
    plan = make_plan(load_recipe("wan2.1-t2v-1.3b/dmd2"), 1, H100, 0.4)
    forward = 283001787777024
    assert plan["flops"] == {
        "forward_pass_of_one_clip": forward,
        "student_step": 3.943720896410419e16 - 16 * forward,
        "fake_score_step": 2.717167784185037e16,
        "student_update": 1.4812392033150566e17 - 16 * forward,
        "recomputed_in_student_update": 2.716608132808704e16,
    }
    assert plan["memory_bytes"]["total"] == 52840828804 and plan["parameters"]["heads"] > 0


def test_every_outcome_of_a_steps_choices_has_its_probability():
    def run(rng):
        stop = rng.integer("exit", 3)
        real = rng.bernoulli("real", 0.25) if stop else None
        return stop, real, rng.integer("exit", 3), rng.bernoulli("never", 0.0)

    outcomes = {result: float(p) for p, result in every_outcome(run)}
    third = pytest.approx(1 / 3)
    assert outcomes[(0, None, 0, False)] == third
    for stop in (1, 2):
        assert outcomes[(stop, True, stop, False)] == pytest.approx(1 / 12)
        assert outcomes[(stop, False, stop, False)] == pytest.approx(1 / 4)
    assert len(outcomes) == 5 and sum(p for p, _ in every_outcome(run)) == 1


class OwnMethod:
    """Regresses the student onto the teacher, in a third of the updates twice as often."""

    Options = MethodOptions

    def uses_gan(self, recipe):
        return False

    def record(self, recipe, family):
        return {}

    def student_loss(self, batch, nets, recipe, rng):
        x = batch.latents
        t = torch.full((len(x),), 0.5, device=x.device)
        ours = nets.student_v(x, t, batch.conditioning)
        nets.student_v(x, t, batch.conditioning)  # the loss does not depend on it
        if rng.integer("often", 3) == 0:
            x = x + ours
        theirs = nets.family.predict(nets.family.teacher, x, t, batch.conditioning)
        nets.teacher_v(x, t, batch.conditioning, nets.cfg)
        return LossReport(((ours - theirs) ** 2).mean(), {}, {})

    def fake_score_loss(self, batch, nets, recipe, rng):
        t = torch.full((len(batch.latents),), 0.5, device=batch.latents.device)
        v = nets.fake_score_v(batch.latents, t, batch.conditioning)
        return LossReport((v**2).mean(), {}, {})


def test_a_method_of_ones_own_is_planned_by_what_it_runs(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(methods._registered, "own", OwnMethod())
    recipe, setup = setup_for(tiny_recipe(tiny_checkpoint, "own"))
    assert counts(setup.passes(True)) == {
        ("student", "weights", 1): 1,
        ("student", "none", 1): 1,
        ("teacher", "input", 1): pytest.approx(1 / 3),
        ("teacher", "none", 1): pytest.approx(2 / 3),
        ("teacher", "none", 2): 2,
    }
    assert counts(setup.passes(False)) == {("fake_score", "weights", 1): 1}
    plan = make_plan(recipe, 1, H100, 0.4)
    forward = plan["flops"]["forward_pass_of_one_clip"]
    assert plan["method"] == "own" and plan["flops"]["student_step"] > 7 * forward
    assert "0.33 x teacher    gradient to input" in text(plan)


def test_wans_flops_follow_from_its_sizes():
    """2 a multiply-add: every weight of a block meets every token, but for keys and values of the
    text; attention is 4 L² D and 4 L L' D."""
    shape = Shape((16, 21, 60, 104), (512, 4096))
    found = trace("wan2.1-t2v-1.3b", shape, False, True)
    tokens, width, text_tokens = 21 * 30 * 52, 1536, 512
    matrices = 6 * width**2 + 2 * width * 8960
    linear = 2 * tokens * matrices + 2 * text_tokens * 2 * width**2
    assert found.tokens == tokens
    assert found.block.forward == linear + 4 * tokens * width * (tokens + text_tokens)


def test_memory_is_the_sum_of_its_lines_and_the_states_are_exact(tiny_checkpoint):
    _, setup = setup_for(tiny_recipe(tiny_checkpoint, optim={"ema": 0.9}))
    count = sum(p.numel() for p in load_family(tiny_checkpoint).new_module().parameters())
    found = lines(setup)
    assert found["AdamW (float32, twice)"] == 2 * 2 * 4 * count
    assert found["gradients of one network (float32)"] == 4 * count
    assert found["average of the student (float32)"] == 4 * count
    plan = make_plan(setup.recipe, 1, H100, 0.4)
    assert plan["memory_bytes"] == {**found, "total": sum(found.values())}


def test_eight_gpus_hold_an_eighth_of_the_states_and_take_an_eighth_of_the_time():
    recipe = load_recipe("wan2.1-t2v-1.3b/dmd2")
    one, eight = (make_plan(recipe, gpus, H100, 0.4) for gpus in (1, 8))
    states = "AdamW (float32, twice)"
    assert eight["memory_bytes"][states] == one["memory_bytes"][states] // 8
    assert eight["hours"] == pytest.approx(one["hours"] / 8)
    assert one["fits"] and one["memory_bytes"]["total"] < 60 * GIB
    update = one["flops"]["student_update"]
    assert one["seconds_a_student_update"] == pytest.approx(update / (0.4 * 989e12))
    assert one["samples_a_second"] == pytest.approx(16 * 5 / one["seconds_a_student_update"])


def test_what_does_not_fit_is_mended_in_order():
    changes = ["optim.gradient_checkpointing=false", "optim.accumulate=4"]
    _, setup = setup_for(load_recipe("wan2.1-t2v-1.3b/dmd2", changes))
    small = dataclasses.replace(H100, memory=30)
    said = [line.split(":")[0] for line in advice(setup, small)]
    assert said[:3] == [
        "--set optim.checkpointing=full",
        "--set optim.accumulate=16",
        "2 GPUs (torchrun --nproc-per-node 2)",
    ]
    totals = [float(line.split(":")[1].split()[0]) for line in advice(setup, small)]
    assert totals == sorted(totals, reverse=True) and totals[-1] <= 30
    assert "none of these" in advice(setup, dataclasses.replace(H100, memory=1))[-1]


def test_a_second_stage_plans_the_first_too():
    plan = make_plan(load_recipe("wan2.1-t2v-1.3b/dfd"), 8, H100, 0.4)
    assert plan["first_stage"]["student_updates"] == 5000
    assert "before it, unless --init" in text(plan)
    assert make_plan(load_recipe("wan2.1-t2v-1.3b/dfd"), 8, H100, 0.4, False)["first_stage"] is None


def test_a_plan_begins_with_hours_memory_and_cost_of_all_its_stages():
    plan = make_plan(load_recipe("wan2.1-t2v-1.3b/dfd"), 8, H100, 0.4)
    first = plan["first_stage"]
    all_of_it = whole(plan, 3.0)
    assert all_of_it["hours"] == pytest.approx(plan["hours"] + first["hours"])
    assert all_of_it["cost"] == pytest.approx(3 * 8 * all_of_it["hours"])
    assert all_of_it["memory_bytes"] == first["memory_bytes"]["total"]  # the larger of the two
    hours, memory, cost = headline(plan, 3.0).splitlines()
    assert hours.startswith(f"hours:  {all_of_it['hours']:.1f} on 8 h100 (")
    assert f"{first['hours']:.1f} for its first stage dmd2; at 40% of the peak" in hours
    assert memory.endswith("of 79 GiB a GPU (fits)")
    assert cost == f"cost:   {all_of_it['cost']:,.2f}, at 3 an hour for each GPU"
    assert whole(plan)["cost"] is None and "--price" in headline(plan).splitlines()[2]
    alone = make_plan(load_recipe("wan2.1-t2v-1.3b/dfd"), 8, H100, 0.4, False)
    assert whole(alone)["hours"] == plan["hours"] and "stage" not in headline(alone)
    broken = plan | {"first_stage": first | {"fits": False}}
    assert "does not fit" in headline(broken).splitlines()[1]


def test_the_command_prints_json_and_says_what_is_wrong():
    runner = CliRunner()
    done = runner.invoke(app, ["plan", "--method", "dfd", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["method"] == "dfd"
    done = runner.invoke(app, ["plan", "--method", "dfd", "--price", "2.5"])
    assert [line.split(":")[0] for line in done.stdout.splitlines()[:3]] == [
        "hours",
        "memory",
        "cost",
    ]
    assert (
        "at 2.5 an hour" in done.stdout
        and runner.invoke(app, ["plan", "--price", "-1"]).exit_code == 2
    )
    for arguments, says in [
        (["--gpu", "h10"], "did you mean h100"),
        (["--gpu-memory", "80"], "--gpu-memory and --tflops belong together"),
        (["--gpus", "4"], "--set optim.accumulate=4"),
        (["--gpus", "3"], "divides optim.batch = 8"),
        (["--model", "someone/model"], "unknown model without its weights"),
    ]:
        failed = runner.invoke(app, ["plan", "--method", "dfd", *arguments])
        assert failed.exit_code == 2 and says in failed.output


def test_a_gpu_of_ones_own_needs_both_numbers():
    assert choose_gpu("h100", 48, 100) == Gpu("own", 48, 100)
    with pytest.raises(UserError, match="belong together"):
        choose_gpu("h100", None, 100)


def test_kept_attention_is_planned_as_larger_inputs_and_less_work_done_again():
    """Wan's self-attention: 4 L² D forward, and for each block L x D numbers of bfloat16 and a
    float32 one for each head and token, which its backward pass takes."""
    tokens, width, heads, blocks = 21 * 30 * 52, 1536, 12, 30
    found = {}
    for policy in ("full", "save_attention"):
        recipe = recipe_from_dict(
            {
                "method": "dmd2",
                "model": "wan2.1-t2v-1.3b",
                "optim": {"batch": 1, "checkpointing": policy},
            }
        )
        _, setup = setup_for(recipe)
        trained = next(p for p in setup.passes(True) if p.gradient == "weights")
        found[policy] = setup.held(trained).kept, setup.recomputed(trained)
    (full, again), (more, less) = found["full"], found["save_attention"]
    assert more - full == pytest.approx(blocks * tokens * (width * 2 + heads * 4), rel=1e-6)
    assert again - less == blocks * 4 * tokens**2 * width


def test_moments_in_8_bits_are_planned_as_a_quarter(tiny_checkpoint):
    sizes = {}
    for kind in ("adamw", "adamw8bit"):
        _, setup = setup_for(tiny_recipe(tiny_checkpoint, optim={"optimiser": kind}))
        sizes[kind] = next(size for name, size in lines(setup).items() if "AdamW" in name)
    assert sizes["adamw8bit"] / sizes["adamw"] == pytest.approx((1 + 4 / 256) / 4, rel=1e-4)


@pytest.mark.parametrize(
    ("optim", "share"),
    [
        ({}, 0.25), ({"attention": "flash"}, 0.25), ({"compile": True}, 0.25),
        ({"attention": "cudnn"}, 0.31), ({"attention": "cudnn", "compile": True}, 0.38),
        ({"attention": "fa3", "compile": "default"}, 0.38),
    ],
)  # fmt: skip
def test_without_a_share_of_the_peak_the_plan_takes_one_by_kernel_and_says_so(
    tiny_checkpoint, optim, share
):
    plan = make_plan(tiny_recipe(tiny_checkpoint, optim=optim), 1, H100)
    assert plan["mfu"] == share and plan["mfu_is_an_estimate"]
    assert f"at {share:.0%} (an estimate, not measured; --mfu sets it) of 1 x" in text(plan)
    told = make_plan(tiny_recipe(tiny_checkpoint, optim=optim), 1, H100, 0.5)
    assert told["mfu"] == 0.5 and "estimate" not in text(told)
