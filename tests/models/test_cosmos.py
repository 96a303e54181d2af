"""The Cosmos-Predict2.5 adapter against the plain diffusers pipeline, on a tiny checkpoint."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    Cosmos2_5_PredictBasePipeline,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from dfdbench.distill.data.clips import load_clips
from dfdbench.distill.data.encode import encode
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.generate.clips import Item, generate
from dfdbench.generate.suites import get_suite
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.cosmos import COSMOS_DEFAULTS
from dfdbench.models.flow import student_times, x0_from_v
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import predictor, sample_student, sample_teacher
from dfdbench.toy import world
from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run
from dfdbench.utils.video import write_video

TEXTS = ["a ball moving over the desert", "a bar drifting across snowy hills"]
CALL = {
    "prompt": TEXTS[0], "height": 64, "width": 64, "num_frames": 17, "max_sequence_length": 36,
    "output_type": "latent",
}  # fmt: skip
SMALL = [
    "data.count=4", "optim.batch=2", "student.steps=2", "schedule.student_updates=1",
    "schedule.student_update_freq=2", "log.every=1", "log.probe_every=1",
    "log.decode_every=0", "init.recipe=''",
]  # fmt: skip
ARMS = {
    "dmd2": ["gan.weight=0.1", "gan.r1_weight=1.0"],
    "dp_dmd": ["dp_dmd.grid_steps=4", "dp_dmd.anchor_step=1"],
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
        torch.testing.assert_close(self.sigmas.double(), self.times, atol=1e-6, rtol=0)
        torch.testing.assert_close(self.timesteps.double(), 1000 * self.times[:-1])


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
    theirs, negative = pipeline.encode_prompt(TEXTS, "", max_sequence_length=36)
    ours = family.encode_prompt([*TEXTS, ""]).prompt_embeds
    torch.testing.assert_close(ours[:2], theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[2], negative[0], atol=1e-5, rtol=0)
    assert ours.shape == (3, 36, 64) and not torch.allclose(ours[0], ours[1])


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
def test_clips_encoded_from_files_train_every_method(arm, family, folder, tmp_path):
    clips = world.render(world.sample_attributes(2, 8))
    (tmp_path / "clips").mkdir()
    for i, text in enumerate(TEXTS):
        write_video(tmp_path / "clips" / f"{i}.mp4", to_frames(clips[i : i + 1] * 2 - 1)[0], 8)
        (tmp_path / "clips" / f"{i}.txt").write_text(text)
    made = encode([tmp_path / "clips"], str(folder), tmp_path / "set", workers=1)
    assert made.finished and made.samples == 2
    changes = [f"model={folder}", *SMALL, *ARMS[arm], f"data.source={made.folder}"]
    recipe = load_recipe(f"toy-i2v/{arm}", changes)
    batch = load_clips(recipe, family).batch(0, 2)
    assert torch.equal(batch.conditioning.image_latents, batch.latents[:, :, :1])
    texts = family.encode_prompt(TEXTS).prompt_embeds
    nearest = torch.cdist(batch.conditioning.prompt_embeds.flatten(1), texts.flatten(1)).amin(1)
    assert (nearest < 0.01 * texts.flatten(1).norm(dim=1)).all(), "padding is kept, it has states"
    run = distill(recipe, tmp_path / arm)
    assert run.finished and run.metrics("update")


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
    two = [c for c in world.captions() if c.id in ("ball-desert", "bar-snow")]
    monkeypatch.setattr("dfdbench.generate.suites.toy.captions", lambda: two)
    suite = get_suite("toy-i2v")
    manifest = generate(run, suite, [1, 2], family=family)
    pictures = {path.parent.name: path for path in manifest.parent.rglob("*.png")}
    assert set(pictures) == {"ball-desert", "bar-snow"}, "one a prompt"
    from dfdbench.generate.arms import Conditions

    encode = Conditions(family, (17, 64, 64))
    items = [Item(prompt, 1, pictures[prompt.id]) for prompt in suite.prompts]
    latents = encode(items).image_latents
    pixels = torch.from_numpy(np.array(Image.open(pictures["bar-snow"]))).permute(2, 0, 1)
    alone = family.encode_video(pixels[None, :, None].float() / 127.5 - 1)
    which = [item.prompt.id for item in items].index("bar-snow")
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
