"""Training from a folder of latents: the same losses as from the same clips in memory."""

from functools import cached_property

import pytest
import torch
from latent_sets import write_set

from dfdbench.distill.data import clips as sources
from dfdbench.distill.data.clips import ClipsInMemory
from dfdbench.distill.data.encode import encode
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.registry import load_family
from dfdbench.models.wan import Wan
from dfdbench.toy import world
from dfdbench.toy.data import DATA_SEED, prompts_of, real_latents
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.video import write_video

CLIPS = 4
SETTINGS = [
    f"data.count={CLIPS}", "optim.batch=2", "schedule.student_updates=1", 
    "schedule.student_update_freq=2", "log.every=1", "log.probe_every=0", "log.decode_every=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))


def losses(run):
    return [
        {k: v for k, v in line.items() if isinstance(v, float)} for line in run.metrics("update")
    ]


def train(out, *changes, method="dmd2"):
    return distill(load_recipe(f"toy/{method}", [*SETTINGS, *changes]), out, device="cpu")


def test_the_same_latents_train_the_same_from_a_folder_as_from_memory(
    tiny_checkpoint, tiny_family, tmp_path, monkeypatch
):
    latents, index, prompts = real_latents(tiny_family, CLIPS)
    latents = latents.bfloat16().float()
    embeds = tiny_family.encode_prompt(prompts).prompt_embeds.bfloat16().float()
    held = ClipsInMemory(latents, index, Conditioning(embeds), 0, torch.device("cpu"))
    text = tiny_family.defaults.negative_prompt
    folder = write_set(
        tmp_path / "set", latents, embeds[index], 4,
        vae_sha256=sha256_file(tiny_checkpoint / "vae" / "diffusion_pytorch_model.safetensors"),
        frames=17, height=64, width=64, negative_prompt="not the run's",
    )  # fmt: skip
    streamed = train(tmp_path / "a", f"model={tiny_checkpoint}", f"data.source={folder}")
    monkeypatch.setattr(sources, "load_clips", lambda recipe, family: held)
    monkeypatch.setattr("dfdbench.distill.loop.load_clips", lambda recipe, family: held)
    memory = train(tmp_path / "b", f"model={tiny_checkpoint}")
    assert losses(streamed) == losses(memory) and losses(memory)
    assert streamed.info["student_sha256"] == memory.info["student_sha256"]
    assert streamed.info["fairness"]["data_clips"] == CLIPS and text == ""


def test_toy_clips_from_mp4_train_as_the_toy_itself_without_text_encoder_and_vae(
    tmp_path, monkeypatch
):
    attributes = world.sample_attributes(CLIPS, DATA_SEED)
    index, prompts = prompts_of(attributes)
    for i, video in enumerate(world.render(attributes)):
        frames = (video.permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
        write_video(tmp_path / "clips" / f"{i}.mp4", frames, world.FPS)
        (tmp_path / "clips" / f"{i}.txt").write_text(prompts[index[i]])
    toy = train(tmp_path / "toy")
    encode([tmp_path / "clips"], "toy-t2v", tmp_path / "set", shard_size=4, device="cpu")

    def refused(self):
        raise AssertionError("loaded, though everything it makes is in the set")

    with monkeypatch.context() as patch:
        for part in ("vae", "text_encoder"):
            patch.setattr(Wan, part, property(refused))
        folder = train(tmp_path / "folder", f"data.source={tmp_path / 'set'}")
    (theirs,), (ours,) = losses(toy), losses(folder)
    assert ours.keys() == theirs.keys() and ours != theirs
    # H.264 moves pixels by a grey level or two, bfloat16 latents by up to 0.4 %.
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=0.02), name


def test_prompts_kept_as_text_train_as_their_embeddings_do(tiny_checkpoint, tmp_path, monkeypatch):
    for i, prompt in enumerate(("a ball moving over the desert", "a box moving over snowy hills")):
        frames = (torch.rand(17, 64, 64, 3) * 255).byte().numpy()
        write_video(tmp_path / "clips" / f"{i}.mp4", frames, world.FPS)
        (tmp_path / "clips" / f"{i}.txt").write_text(prompt)
    runs = {}
    for name, stored in (("embeddings", True), ("prompts", False)):
        encode(
            [tmp_path / "clips"], str(tiny_checkpoint), tmp_path / name, device="cpu",
            store_texts=stored,
        )  # fmt: skip
        source = f"data.source={tmp_path / name}"
        runs[name] = train(tmp_path / f"run-{name}", f"model={tiny_checkpoint}", source)
    (stored,), (online,) = (losses(runs[name]) for name in ("embeddings", "prompts"))
    assert online != stored, "bfloat16 rounds embeddings that are stored"
    for name, value in online.items():
        assert value == pytest.approx(stored[name], rel=0.02), name
    with pytest.raises(UserError, match="other clips or settings"):
        encode([tmp_path / "clips"], str(tiny_checkpoint), tmp_path / "prompts", resume=True)
    with pytest.raises(UserError, match="stores no text embeddings"):
        LatentSet(tmp_path / "prompts", 0).batch(0, 1)
    loaded = []
    encoder = Wan.text_encoder.func
    patched = cached_property(lambda self: loaded.append(1) or encoder(self))
    patched.__set_name__(Wan, "text_encoder")
    monkeypatch.setattr(Wan, "text_encoder", patched)
    train(tmp_path / "again", f"model={tiny_checkpoint}", source)
    assert len(loaded) == 1, "the encoder stays in memory"


def test_a_source_that_is_no_set_is_one_line_before_training(tiny_checkpoint, tmp_path):
    with pytest.raises(UserError, match="nowhere") as caught:
        train(tmp_path / "run", f"model={tiny_checkpoint}", f"data.source={tmp_path}/nowhere")
    with pytest.raises(UserError, match="nowhere has no index"):  # before the model is looked for
        train(tmp_path / "run", "model=someone/model", f"data.source={tmp_path}/nowhere")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_set_encoded_by_one_model_is_refused_by_another(tiny_checkpoint, tmp_path):
    write_video(
        tmp_path / "clips" / "a.mp4", (torch.rand(17, 64, 64, 3) * 255).byte().numpy(), world.FPS
    )
    (tmp_path / "clips" / "a.txt").write_text("a ball")
    encode([tmp_path / "clips"], "toy-t2v", tmp_path / "set", device="cpu")
    family = load_family(tiny_checkpoint)
    recipe = load_recipe("toy/dmd2", [*SETTINGS, f"data.source={tmp_path / 'set'}"])
    with pytest.raises(UserError, match="another autoencoder"):
        sources.load_clips(recipe, family)
