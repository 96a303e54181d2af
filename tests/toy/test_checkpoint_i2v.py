"""The small Cosmos-Predict2.5 keeps the layout of the real one, and its training is resumable."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, Cosmos2_5_PredictBasePipeline, CosmosTransformer3DModel
from PIL import Image

from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.models.cosmos import network_v
from dfdbench.models.cosmos_text import chat_tokens
from dfdbench.toy import fit, train, train_i2v, world
from dfdbench.toy.checkpoint import TINY, write_checkpoint
from dfdbench.toy.checkpoint_i2v import (
    MAX_TOKENS,
    TINY_I2V,
    build_transformer,
    write_checkpoint_i2v,
)
from dfdbench.toy.text_i2v import I2VCaptionEmbeddings
from dfdbench.utils.errors import UserError

SHORT = train_i2v.I2VSettings(clips=6, steps=6, batch=4)
TEXT = "a ball moving over the desert"
CALL = {
    "negative_prompt": "", "height": 64, "width": 64, "num_frames": 17, "guidance_scale": 2.0,
    "max_sequence_length": MAX_TOKENS,
}  # fmt: skip


class Consenting:
    """What the pipeline asks of a safety checker."""

    def to(self, device: torch.device) -> None: ...

    def check_text_safety(self, text: str) -> bool:
        return True


def load(folder: Path) -> Cosmos2_5_PredictBasePipeline:
    pipeline = Cosmos2_5_PredictBasePipeline.from_pretrained(folder, safety_checker=Consenting())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint_i2v(tmp_path_factory.mktemp("toy") / "tiny-i2v", TINY_I2V, seed=3)


@pytest.fixture(scope="module")
def pipeline(folder):
    return load(folder)


@pytest.fixture(scope="module")
def picture():
    return to_frames(world.render(world.sample_attributes(1, 5)) * 2 - 1)[0, 0]


def test_layout_is_that_of_cosmos_predict25(folder):
    """Values as diffusers' conversion script has them for Cosmos-2.5-Predict-Base-2B."""
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "Cosmos2_5_PredictBasePipeline"
    assert index["transformer"] == ["diffusers", "CosmosTransformer3DModel"]
    assert index["vae"] == ["diffusers", "AutoencoderKLWan"]
    assert index["text_encoder"] == ["transformers", "Qwen2_5_VLForConditionalGeneration"]
    assert index["scheduler"] == ["diffusers", "UniPCMultistepScheduler"]
    config = json.loads((folder / "transformer" / "config.json").read_text())
    parameters = set(inspect.signature(CosmosTransformer3DModel.__init__).parameters) - {"self"}
    assert {key for key in config if not key.startswith("_")} == parameters
    assert config["in_channels"] == config["out_channels"] + 1
    assert config["patch_size"] == [1, 2, 2] and config["rope_scale"] == [1.0, 3.0, 3.0]
    assert config["max_size"] == [128, 240, 240] and config["extra_pos_embed_type"] is None
    assert config["concat_padding_mask"] and config["use_crossattn_projection"]
    text = json.loads((folder / "text_encoder" / "config.json").read_text())["text_config"]
    joined = text["num_hidden_layers"] * text["hidden_size"]
    assert config["crossattn_proj_in_channels"] == joined
    assert config["encoder_hidden_states_channels"] == config["text_embed_dim"]
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "flow_prediction"
    assert scheduler["use_flow_sigmas"] and scheduler["use_karras_sigmas"]
    assert (scheduler["sigma_min"], scheduler["sigma_max"]) == (0.01, 200.0)
    vae = json.loads((folder / "vae" / "config.json").read_text())
    assert vae["temperal_downsample"] == [False, True, True] and vae["patch_size"] is None
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl")]


def test_the_plain_pipeline_continues_a_picture(pipeline, picture):
    clip = pipeline(
        image=Image.fromarray(picture), prompt=TEXT, num_inference_steps=2, output_type="np", **CALL
    ).frames
    assert clip.shape == (1, 17, 64, 64, 3) and np.isfinite(clip).all()


@torch.no_grad()
def test_our_prediction_is_the_pipelines(pipeline, picture):
    """One UniPC step to 0 is x̂0 = ε − σ v̂, with CFG g = 1 + guidance_scale on the text alone."""
    noise = torch.randn(1, 6, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = pipeline(
        image=Image.fromarray(picture), prompt=TEXT, num_inference_steps=1, latents=noise.clone(),
        output_type="latent", **CALL,
    ).frames  # fmt: skip
    video = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    scale = torch.tensor(pipeline.vae.config.latents_std).view(1, -1, 1, 1, 1)
    mean = torch.tensor(pipeline.vae.config.latents_mean).view(1, -1, 1, 1, 1)
    first = (pipeline.vae.encode(video).latent_dist.mode() - mean) / scale
    table = I2VCaptionEmbeddings(TINY_I2V, seed=3).table
    sigma = pipeline.scheduler.sigmas[0]
    conditional, negative = (
        network_v(pipeline.transformer, noise, sigma.view(1), first, table[[row]])
        for row in (0, -1)
    )
    v = negative + 3.0 * (conditional - negative)
    torch.testing.assert_close(theirs[:, :, 1:], (noise - sigma * v)[:, :, 1:], atol=1e-5, rtol=0)
    # The pipeline moves the given frame from ε to the frame's latent by their own difference.
    torch.testing.assert_close(theirs[:, :, :1], noise[:, :, :1] * (1 - sigma) + sigma * first)


def test_embeddings_of_training_are_those_of_the_pipeline(pipeline):
    table = I2VCaptionEmbeddings(TINY_I2V, seed=3).table
    texts = [*world.phrasings(), ""]
    some = [*range(0, len(texts), 53), len(texts) - 1]
    with torch.no_grad():
        theirs = pipeline._get_prompt_embeds(
            [texts[i] for i in some], max_sequence_length=MAX_TOKENS
        )
    torch.testing.assert_close(table[some], theirs, atol=1e-5, rtol=0)
    assert len(torch.unique(table.flatten(1), dim=0)) == len(table) == len(texts)


def test_no_word_of_a_chat_is_unknown(pipeline):
    tokenizer = pipeline.tokenizer
    tokens = chat_tokens(tokenizer, world.phrasings(), MAX_TOKENS)
    assert not (tokens == tokenizer.unk_token_id).any()
    ends = (tokens == tokenizer.eos_token_id).sum(1)
    assert (ends == 2).all(), "no caption is cut"


def test_the_shipped_autoencoder_needs_only_its_compression_told(tmp_path, picture):
    shipped = Path(train.__file__).parent / "weights" / "toy-t2v" / "vae"
    vae = AutoencoderKLWan.from_pretrained(shipped)
    pipeline = load(write_checkpoint_i2v(tmp_path / "patched", TINY_I2V, vae=vae))
    pipeline.vae_scale_factor_spatial = 8
    clip = pipeline(
        image=Image.fromarray(picture), prompt=TEXT, num_inference_steps=1, output_type="np", **CALL
    ).frames
    error = np.square(clip[0, 0] - picture / 255).mean()
    assert clip.shape == (1, 17, 64, 64, 3) and -10 * np.log10(error) > 28


@torch.no_grad()
def test_the_first_latent_is_that_of_the_first_frame_alone():
    vae = AutoencoderKLWan.from_pretrained(
        Path(train.__file__).parent / "weights" / "toy-t2v" / "vae", torch_dtype=torch.float32
    )
    video = world.render(world.sample_attributes(1, 2)) * 2 - 1
    whole = vae.encode(video).latent_dist.mode()
    alone = vae.encode(video[:, :, :1]).latent_dist.mode()
    torch.testing.assert_close(whole[:, :, :1], alone)


@torch.no_grad()
def test_the_prediction_sees_the_given_frame_and_not_its_noise():
    torch.manual_seed(0)
    transformer = build_transformer(TINY_I2V).eval()
    x_t, first = torch.randn(2, 6, 5, 8, 8), torch.randn(2, 6, 1, 8, 8)
    t, prompt = torch.tensor([0.3, 0.8]), torch.randn(2, 32, 64)
    v = network_v(transformer, x_t, t, first, prompt)
    other = x_t.clone()
    other[:, :, 0] += 1
    assert torch.equal(v, network_v(transformer, other, t, first, prompt))
    assert not torch.allclose(v, network_v(transformer, x_t, t, first + 1, prompt))
    assert not torch.allclose(v, network_v(transformer, x_t, t.flip(0), first, prompt))


@pytest.fixture(scope="module")
def t2v(tmp_path_factory):
    """A folder as the stages of toy-t2v leave it."""
    out = tmp_path_factory.mktemp("trained")
    write_checkpoint(out / "toy-t2v", TINY, seed=1)
    return out


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_latents_of_training_are_those_of_clips_that_reveal_themselves(t2v, tmp_path, monkeypatch):
    out = copy(t2v, tmp_path / "out")
    monkeypatch.setattr(train_i2v, "CHUNK", 2)
    train_i2v.encode_own_clips(SHORT, out / "toy-t2v", out)
    latents = train_i2v.training_set(SHORT, out)
    assert latents.shape == (6, 6, 5, 8, 8)
    clips = train_i2v.own_clips(SHORT)
    vae = AutoencoderKLWan.from_pretrained(out / "toy-t2v" / "vae")
    hidden, shown = (train.encode_clips(vae, clips[slice(2, 3)], reveal=r) for r in (True, False))
    torch.testing.assert_close(latents[2:3], hidden)
    assert not torch.allclose(latents[2:3], shown, atol=1e-3)


def test_an_interrupted_training_ends_with_the_same_weights(t2v, tmp_path, monkeypatch):
    whole = train_i2v.train_i2v(copy(t2v, tmp_path / "whole"), SHORT, TINY_I2V)
    parts = copy(t2v, tmp_path / "parts")

    class Stop(Exception):
        pass

    real, calls = torch.nn.utils.clip_grad_norm_, iter(range(100))

    def failing(*args, **kwargs):
        if next(calls) == 3:
            raise Stop
        return real(*args, **kwargs)

    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", failing)
    with pytest.raises(Stop):
        train_i2v.train_i2v(parts, SHORT, TINY_I2V)
    resumed = train_i2v.train_i2v(parts, SHORT, TINY_I2V)
    for file in whole.rglob("*.safetensors"):
        assert file.read_bytes() == (resumed / file.relative_to(whole)).read_bytes(), file.name
    assert not [f for f in whole.rglob("*.json") if str(tmp_path) in f.read_text()], "no local path"
    torch.manual_seed(SHORT.seed + 2)
    start = build_transformer(TINY_I2V).state_dict()["proj_out.weight"]
    trained = CosmosTransformer3DModel.from_pretrained(whole / "transformer").proj_out.weight
    assert not torch.allclose(start.half(), trained.half())


@pytest.mark.slow
def test_two_processes_train_the_teacher_that_one_does(t2v, tmp_path):
    one, two = copy(t2v, tmp_path / "one"), copy(t2v, tmp_path / "two")
    for out in (one, two):
        train_i2v.encode_own_clips(SHORT, out / "toy-t2v", out)
    left = train_i2v.train_teacher(SHORT, TINY_I2V, one).state_dict()
    right = train.shared(train_i2v.train_teacher, SHORT, TINY_I2V, two, 2).state_dict()
    torch.manual_seed(SHORT.seed + 2)
    start = build_transformer(TINY_I2V).state_dict()
    moved = max((left[k] - start[k]).abs().max() for k in left)
    apart = max((left[k] - right[k]).abs().max() for k in left)
    assert apart < 0.1 * moved and moved > 0


def test_other_settings_in_a_used_folder_are_refused(t2v, tmp_path):
    out = copy(t2v, tmp_path / "out")
    short = replace(SHORT, steps=1)
    train_i2v.train_i2v(out, short, TINY_I2V)
    with pytest.raises(UserError, match="other settings"):
        train_i2v.train_i2v(out, replace(short, seed=1), TINY_I2V)
    write_checkpoint(tmp_path / "other", TINY, seed=2)
    with pytest.raises(UserError, match="other settings"):
        train_i2v.train_i2v(out, short, TINY_I2V, t2v=tmp_path / "other")
