"""The small Wan keeps the layout of the real one, and toy training is resumable."""

import dataclasses
import json
import multiprocessing
import os
import time
from types import SimpleNamespace

import pytest
import torch
from diffusers import WanPipeline

from dfdbench.evaluate.toy_quality import fidelity_and_diversity, to_frames
from dfdbench.models.registry import load_family
from dfdbench.toy import fit, train, world
from dfdbench.toy.checkpoint import TINY, build_transformer, build_vae, write_checkpoint
from dfdbench.toy.data import real_latents
from dfdbench.toy.text import CaptionEmbeddings
from dfdbench.utils.errors import UserError

SHORT = train.Settings(
    vae_steps=3,
    vae_batch=4,
    polish_steps=3,
    polish_batch=4,
    decoder_steps=3,
    decoder_batch=4,
    clips=8,
    teacher_steps=6,
    teacher_batch=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("toy") / "tiny", TINY, seed=3)


def test_layout_is_that_of_wan21(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "WanPipeline"
    assert index["transformer"] == ["diffusers", "WanTransformer3DModel"]
    assert index["vae"] == ["diffusers", "AutoencoderKLWan"]
    assert index["text_encoder"] == ["transformers", "UMT5EncoderModel"]
    for part in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"):
        assert (folder / part).is_dir()
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl")]


def test_the_plain_pipeline_samples_it(folder):
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a ball moving over the desert", num_frames=17, height=64, width=64,
        num_inference_steps=2, guidance_scale=2.0, max_sequence_length=16, output_type="np",
    ).frames  # fmt: skip
    assert frames.shape == (1, 17, 64, 64, 3)


def test_embeddings_of_training_equal_those_of_the_family(folder):
    """The teacher must be asked with exactly what it was trained on."""
    table = CaptionEmbeddings(TINY, seed=3).table
    texts = [*world.phrasings(), ""]
    some = [*range(0, len(texts), 53), len(texts) - 1]
    theirs = load_family(str(folder)).encode_prompt([texts[i] for i in some]).prompt_embeds
    assert torch.allclose(table[some], theirs.float(), atol=1e-6)
    assert len(torch.unique(table.flatten(1), dim=0)) == len(table) == len(texts)


def test_captions_are_drawn_at_all_levels_and_say_what_their_clips_show():
    embeddings, rng = CaptionEmbeddings(TINY, seed=3), torch.Generator().manual_seed(0)
    clips = world.sample_attributes(300, 5)
    captions = [world.caption_index(clips, level) for level in world.LEVELS]
    drawn = embeddings.draw(captions, rng, dropout=0.1)
    texts = [*world.phrasings(), ""]
    rows = [int((embeddings.table == one).flatten(1).all(1).nonzero()[0]) for one in drawn]
    levels = [0, 0, 0]
    for i, row in enumerate(rows):
        if words := texts[row].split():
            assert world.SHAPES[clips.shape[i]] in words
            hue, direction = world.HUE_NAMES[clips.hue_mode[i]], clips.direction[i]
            named = [name in words for name in world.HUE_NAMES]
            headed = [name in words for name in world.DIRECTION_NAMES]
            assert not any(named) or hue in words
            assert not any(headed) or world.DIRECTION_NAMES[direction] in words
            levels[any(named) + any(headed)] += 1
    assert min(levels) > 60 and 10 < 300 - sum(levels) < 60
    assert len({row % len(world.TEMPLATES) for row in rows}) == len(world.TEMPLATES)


def test_prompts_of_real_latents_belong_to_their_clips(folder, tmp_path, monkeypatch):
    family = load_family(str(folder))
    latents, index, prompts = real_latents(family, 6, seed=1, cache_dir=tmp_path)
    assert latents.shape == (6, TINY.latent_channels, 5, 8, 8)
    from dfdbench.toy.data import DATA_SEED

    clips = world.sample_attributes(6, DATA_SEED + 1)
    for i in range(6):
        assert world.SHAPES[clips.shape[i]] in prompts[index[i]]
        assert world.SCENE_PHRASES[world.SCENES[clips.scene[i]]] in prompts[index[i]]
    again, _, _ = real_latents(family, 6, seed=1, cache_dir=tmp_path)
    assert torch.equal(latents, again)
    assert len(list(tmp_path.glob("toy-latents-*"))) == 1
    monkeypatch.setattr(family, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(type(family), "encode_video", lambda self, video: 0 * latents[: len(video)])
    on_gpu, _, _ = real_latents(family, 6, seed=1, cache_dir=tmp_path)
    assert not on_gpu.any(), "another device's latents are not taken for a GPU's"
    monkeypatch.undo()
    other, _, _ = real_latents(family, 6, seed=2, cache_dir=tmp_path)
    assert not torch.equal(latents, other)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "LOG_EVERY", 1)
    whole = train.train(tmp_path / "whole", SHORT, TINY)

    class Stop(Exception):
        pass

    real = torch.nn.utils.clip_grad_norm_
    calls = {"count": 0}

    def failing(*args, **kwargs):
        calls["count"] += 1
        if calls["count"] in (3, 8, 14):
            raise Stop
        return real(*args, **kwargs)

    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", failing)
    for _ in range(3):
        with pytest.raises(Stop):
            train.train(tmp_path / "parts", SHORT, TINY)
        for log in (tmp_path / "parts").glob("*.jsonl"):  # rows beyond the last checkpoint
            log.write_text(log.read_text() + '{"step": 1000}\n')
    assert (tmp_path / "parts" / "teacher.jsonl").exists()
    parts = train.train(tmp_path / "parts", SHORT, TINY)
    for log in (tmp_path / "whole").glob("*.jsonl"):
        steps = [
            [json.loads(line)["step"] for line in folder.read_text().splitlines()]
            for folder in (log, tmp_path / "parts" / log.name)
        ]
        assert steps[0] == steps[1] == list(range(1, len(steps[0]) + 1)), log.name
    for file in whole.rglob("*.safetensors"):
        assert file.read_bytes() == (parts / file.relative_to(whole)).read_bytes(), file.name


def test_other_settings_in_a_used_folder_are_refused(tmp_path):
    train.train(tmp_path, SHORT, TINY)
    with pytest.raises(UserError, match="other settings"):
        train.train(tmp_path, dataclasses.replace(SHORT, seed=1), TINY)


def test_quality_counts_what_the_oracle_reads():
    captions = [c for c in world.captions() for _ in range(4)]
    frames = []
    for i, caption in enumerate(captions):
        clip = world.sample_attributes(1, i, caption.shape, caption.scene)
        frames.append(to_frames(world.render(clip) * 2 - 1)[0])
    result = fidelity_and_diversity(frames, captions)
    assert result["prompt_accuracy"] == 1 and result["sprite_intact"] == 1
    shuffled = fidelity_and_diversity(frames, captions[::-1])
    assert shuffled["prompt_accuracy"] < 0.2


def test_two_processes_train_the_teacher_that_one_does(tmp_path):
    """Each takes half of every batch; the mean of their gradients is the batch's."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train.encode_training_set(build_vae(TINY).eval(), SHORT, one)
    (two / train.LATENTS).write_bytes((one / train.LATENTS).read_bytes())
    left = train.train_teacher(SHORT, TINY, one).state_dict()
    right = train.shared(train.train_teacher, SHORT, TINY, two, 2).state_dict()
    torch.manual_seed(SHORT.seed + 1)
    start = build_transformer(TINY).state_dict()
    moved = max((left[k] - start[k]).abs().max() for k in left)
    apart = max((left[k] - right[k]).abs().max() for k in left)
    assert apart < 0.1 * moved and moved > 0


def wait_for(settings, spec, out):
    """A stage that never ends."""
    (out / str(os.getpid())).touch()
    time.sleep(600)


def lead(out):
    train.shared(wait_for, None, None, out, 2)


def test_processes_of_a_stage_end_with_a_killed_parent(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=lead, args=(tmp_path,))
    parent.start()
    until = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    children = [int(path.name) for path in tmp_path.iterdir()]
    assert len(children) == 2 and all(os.path.exists(f"/proc/{pid}") for pid in children)
    parent.kill()
    parent.join()
    until = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, children))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False
