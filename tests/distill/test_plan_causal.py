"""Plans of causal students: what their steps run, what a cache takes, and how they stream."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dfdbench.distill.methods import get_method
from dfdbench.distill.nets import Networks
from dfdbench.distill.plan import Gpu, flops, make_plan, setup_for, text
from dfdbench.distill.plan.memory import lines, sequence_bytes
from dfdbench.distill.plan.pieces import Piece
from dfdbench.distill.plan.recording import Freed, Passes
from dfdbench.distill.plan.streaming import streaming
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.distill.stages import grid
from dfdbench.distill.streams import Stream
from dfdbench.models.causal import Layout
from dfdbench.models.registry import load_family
from dfdbench.toy.checkpoint import TINY
from dfdbench.utils.errors import UserError

H100 = Gpu("h100", 79, 989)
FIRST = ("ode_init", "teacher_forcing")  # without a fake score
CASES = {
    "self forcing": ("dmd2", {}),
    "window": ("dmd2", {"window_frames": 4, "sink_frames": 1}),
    "dfd": ("dfd", {}),
    "dp_dmd": ("dp_dmd", {}),
    "ode_init": ("ode_init", {}),
    "teacher_forcing": ("teacher_forcing", {}),
}


def causal_recipe(model, method="dmd2", student=(), **sections):
    options = {"dfd": {"w": 0.5}, "dp_dmd": {"anchor_step": 1}, "ode_init": {"grid_steps": 4}}
    return recipe_from_dict(
        {
            "method": method,
            "model": str(model),
            "data": {"frames": 17, "height": 32, "width": 32},  # 5 latent frames: blocks of 3 and 2
            "student": {"steps": 2, "input": "self_forcing", "block_frames": 2, **dict(student)},
            "schedule": {"student_update_freq": 1 if method in FIRST else 5},
            **({method: options[method]} if method in options else {}),
            **sections,
        }
    )


def counted(recipe, setup, family, student, exit_) -> int:
    """FLOPs of one real step of the method, forward and backward."""
    nets = Networks(
        family=family, student=family.new_causal_module(recipe.student.layout),
        fake_score=family.new_module(), negative=setup.shape.batch(1).conditioning,
        cfg=recipe.teacher.cfg, times=grid(recipe),
    )  # fmt: skip
    rng = Stream(0, 0, 0, torch.device("cpu"))
    rng.integer = lambda name, high: exit_
    method = get_method(recipe.method)
    loss = method.student_loss if student else method.fake_score_loss
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(setup.shape.batch(1), nets, recipe, rng).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", CASES)
def test_flops_of_a_causal_step_are_those_of_the_method_itself(name, tiny_checkpoint):
    method, student = CASES[name]
    recipe, setup = setup_for(causal_recipe(tiny_checkpoint, method, student))
    family = load_family(tiny_checkpoint)
    for role in (True, False) if method not in FIRST else (True,):
        exits = range(1 if method in FIRST else 2)
        real = sum(counted(recipe, setup, family, role, exit_) for exit_ in exits) / len(exits)
        assert flops(setup, role)[0] == pytest.approx(real, rel=0.01)
    if method in FIRST:
        assert flops(setup, False) == (0, 0)


def counts(passes) -> dict:
    found = {}
    for p in passes:
        key = p.network, p.gradient, p.piece and p.piece.kind
        found[key] = found.get(key, 0) + p.count
    return found


def test_the_passes_of_wans_rollout_are_its_blocks_their_exits_and_the_writes_of_its_cache():
    _, setup = setup_for(load_recipe("wan-self-forcing/dmd"))
    rollout = {
        ("student", "weights", "block"): 7,  # exit steps of the blocks of 3 of 21 latent frames
        ("student", "none", "block"): 7 * 1.5,  # steps before an exit that is one of four
        ("student", "none", "memory"): 6,  # nothing follows the last
    }
    scored = {("fake_score", "none", None): 1, ("teacher", "none", None): 2}
    assert counts(setup.passes(True)) == rollout | scored
    generated = {
        ("student", "none", "block"): 7 * 2.5,
        ("student", "none", "memory"): 6,
        ("fake_score", "weights", None): 1,
    }
    assert counts(setup.passes(False)) == generated
    for student in (True, False):
        begins = {p.piece.begin for p in setup.passes(student) if p.piece}
        assert begins == {*range(0, 21, 3)}


def test_a_block_of_wan_is_remembered_as_its_keys_and_values():
    recipe, setup = setup_for(load_recipe("wan-self-forcing/dmd"))
    frame = 2 * 30 * (30 * 52) * 1536 * 2  # k and v, blocks, tokens, width, bfloat16
    assert setup.remembered(Piece(recipe.student.layout, "memory", 3, 3)) == 3 * frame


def test_the_plan_names_cache_and_stream_and_says_what_is_an_estimate(tiny_checkpoint):
    checkpointing = {"optim": {"checkpointing": "full", "batch": 4, "accumulate": 2}}
    plan = make_plan(causal_recipe(tiny_checkpoint, **checkpointing), 1, H100)
    spec, tokens = TINY, 2 * 2
    frame = 2 * spec.layers * tokens * spec.heads * spec.head_dim * 2
    stream = plan["streaming"]
    assert stream["cache_bytes"] == 3 * frame and stream["grows_with_length"]
    line = plan["memory_bytes"]["cache of keys and values (bfloat16)"]
    assert line in (0, 2 * 3 * frame), "of two clips, where the student's step needs the most"
    said = text(plan)
    assert "GiB, and grows with the clip" in said
    assert "frames/s (an estimate, not measured; --mfu sets it), without the autoencoder" in said
    assert "2.00 x student    gradient to weights a block after the cache" in said


LAYOUT = Layout(2)


def remembered() -> Passes:
    return Passes("student", "none", 1, 1, Piece(LAYOUT, "memory", 0, 3))


def block(gradient="weights") -> Passes:
    return Passes("student", gradient, 1, 1, Piece(LAYOUT, "block", 3, 2))


@pytest.mark.parametrize(
    ("checkpointing", "gradient", "lasts"),
    [("full", "weights", True), ("save_attention", "weights", True), ("none", "weights", False),
     ("full", "none", False)],
)  # fmt: skip
def test_what_is_computed_again_keeps_the_cache_that_it_looked_into(
    tiny_checkpoint, checkpointing, gradient, lasts
):
    optim = {"checkpointing": checkpointing}
    _, setup = setup_for(causal_recipe(tiny_checkpoint, optim=optim))
    whole = Passes("fake_score", "weights", 1)
    events = [remembered(), block(gradient), Freed(remembered().piece), whole, whole]
    found = sequence_bytes(setup, events)
    assert found.cache == (setup.remembered(remembered().piece) if lasts else 0)


def test_a_stream_s_cost_is_that_of_its_passes_and_a_window_bounds_it(tiny_checkpoint):
    def streamed(frames, **student):
        data = {"frames": frames, "height": 32, "width": 32}
        recipe = causal_recipe(tiny_checkpoint, student=student | {"block_frames": 1}, data=data)
        return streaming(setup_for(recipe)[1], frames, 1e12)

    short, long = streamed(33, window_frames=3), streamed(65, window_frames=3)
    assert short == long and not short["grows_with_length"]
    open_end = streamed(65)
    assert open_end["cache_bytes"] == 16 / 2 * short["cache_bytes"], "17 latent frames; 2 in sight"
    assert open_end["block_flops"] > long["block_flops"]
    assert open_end["block_frames"] == 4
    assert long["frames_a_second"] == pytest.approx(4 * 1e12 / long["block_flops"])
    assert long["seconds_to_first_block"] == long["first_block_flops"] / 1e12


def test_a_bidirectional_plan_has_no_stream_and_no_cache(tiny_checkpoint):
    recipe = recipe_from_dict(
        {"method": "dmd2", "model": str(tiny_checkpoint),
         "data": {"frames": 9, "height": 32, "width": 32}}
    )  # fmt: skip
    plan = make_plan(recipe, 1, H100)
    assert plan["streaming"] is None and "streaming" not in text(plan)
    assert plan["memory_bytes"]["cache of keys and values (bfloat16)"] == 0


def test_looks_are_those_that_attention_takes():
    layout = Layout(2, window_frames=5, sink_frames=1)
    assert Piece(layout, "clip", 0, 7).looks == [(3, 3), (2, 5), (2, 5)]
    assert Piece(layout, "after_clean", 0, 5).looks == 2 * [(3, 3), (2, 5)]
    assert Piece(layout, "block", 5, 2).looks == [(2, 5)]
    assert Piece(layout, "after_clean", 0, 5).passed == 10


def test_a_first_stage_holds_no_moments_of_a_fake_score_that_is_not_trained(tiny_checkpoint):
    sizes = {}
    for method in ("ode_init", "dmd2"):
        _, setup = setup_for(causal_recipe(tiny_checkpoint, method))
        sizes[method] = lines(setup)["AdamW (float32, twice)"]
    assert sizes["dmd2"] == 2 * sizes["ode_init"]


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("cosmos-predict2.5-2b", {}, "has no causal variant; leave out student.block_frames"),
        ("wan2.1-t2v-1.3b", {"student.block_frames": 22}, "does not fill a block of 22"),
        ("wan2.1-t2v-1.3b", {"student.window_frames": 2}, "set window_frames to 3 or more"),
    ],
)
def test_what_cannot_be_planned_is_one_line(model, changes, words):
    values = [f"{key}={value}" for key, value in changes.items()]
    with pytest.raises(UserError, match=words) as caught:
        setup_for(load_recipe("wan-self-forcing/dmd", [f"model={model}", "family=", *values]))
    assert "\n" not in str(caught.value)
