"""The plan's memory against the real training step on a GPU that is not there."""

import pytest
from fake_steps import most_held

from dfdbench.distill.plan import GIB, Gpu, make_plan, setup_for
from dfdbench.distill.plan.memory import lines
from dfdbench.distill.plan.trace import trace
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.models.cosmos import Cosmos

GAN = {"gan_weight": 0.03}
H100, H200 = Gpu("h100", 79, 989), Gpu("h200", 140, 989)


def test_a_trained_cosmos_block_keeps_what_cudas_autocast_makes_it_keep(monkeypatch):
    """By the CPU's rules, which leave layer norms and powers in bfloat16, diffusers' own block
    would keep 7.45 GiB. Queries and keys in bfloat16 and norms by frame keep less."""
    recipe, setup = setup_for(load_recipe("cosmos-predict2.5-2b/dfd"))
    block = setup.trained.block
    assert (block.kept + block.copies) / GIB == pytest.approx(5.39, rel=0.005)
    monkeypatch.setattr(Cosmos, "adapt", lambda family, module: module)
    monkeypatch.setattr(Cosmos, "keep_precise", lambda family, module: None)
    block = trace.__wrapped__(recipe.model, setup.shape, True, False).block
    assert (block.kept + block.copies) / GIB == pytest.approx(8.45, rel=0.005)


PEAKS = {
    "checkpointing": ("dmd2", {}, "full"),
    "kept attention": ("dmd2", {}, "save_attention"),
    "no checkpointing": ("dmd2", {}, "none"),
    "gan of the teacher": ("dmd2", {"dmd2": GAN | {"gan_features": "teacher"}}, "none"),
    "gan of the fake score": ("dmd2", {"dmd2": GAN}, "full"),
    "dfd": ("dfd", {}, "full"),
    "dp_dmd": ("dp_dmd", {}, "full"),
    "sid": ("sid", {}, "full"),
    "sid without checkpointing": ("sid", {}, "none"),
    "f-distill": ("f_distill", {"gan": {"weight": 0.03}}, "full"),
    "adversarial": ("adversarial", {"gan": {"weight": 1.0, "features": "teacher"}}, "full"),
}


def check_peak(recipe, folder, within) -> None:
    """The plan of two rounds is near the most that the real steps hold."""
    recipe, setup = setup_for(recipe)
    planned = sum(lines(setup).values())
    held = most_held(recipe, folder, coin=True)
    print(f"{recipe.arm} on {recipe.model}: planned {planned / GIB:.3f} held {held / GIB:.3f} GiB")
    assert planned == pytest.approx(held, rel=within)


@pytest.mark.parametrize("name", PEAKS)
def test_a_step_holds_at_its_peak_what_the_plan_says(name, tmp_path):
    """Networks, AdamW, gradients and all that the losses make, of the real loop on a fake GPU."""
    method, sections, checkpointing = PEAKS[name]
    optim = {"batch": 4, "accumulate": 2, "checkpointing": checkpointing}
    data = {"frames": 17, "height": 192, "width": 192}
    values = {"method": method, "model": "toy-t2v", "data": data, "optim": optim, **sections}
    check_peak(recipe_from_dict(values), tmp_path, within=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("gan", ["none", "teacher"])
@pytest.mark.parametrize("method", ["dmd2", "dfd"])
@pytest.mark.parametrize("model", ["wan2.1-t2v-1.3b", "cosmos-predict2.5-2b"])
def test_the_plan_of_a_real_model_is_what_its_real_steps_hold(model, method, gan, tmp_path):
    values = ["optim.batch=2", "optim.accumulate=2", "init.recipe="]
    values += ["gan.weight=0"] if gan == "none" else ["gan.weight=0.03", f"gan.features={gan}"]
    check_peak(load_recipe(f"{model}/{method}", values), tmp_path, within=0.03)


def test_a_plan_of_fourteen_billion_parameters_counts_what_each_of_eight_gpus_holds():
    recipe = load_recipe("wan2.1-t2v-1.3b/dfd", ["model=wan2.1-t2v-14b"])
    _, setup = setup_for(recipe, 8)
    found, count = lines(setup), setup.trained.parameters
    assert count == 14_288_491_584
    assert found["student, fake score, heads (float32)"] == 2 * 4 * count // 8
    assert found["gradients of one network (float32)"] == 4 * count // 8
    # Two blocks of float32 weights, and a block's gradients before and while they are cut.
    assert found["working memory"] > 4 * 4 * setup.trained.block_parameters
    assert not make_plan(recipe, 8, H100, 0.4, False)["fits"]
    assert make_plan(recipe, 8, H200, 0.4, False)["fits"]
    assert make_plan(recipe, 16, H100, 0.4, False)["fits"]
