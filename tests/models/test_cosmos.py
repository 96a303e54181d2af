"""The Cosmos-Predict2.5 adapter against the plain diffusers pipeline, on a tiny checkpoint."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    Cosmos2_5_PredictBasePipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from dfdbench.distill.data import load_clips
from dfdbench.distill.discriminator import tapped_blocks
from dfdbench.distill.dp_dmd import anchor_steps
from dfdbench.distill.loop import distill
from dfdbench.distill.stages import first_stage_recipe, grid
from dfdbench.errors import UserError
from dfdbench.generate import Item, generate
from dfdbench.models import (
    Conditioning,
    concatenate,
    load_family,
    resolve_folder,
    takes_image,
)
from dfdbench.models.cosmos import COSMOS_DEFAULTS
from dfdbench.models.shapes import real_config
from dfdbench.recipe import Dmd2, load_recipe
from dfdbench.run import Run
from dfdbench.sampling import predictor, sample_student, sample_teacher
from dfdbench.schedule import student_times, x0_from_v
from dfdbench.study import jobs_of, load_study
from dfdbench.suites import get_suite
from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v

TEXTS = ["a ball moving over the desert", "a box drifting across snowy hills"]
CALL = {
    "prompt": TEXTS[0], "height": 64, "width": 64, "num_frames": 17, "max_sequence_length": 32,
    "output_type": "latent",
}  # fmt: skip
SMALL = [
    "data.count=4", "optim.batch=2", "student.steps=2", "schedule.student_updates=1",
    "schedule.ratio=2", "dp_dmd.grid_steps=4", "dp_dmd.anchor_step=1", "log.every=1",
    "log.probe_every=1", "log.decode_every=0", "init.recipe=''",
]  # fmt: skip
ARMS = {
    "dmd2": ["dmd2.gan_weight=0.1", "dmd2.r1_weight=1.0"],
    "dp_dmd": [],
    "dfd": ["dfd.p=1.0"],
}


class Consenting:
    """What the pipeline asks of a safety checker."""

    def to(self, device): ...

    def check_text_safety(self, text):
        return True


class GivenSigmas(FlowMatchEulerDiscreteScheduler):
    """Euler steps at our times: the pipeline asks a scheduler for a number of steps only."""

    times = student_times(4, 5.0)

    def set_timesteps(self, count, device=None):
        super().set_timesteps(sigmas=self.times[:-1].tolist(), device=device)


def plain(folder):
    pipeline = Cosmos2_5_PredictBasePipeline.from_pretrained(folder, safety_checker=Consenting())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = GivenSigmas(shift=1.0)
    return pipeline


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cosmos-cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint_i2v(tmp_path_factory.mktemp("model") / "tiny-i2v", TINY_I2V, seed=3)


@pytest.fixture(scope="module")
def family(folder):
    return load_family(folder)


@pytest.fixture(scope="module")
def pipeline(folder):
    return plain(folder)


@pytest.fixture(scope="module")
def picture():
    clip = world.render(world.sample_attributes(1, 5))
    return (clip[0, :, 0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def first(family, picture):
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].float()
    return family.encode_video(pixels / 127.5 - 1)


@pytest.fixture(scope="module")
def given(family, first):
    return family.encode_prompt(TEXTS[:1]).given(first)


def noise_like(family, count=1, seed=0):
    shape = family.latent_shape(17, 64, 64)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_prompt_embeddings_are_those_of_the_plain_pipeline(family, pipeline):
    theirs, negative = pipeline.encode_prompt(TEXTS, "", max_sequence_length=32)
    ours = family.encode_prompt([*TEXTS, ""]).prompt_embeds
    torch.testing.assert_close(ours[:2], theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[2], negative[0], atol=1e-5, rtol=0)
    assert ours.shape == (3, 32, 64) and not torch.allclose(ours[0], ours[1])


def test_latents_are_normalised_as_in_the_plain_pipeline(family, pipeline, first, picture):
    video = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    whole = torch.cat([video, -torch.ones(1, 3, 16, 64, 64)], 2)
    theirs = pipeline.prepare_latents(
        whole, 1, 6, 64, 64, 1, 17, dtype=torch.float32, device=torch.device("cpu"),
        generator=torch.Generator(),
    )[1]  # fmt: skip
    torch.testing.assert_close(first, theirs[:, :, :1], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_our_sampler_and_the_plain_pipeline_agree(family, pipeline, given, picture, cfg):
    noise, times = noise_like(family), GivenSigmas.times
    theirs = pipeline(
        image=Image.fromarray(picture), num_inference_steps=4, negative_prompt="",
        guidance_scale=cfg - 1 if cfg > 1 else 1.0, latents=noise * float(times[0]), **CALL,
    ).frames  # fmt: skip
    negative = family.encode_prompt([""])
    predict = predictor(family, family.teacher, given, negative, cfg)
    ours = sample_student(predict, noise, times)
    torch.testing.assert_close(ours[:, :, 1:], theirs[:, :, 1:], atol=1e-4, rtol=0)
    # The pipeline takes its start for pure noise and leaves 1 - .999 of it on the given frame.
    torch.testing.assert_close(ours[:, :, :1], theirs[:, :, :1], atol=1e-2, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_every_sample_begins_with_the_given_latent(family, given, first, sampler):
    noise = noise_like(family)
    predict = predictor(family, family.teacher, given)
    fresh = lambda step: noise_like(family, seed=step)  # noqa: E731
    x0 = sample_student(predict, noise, student_times(4, 5.0), sampler, fresh)
    torch.testing.assert_close(x0[:, :, :1], first, atol=1e-5, rtol=0)
    guided = predictor(family, family.teacher, given, family.encode_prompt([""]), 3.0)
    state, time = sample_teacher(guided, noise, 6, 5.0, stop_after=2)
    on_path = (1 - time) * first + time * noise[:, :, :1]
    torch.testing.assert_close(state[:, :, :1], on_path, atol=1e-5, rtol=0)


@torch.no_grad()
def test_prediction_sees_the_picture_and_the_time_but_not_noise_on_the_picture(family, given):
    x_t, t = noise_like(family, 2), torch.tensor([0.3, 0.9])
    both = Conditioning(*(field.expand(2, *field.shape[1:]) for field in given))
    v = family.predict(family.teacher, x_t, t, both)
    torch.testing.assert_close(x0_from_v(x_t, v, t)[:, :, :1], both.image_latents)
    other = x_t.clone()
    other[:, :, 0] += 1
    free = v[:, :, 1:]
    assert torch.equal(free, family.predict(family.teacher, other, t, both)[:, :, 1:])
    moved = both.given(both.image_latents + 1)
    assert not torch.allclose(free, family.predict(family.teacher, x_t, t, moved)[:, :, 1:])
    assert not torch.allclose(free, family.predict(family.teacher, x_t, t.flip(0), both)[:, :, 1:])


@torch.no_grad()
def test_the_given_frame_has_a_time_of_its_own(family, given):
    seen = {}
    hook = family.teacher.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    try:
        family.predict(family.teacher, noise_like(family), torch.tensor([0.7]), given)
    finally:
        hook.remove()
    times = seen["timestep"].flatten().tolist()
    assert times == pytest.approx([1e-4, 0.7, 0.7, 0.7, 0.7])
    assert seen["timestep"].dtype == torch.float32
    assert seen["condition_mask"][0, 0, :, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert torch.equal(seen["hidden_states"][:, :, :1], given.image_latents)
    assert not seen["padding_mask"].any()


@torch.no_grad()
def test_features_are_those_of_the_generated_frames(family, given):
    x_t, t = noise_like(family), torch.tensor([0.5])
    v, features = family.predict_with_features(family.teacher, x_t, t, given, [0, 1])
    assert torch.equal(v, family.predict(family.teacher, x_t, t, given))
    width = family.feature_width(family.teacher)
    assert [f.shape for f in features] == [(1, 4 * 4 * 4, width)] * 2
    kept = []
    handle = family.teacher.transformer_blocks[1].register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    family.predict(family.teacher, x_t, t, given)
    handle.remove()
    assert torch.equal(features[1], kept[0][:, 16:]), "the first 4 x 4 tokens are the picture's"
    assert family.block_count(family.teacher) == 2


def test_without_a_picture_the_remedy_is_named(family):
    text = family.encode_prompt(TEXTS[:1])
    with pytest.raises(UserError, match="--suite toy-i2v"):
        family.predict(family.teacher, noise_like(family), torch.tensor([0.5]), text)


def test_unknown_words_are_warned_about(family):
    with pytest.warns(UserWarning, match="zeppelin"):
        family.encode_prompt(["a zeppelin"])


def test_training_gives_each_clip_its_own_first_latent(family, folder):
    recipe = load_recipe("toy-i2v/dmd2", [f"model={folder}", *SMALL])
    batch = load_clips(recipe, family).batch(0, 3)
    assert torch.equal(batch.conditioning.image_latents, batch.latents[:, :, :1])
    assert batch.conditioning.image_latents.shape[2] == 1


@pytest.mark.parametrize("arm", ARMS)
def test_a_distilled_student_samples_the_same_in_the_plain_pipeline(
    arm, family, folder, given, picture, tmp_path
):
    recipe = load_recipe(f"toy-i2v/{arm}", [f"model={folder}", *SMALL, *ARMS[arm]])
    run = distill(recipe, tmp_path / arm)
    lines = [line for line in run.metrics() if line["kind"] == "update"]
    assert len(lines) == 1 and all(np.isfinite(v) for v in lines[0].values() if v != "update")
    student = family.load_student(run.student).eval()
    moved = [
        not torch.equal(new, old)
        for new, old in zip(student.parameters(), family.teacher.parameters(), strict=True)
    ]
    assert any(moved), "it was trained"
    noise, times = noise_like(family), GivenSigmas.times
    theirs = plain(run.student)(
        image=Image.fromarray(picture), num_inference_steps=4, guidance_scale=1.0,
        latents=noise * float(times[0]), **CALL,
    ).frames  # fmt: skip
    with torch.no_grad():
        ours = sample_student(predictor(family, student, given), noise, times)
    torch.testing.assert_close(ours[:, :, 1:], theirs[:, :, 1:], atol=1e-4, rtol=0)


def test_generation_continues_the_suites_picture(folder, family, tmp_path, monkeypatch):
    recipe = load_recipe("toy-i2v/dmd2", [f"model={folder}", *SMALL])
    run = distill(recipe, tmp_path / "run")
    two = [c for c in world.captions() if c.id in ("ball-desert", "box-snow")]
    monkeypatch.setattr(world, "captions", lambda: two)
    suite = get_suite("toy-i2v")
    manifest = generate(run, suite, [1, 2], family=family)
    pictures = {path.parent.name: path for path in manifest.parent.rglob("*.png")}
    assert set(pictures) == {"ball-desert", "box-snow"}, "one a prompt"
    from dfdbench.makers import Conditions

    encode = Conditions(family, (17, 64, 64))
    items = [Item(prompt, 1, pictures[prompt.id]) for prompt in suite.prompts]
    latents = encode(items).image_latents
    pixels = torch.from_numpy(np.array(Image.open(pictures["box-snow"]))).permute(2, 0, 1)
    alone = family.encode_video(pixels[None, :, None].float() / 127.5 - 1)
    which = [item.prompt.id for item in items].index("box-snow")
    torch.testing.assert_close(latents[which : which + 1], alone, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="first"):
        generate(Run.open(run.path), get_suite("toy-t2v"), [1], family=family)


def test_defaults_are_those_of_the_paper_where_the_folder_has_none(family, folder, tmp_path):
    assert family.defaults.frames == 17
    bare = tmp_path / "bare"
    family.save_student(family.teacher, bare)
    (bare / "dfdbench.json").unlink()
    assert load_family(bare).defaults == COSMOS_DEFAULTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict as theirs
    assert COSMOS_DEFAULTS.negative_prompt == theirs.DEFAULT_NEGATIVE_PROMPT


# --- the real model


def test_the_real_config_is_the_class_at_two_billion_parameters():
    config = real_config("cosmos-predict2.5-2b")
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
    from dfdbench.models.loading import read_config

    real, tiny = (
        real_config("cosmos-predict2.5-2b")["transformer"],
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
    config = real_config("cosmos-predict2.5-2b")
    assert (recipe.method, recipe.model) == (name, config["repository"])
    assert recipe.family == "cosmos" and takes_image(recipe.model)
    o, s = recipe.optim, recipe.schedule
    assert (o.lr, o.fake_lr, o.batch, recipe.teacher.cfg) == (1e-5, 1e-5, 16, 3.0)
    assert s.ratio * s.student_updates == iterations
    assert [recipe.data.frames, recipe.data.height, recipe.data.width] == [
        config["clip"][k] for k in ("frames", "height", "width")
    ]
    assert grid(recipe).tolist() == pytest.approx([0.999, 0.9375, 0.8333, 0.625, 0.0], abs=1e-4)
    assert (recipe.dmd2.gan_weight > 0) is gan
    if gan:
        assert recipe.dmd2.blocks == (13, 20, 27) and recipe.dmd2.gan_features == "teacher"
        assert tapped_blocks(recipe.dmd2, 28) == (13, 20, 27) != tapped_blocks(Dmd2(), 28)
    if name == "dp_dmd":
        assert anchor_steps(recipe.dp_dmd) == 1 and recipe.dp_dmd.weight == 0.05
    if name == "dfd":
        assert recipe.init.updates * s.ratio == 25_000
        assert first_stage_recipe(recipe).dmd2.gan_weight == 0.03


@pytest.mark.parametrize("name", ["dmd2", "dmd2_control", "dfd", "dp_dmd", "dp_dmd_k1"])
def test_toy_recipes_differ_from_those_of_toy_t2v_by_their_model_alone(name):
    recipe = load_recipe(f"toy-i2v/{name}")
    assert recipe.arm == name and (recipe.model, recipe.family) == ("toy-i2v", "cosmos")
    assert recipe.init.recipe in ("", "toy-i2v/dmd2")
    like = load_recipe(f"toy/{name.removesuffix('_k1')}")
    anchor = dataclasses.replace(like.dp_dmd, anchor_step=1 if name == "dp_dmd_k1" else 5)
    same = dataclasses.replace(
        like, arm=name, model=recipe.model, family=recipe.family, init=recipe.init, dp_dmd=anchor
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
    assert takes_image(str(folder)) and takes_image("toy-i2v")
    assert takes_image("nvidia/Cosmos-Predict2.5-2B@diffusers/base/post-trained")
    assert not takes_image(str(tiny_checkpoint)) and not takes_image("toy-t2v")
    assert not takes_image("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
