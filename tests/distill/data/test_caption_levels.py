"""Captions at several lengths: encoded side by side, drawn in training by stated probabilities."""

import json
import shutil

import pytest
import torch
from curation import three, write_footage
from latent_sets import LATENTS, TEXT, random_samples, write_set

from dfdbench.distill.data.clips import check_source
from dfdbench.distill.data.curate.wording import parse
from dfdbench.distill.data.encode import encode
from dfdbench.distill.data.format import read_index
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.data.sources import LEVELS
from dfdbench.distill.loop import distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.errors import UserError

ODDS = (0.5, 0.3, 0.2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A set whose texts are the sample's embedding times 1, 2 or 3, by level."""
    return write_set(tmp_path / "set", *random_samples(40), 16, caption_levels=LEVELS)


def levels_of(batch, embeds, rows):
    """Which level each sample of a batch got, by the scale of its embedding."""
    found = []
    for text, row in zip(batch.conditioning.prompt_embeds, rows.tolist(), strict=True):
        scales = [n for n in range(3) if torch.equal(text, (embeds[row] * (n + 1)).bfloat16())]
        assert len(scales) == 1
        found.append(LEVELS[scales[0]])
    return found


def test_levels_are_drawn_as_often_as_stated(folder):
    stream = LatentSet(folder, 0, captions=ODDS)
    drawn = stream.captions(0, 20_000)
    for level, wanted in zip(LEVELS, ODDS, strict=True):
        assert drawn.count(level) / 20_000 == pytest.approx(wanted, abs=0.02)
    for place, level in enumerate(LEVELS):
        odds = tuple(float(n == place) for n in range(3))
        assert {*LatentSet(folder, 0, captions=odds).captions(0, 500)} == {level}


def test_a_sample_comes_with_the_text_of_its_level(folder):
    embeds = random_samples(40)[1]
    stream = LatentSet(folder, 3, captions=ODDS)
    given = []
    for start in range(0, 100, 10):
        rows = stream.rows(start, 10)
        given += levels_of(stream.batch(start, 10), embeds.float(), rows)
    assert given == stream.captions(0, 100)
    assert set(given) == set(LEVELS)


def test_the_draw_is_of_position_and_seed_alone(folder):
    stream = LatentSet(folder, 3, captions=ODDS)
    whole = stream.captions(0, 100)
    assert [stream.captions(p, 1)[0] for p in reversed(range(100))] == whole[::-1]
    assert LatentSet(folder, 4, captions=ODDS).captions(0, 100) != whole
    assert torch.equal(stream.rows(0, 100), LatentSet(folder, 3).rows(0, 100))


def test_without_odds_it_is_the_long_one(folder, tmp_path):
    assert LatentSet(folder, 0).captions(5, 3) == ["long"] * 3
    embeds = random_samples(40)[1]
    stream = LatentSet(folder, 0)
    assert levels_of(stream.batch(0, 8), embeds, stream.rows(0, 8)) == ["long"] * 8
    plain = write_set(tmp_path / "plain", *random_samples(8), 4)
    assert LatentSet(plain, 0).captions(0, 2) == ["", ""]
    assert LatentSet(plain, 0).batch(0, 2).latents.shape == (2, *LATENTS)
    assert read_index(plain).prompt_embeds == TEXT


def test_recipes_that_have_no_levels_to_draw_from_are_refused(tmp_path):
    odds = f"data.captions={[*ODDS]}"
    with pytest.raises(UserError, match=r"data.captions'?: only folders have it, not rendered"):
        check_source(load_recipe("toy/dmd2", [odds]))
    plain = write_set(tmp_path / "plain", *random_samples(8), 4)
    with pytest.raises(UserError, match=r"one caption a clip.*--caption-levels"):
        check_source(load_recipe("toy/dmd2", [odds, f"data.source={plain}"]))


@pytest.fixture
def clips(tmp_path):
    """Three clips with captions of all levels, and one with a single caption."""
    videos = write_footage(tmp_path / "clips", count=4)
    for i in range(4):
        captions = parse(three(shift=i))
        (videos / f"clip-{i}.txt").write_text(captions["long"])
        beside = {"captions": captions} if i else {"caption": captions["long"]}
        (videos / f"clip-{i}.json").write_text(json.dumps(beside))
    return videos


@pytest.mark.parametrize("stored", [True, False])
def test_encoded_levels_are_trained_on(clips, tiny_checkpoint, tiny_family, tmp_path, stored):
    done = encode(
        [clips], str(tiny_checkpoint), tmp_path / "set", shard_size=2, device="cpu",
        store_texts=stored, caption_levels=True,
    )  # fmt: skip
    assert done.samples == 3
    assert "lacks 'captions'" in done.left_out[0][1]
    index = read_index(tmp_path / "set")
    assert index.caption_levels == LEVELS
    stream = LatentSet(
        tmp_path / "set", 0, captions=(0.0, 0.0, 1.0), encode_prompt=tiny_family.encode_prompt
    )
    wanted = tiny_family.encode_prompt([parse(three(shift=i))["short"] for i in (1, 2, 3)])
    given = stream.batch(0, 3).conditioning.prompt_embeds
    rows = stream.rows(0, 3)
    torch.testing.assert_close(given, wanted.prompt_embeds[rows], rtol=0.01, atol=0.01)
    run = distill(
        load_recipe(
            "toy/dmd2",
            [
                "data.count=2", "optim.batch=2", "schedule.student_updates=1",
                "schedule.student_update_freq=2", "log.every=1", "log.probe_every=0",
                "log.decode_every=0", f"model={tiny_checkpoint}",
                f"data.source={tmp_path / 'set'}", "data.captions=[0.2, 0.3, 0.5]",
            ],
        ),
        tmp_path / "run",
        device="cpu",
    )  # fmt: skip
    assert run.info["fairness"]["data_captions"] == [0.2, 0.3, 0.5]


def test_two_sets_by_weight_with_drawn_levels_are_trained_on_and_recorded(
    clips, tiny_checkpoint, tmp_path
):
    """Both draws of a recipe at once, from clips to a run; the same seed gives the same student."""
    sets = []
    for name in ("one", "two"):
        other, out = shutil.copytree(clips, tmp_path / name), tmp_path / f"set-{name}"
        encode([other], str(tiny_checkpoint), out, device="cpu", caption_levels=True)
        sets.append(tmp_path / f"set-{name}")
    changes = [
        "data.count=2", "optim.batch=2", "schedule.student_updates=2",
        "schedule.student_update_freq=2", "log.every=1", "log.probe_every=0",
        "log.decode_every=0", f"model={tiny_checkpoint}", f"data.source={sets[0]}",
        f"data.more_sources=['{sets[1]}']", "data.weights=[0.7, 0.3]",
        "data.captions=[0.2, 0.3, 0.5]",
    ]  # fmt: skip
    runs = [
        distill(load_recipe("toy/dmd2", changes), tmp_path / f"run-{n}", device="cpu")
        for n in range(2)
    ]
    for run in runs:
        assert run.info["fairness"]["data_captions"] == [0.2, 0.3, 0.5]
        assert run.info["fairness"]["data_weights"] == [0.7, 0.3]
    students = [
        [path.read_bytes() for path in sorted((tmp_path / f"run-{n}").rglob("*.safetensors"))]
        for n in range(2)
    ]
    assert students[0] == students[1] != []
    with pytest.raises(UserError, match="weights must be one share"):
        load_recipe("toy/dmd2", [*changes, "data.weights=[1.0]"])


def test_a_set_with_levels_is_not_gone_on_with_without_them(clips, tiny_checkpoint, tmp_path):
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    encode([clips], str(tiny_checkpoint), tmp_path / "set", device="cpu", caption_levels=True)
    with pytest.raises(UserError, match="other clips or settings"):
        encode([clips], str(tiny_checkpoint), tmp_path / "set", device="cpu", resume=True)
