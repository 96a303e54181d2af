"""δ², the spread of real clips given their caption, and the options of rendered clips."""

import json

import pytest
import torch
from latent_sets import random_samples

from dfdbench.distill.data import clips as sources
from dfdbench.distill.data.clips import ClipsInMemory, check_source, load_clips
from dfdbench.distill.data.format import INDEX, Sample, SetIndex, write_index, write_shard
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.data.spread import caption_spread
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError

CPU = torch.device("cpu")
CAPTIONS = [0, 1, 0, 2, 1, 0, 3, 3, 3, 3]


@pytest.fixture
def latents():
    g = torch.Generator().manual_seed(3)
    return torch.randn(len(CAPTIONS), 2, 3, 4, 4, generator=g) * 2 + 5


def of(captions, latents):
    return caption_spread(torch.tensor(captions), lambda row: latents[row])


def test_spread_is_half_the_mean_squared_distance_of_two_clips_of_one_caption(latents):
    """Over all ordered pairs i ≠ j within each caption, weighed by its clips, by brute force."""
    total, clips = 0.0, 0
    for caption in (0, 1, 3):
        rows = [i for i, c in enumerate(CAPTIONS) if c == caption]
        pairs = [
            0.5 * float(((latents[i] - latents[j]) ** 2).double().mean())
            for i in rows
            for j in rows
            if i != j
        ]
        total += len(rows) * sum(pairs) / len(pairs)
        clips += len(rows)
    assert of(CAPTIONS, latents) == pytest.approx(total / clips, rel=1e-6)
    shuffled = torch.randperm(len(CAPTIONS))
    again = of([CAPTIONS[i] for i in shuffled], latents[shuffled])
    assert again == pytest.approx(total / clips, rel=1e-6), "the order of clips is nothing"


def test_spread_is_the_unbiased_variance_of_one_caption(latents):
    expected = float(latents.double().var(0, unbiased=True).mean())
    assert of([7] * len(latents), latents) == pytest.approx(expected, rel=1e-6)


def test_spread_is_unbiased_for_a_known_law():
    """Two clips a caption from N(mean of the caption, 3²): the mean of δ² is 9, not 4.5."""
    g = torch.Generator().manual_seed(0)
    means = 100 * torch.randn(500, 1, 1, 1, 1, generator=g)
    pairs = means.repeat_interleave(2, 0) + 3 * torch.randn(1000, 2, 2, 4, 4, generator=g)
    captions = torch.arange(500).repeat_interleave(2).tolist()
    assert of(captions, pairs) == pytest.approx(9.0, rel=0.02)


def test_equal_clips_have_no_spread_and_single_ones_say_nothing(latents):
    assert of([0, 0, 0], latents[:1].expand(3, -1, -1, -1, -1)) == 0.0
    assert of(list(range(len(CAPTIONS))), latents) is None
    assert of([-1] * len(CAPTIONS), latents) is None, "nothing is known of their captions"
    with_single = of([0, 0, 5], latents[:3])
    assert with_single == of([0, 0], latents[:2])
    assert of([0, 0, -1, -1], latents[:4]) == with_single
    broken = latents.clone()
    broken[0, 0, 0] = float("nan")
    assert of([0, 0], broken) is None


def test_given_frames_are_left_out_of_the_spread(latents):
    embedded = Conditioning(torch.zeros(4, 1, 1))
    for frames in (0, 1):
        held = ClipsInMemory(latents, torch.tensor(CAPTIONS), embedded, 0, CPU, frames)
        assert held.spread() == of(CAPTIONS, latents[:, :, frames:])


def write_captions(folder, latents, embeds, captions, shard_size):
    """A set whose KEY.json states these prompts; None: it states none."""
    shards = []
    for number, start in enumerate(range(0, len(latents), shard_size)):
        rows = range(start, min(start + shard_size, len(latents)))
        facts = [{} if captions[i] is None else {"prompt": f"text {captions[i]}"} for i in rows]
        samples = [
            Sample(f"{i:05d}", latents[i], embeds[i], fact)
            for i, fact in zip(rows, facts, strict=True)
        ]
        shards.append(write_shard(folder / f"shard-{number:05d}.tar", samples))
    index = SetIndex(
        model="tiny", vae_sha256="v", text_encoder_sha256="t", frames=5, height=24, width=24,
        fps=8.0, negative_prompt="", format=1, latents=list(latents.shape[1:]),
        prompt_embeds=list(embeds.shape[1:]), samples=len(latents), shards=shards,
    )  # fmt: skip
    write_index(folder / INDEX, index)
    return folder


@pytest.mark.parametrize("frames", [0, 1])
def test_a_folder_has_the_spread_of_the_same_clips_in_memory(tmp_path, frames):
    latents, embeds = random_samples(len(CAPTIONS))
    folder = write_captions(tmp_path / "set", latents, embeds, CAPTIONS, 4)
    streamed = LatentSet(folder, 0, conditioning_frames=frames)
    assert streamed.spread() == of(CAPTIONS, latents[:, :, frames:])


def test_a_folder_reads_only_clips_whose_caption_another_has(tmp_path, monkeypatch):
    latents, embeds = random_samples(6)
    folder = write_captions(tmp_path / "set", latents, embeds, [0, 1, None, 1, None, 2], 4)
    streamed, read = LatentSet(folder, 0), []
    sample = streamed._sample
    monkeypatch.setattr(streamed, "_sample", lambda row: (read.append(row), sample(row))[1])
    assert streamed.spread() == of([0, 0], latents[[1, 3]]) and sorted(set(read)) == [1, 3]


def test_a_run_states_the_spread_of_its_clips(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    held = []

    def keep(recipe, family):
        held.append(load_clips(recipe, family))
        return held[0]

    monkeypatch.setattr("dfdbench.distill.loop.load_clips", keep)
    values = [f"model={tiny_checkpoint}", "data.count=24", "optim.batch=2",
              "schedule.student_updates=1", "log.decode_every=0"]  # fmt: skip
    run = distill(load_recipe("toy/dmd2", values), tmp_path / "run", device="cpu")
    said = json.loads((run.path / "run.json").read_text())["fairness"]
    clips = held[0]
    assert said["real_spread_given_caption"] == of(clips.prompt_index.tolist(), clips.latents)
    assert said["real_spread_given_caption"] > 0
    assert (said["data_level"], said["data_mix"]) == (1, "all")


# --- options of rendered clips


@pytest.fixture
def rendered(monkeypatch):
    """`real_latents` in a stand-in that notes what it is asked for."""
    asked = []

    def fake(family, count, seed=0, cache_dir=None, batch=16, level=1, mix="all", reveal=False):
        asked.append({"count": count, "seed": seed, "level": level, "mix": mix, "reveal": reveal})
        index = torch.arange(count) % 16
        return torch.zeros(count, 1, 1, 2, 2), index, [f"caption {i}" for i in range(16)]

    monkeypatch.setattr(sources, "real_latents", fake)
    return asked


def test_level_and_mix_reach_the_renderer(rendered, tiny_family):
    for changes in (
        [],
        ["data.level=3"],
        ["data.mix=half_pale"],
        ["data.level=2", "data.mix=pale"],
    ):
        recipe = load_recipe("toy/dfd", [*changes, "data.count=32", "data.seed=5"])
        clips = load_clips(recipe, tiny_family)
        assert rendered[-1] == {
            "count": 32, "seed": 5, "level": recipe.data.level, "mix": recipe.data.mix,
            "reveal": False,
        }  # fmt: skip
        assert len(clips) == 32
    assert rendered[1]["level"] == 3 and rendered[2]["mix"] == "half_pale"


@pytest.mark.parametrize("change", ["data.level=2", "data.mix=pale"])
def test_options_of_rendered_clips_are_refused_for_a_folder(change, tmp_path):
    key = change.partition("=")[0]
    recipe = load_recipe("toy/dfd", [f"data.source={tmp_path}", change])
    with pytest.raises(UserError, match=rf"'{key}' is .* only rendered clips have it") as caught:
        check_source(recipe)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=key):  # before a model is fetched
        distill(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_them_with_exit_code_two(tmp_path, monkeypatch, capsys):
    from dfdbench.cli import main

    words = ["--method", "dfd", "--out", str(tmp_path / "run"), "--set", "data.mix=pale"]
    words += ["--set", f"data.source={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["dfdbench", "distill", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "data.mix" in capsys.readouterr().err
