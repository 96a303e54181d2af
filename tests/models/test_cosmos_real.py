"""Cosmos-Predict2.5-2B without its weights: shapes, recipes and studies, ids, conditions."""

import dataclasses

import pytest
import torch
from diffusers import CosmosTransformer3DModel

from dfdbench.cli.study import jobs_of, load_study
from dfdbench.distill.discriminator import tapped_blocks
from dfdbench.distill.methods.dp_dmd import anchor_steps
from dfdbench.distill.recipe import load_recipe
from dfdbench.distill.sections import Gan
from dfdbench.distill.stages import first_stage_recipe, grid
from dfdbench.models.conditioning import Conditioning, concatenate
from dfdbench.models.loading import read_config
from dfdbench.models.published_configs import published_config
from dfdbench.models.registry import resolve_folder, takes_first_frame
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint_i2v(tmp_path_factory.mktemp("model") / "tiny-i2v", TINY_I2V, seed=3)


def test_the_real_config_is_the_class_at_two_billion_parameters():
    config = published_config("cosmos-predict2.5-2b")
    keys = {k: v for k, v in config["transformer"].items() if not k.startswith("_")}
    with torch.device("meta"):
        module = CosmosTransformer3DModel(**keys)
    counts = {n: p.numel() for n, p in module.named_parameters()}
    assert sum(counts.values()) == 2_059_174_912
    width = config["text"]["width"]
    encoder = config["text_encoder"]
    assert width == encoder["num_hidden_layers"] * encoder["hidden_size"] == 100_352
    assert counts["crossattn_proj.0.weight"] == width * 1024
    assert config["transformer"]["in_channels"] == config["latents"]["channels"] + 1
    # By hand: patches, time, 28 blocks (two attentions, 4x MLP, three modulations), text, output.
    d, lora = 2048, 256
    block = 2 * 4 * d * d - 2 * d * (d - 1024) + 2 * 4 * d * d + 3 * (d * lora + lora * 3 * d)
    block += 4 * 128
    rest = 4 * 18 * d + d * d + 3 * d * d + d + d * lora + lora * 2 * d + d * 64
    assert 28 * block + rest + width * 1024 + 1024 == sum(counts.values())


def test_the_tiny_checkpoint_has_the_real_config_keys(folder):
    real, tiny = (
        published_config("cosmos-predict2.5-2b")["transformer"],
        read_config(folder / "transformer", CosmosTransformer3DModel),
    )
    assert set(real) <= set(tiny)
    sizes = {"num_attention_heads", "attention_head_dim", "num_layers", "mlp_ratio", "in_channels",
             "out_channels", "text_embed_dim", "adaln_lora_dim", "crossattn_proj_in_channels",
             "encoder_hidden_states_channels"}  # fmt: skip
    assert {k: v for k, v in real.items() if k not in sizes} == {
        k: tiny[k] for k in real if k not in sizes
    }


@pytest.mark.parametrize(
    ("name", "iterations", "gan"), [("dmd2", 30_000, True), ("dp_dmd", 30_000, False),
                                    ("dfd", 300, False)]
)  # fmt: skip
def test_recipes_have_the_papers_values(name, iterations, gan):
    recipe = load_recipe(f"cosmos-predict2.5-2b/{name}")
    config = published_config("cosmos-predict2.5-2b")
    assert (recipe.method, recipe.model) == (name, config["repository"])
    assert recipe.family == "cosmos" and takes_first_frame(recipe.model)
    o, s = recipe.optim, recipe.schedule
    assert (o.lr, o.fake_lr, o.batch, recipe.teacher.cfg) == (1e-5, 1e-5, 16, 3.0)
    assert s.student_update_freq * s.student_updates == iterations
    assert [recipe.data.frames, recipe.data.height, recipe.data.width] == [
        config["clip"][k] for k in ("frames", "height", "width")
    ]
    assert grid(recipe).tolist() == pytest.approx([0.999, 0.9375, 0.8333, 0.625, 0.0], abs=1e-4)
    assert (recipe.gan.weight > 0) is gan
    if gan:
        assert recipe.gan.blocks == (13, 20, 27) and recipe.gan.features == "teacher"
        assert tapped_blocks(recipe.gan, 28) == (13, 20, 27) != tapped_blocks(Gan(), 28)
    if name == "dp_dmd":
        assert anchor_steps(recipe.options) == 1 and recipe.options.weight == 0.05
    if name == "dfd":
        assert recipe.init.updates * s.student_update_freq == 25_000
        assert first_stage_recipe(recipe).gan.weight == 0.03


@pytest.mark.parametrize("name", ["dmd2", "dmd2_control", "dfd", "dp_dmd", "dp_dmd_k1"])
def test_toy_recipes_differ_from_those_of_toy_t2v_by_their_model_alone(name):
    recipe = load_recipe(f"toy-i2v/{name}")
    assert recipe.arm == name and (recipe.model, recipe.family) == ("toy-i2v", "cosmos")
    assert recipe.init.recipe in ("", "toy-i2v/dmd2")
    like = load_recipe(f"toy/{name.removesuffix('_k1')}")
    anchor = like.options
    if recipe.method == "dp_dmd":
        anchor = dataclasses.replace(anchor, anchor_step=1 if name == "dp_dmd_k1" else 5)
    same = dataclasses.replace(
        like, arm=name, model=recipe.model, family=recipe.family, init=recipe.init, options=anchor
    )
    assert recipe == same


def test_the_study_generates_and_scores_the_suite_of_its_model(tmp_path):
    study = load_study("toy-i2v/main")
    assert (study.name, study.suite, study.model) == ("toy-i2v-main", "toy-i2v", "toy-i2v")
    jobs = jobs_of(study, tmp_path, (0,), study.model, 1)
    assert {job.suite for job in jobs} == {"toy-i2v"} and len(jobs) == 2 + len(study.arms)
    assert load_study("toy/main").suite == load_study("toy/main").model == "toy-t2v"


def test_conditions_keep_their_picture_through_every_reshaping():
    text, image = torch.arange(6.0).view(3, 2, 1), torch.arange(3.0).view(3, 1, 1, 1, 1)
    both = Conditioning(text, image)
    picked = both.select(torch.tensor([2, 0]))
    assert picked.image_latents.flatten().tolist() == [2, 0]
    assert concatenate([both, picked]).image_latents.flatten().tolist() == [0, 1, 2, 2, 0]
    assert both.select(slice(1, 2)).repeat(2).image_latents.flatten().tolist() == [1, 1]
    assert concatenate([Conditioning(text), Conditioning(text)]).image_latents is None


def test_a_hub_id_may_name_a_branch(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, revision, allow_patterns: asked.append((name, revision)) or tmp_path,
    )
    resolve_folder("nvidia/Cosmos-Predict2.5-2B@diffusers/base/post-trained")
    resolve_folder("owner/name")
    assert asked == [
        ("nvidia/Cosmos-Predict2.5-2B", "diffusers/base/post-trained"), ("owner/name", None)
    ]  # fmt: skip


def test_which_models_take_an_image(folder, tiny_checkpoint):
    assert takes_first_frame(str(folder)) and takes_first_frame("toy-i2v")
    assert takes_first_frame("nvidia/Cosmos-Predict2.5-2B@diffusers/base/post-trained")
    assert not takes_first_frame(str(tiny_checkpoint)) and not takes_first_frame("toy-t2v")
    assert not takes_first_frame("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
