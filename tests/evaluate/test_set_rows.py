"""What `data describe` notes of clips and of latents: definitions, resuming, faults."""

import json
import tarfile

import numpy as np
import pytest
import torch
from curation import bytes_of, mean_colours, write_footage
from latent_sets import random_samples, write_set

from dfdbench.distill.data.curate.features import Embedder
from dfdbench.evaluate.metrics import colour, dis_flow
from dfdbench.evaluate.set_latents import change, incomparable, latent_feature
from dfdbench.evaluate.set_rows import measure_set, read_set
from dfdbench.utils.errors import UserError
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import read_video, select, write_video

COLOURS = Embedder("colours", "", mean_colours)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four toy clips, one of them captioned, and a file that is no video."""
    folder = write_footage(tmp_path_factory.mktemp("set") / "videos", count=4)
    (folder / "clip-1.txt").write_text("a red ball\nrolls")
    (folder / "clip-9.mp4").write_bytes(b"no video")
    return folder


def described(inputs, out, embedder=COLOURS):
    measure_set(inputs, out, "set", embedder)
    return read_set(out, "set")


def test_saturation_and_motion_are_those_of_the_metrics(videos, tmp_path):
    rows, features = described([videos], tmp_path)
    assert [row.id for row in rows] == [f"videos/clip-{n}.mp4" for n in (0, 1, 2, 3, 9)]
    for row in rows[:4]:
        clip = read_video(videos / row.id.removeprefix("videos/"))
        value = colour.compute(select(clip, "even16"))["saturation_mean"]
        assert row.saturation == pytest.approx(value, abs=1e-6)
        motion = dis_flow.compute(clip)["dis_flow_magnitude"]
        assert row.motion == pytest.approx(motion, rel=1e-5)
        assert motion > 0
        assert (row.frames, row.fps) == (clip.total, clip.fps)
        assert row.seconds == pytest.approx(clip.total / clip.fps, abs=1e-4)
        assert (row.height, row.width) == clip.frames.shape[1:3]
    assert rows[0].words == {}
    assert rows[1].words == {"caption": 4}
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(4))


def test_a_damaged_clip_is_listed_and_left_out(videos, tmp_path):
    rows, features = described([videos], tmp_path)
    assert [row.left_out is None for row in rows] == [True] * 4 + [False]
    assert "not a readable video" in rows[4].left_out
    assert [row.row for row in rows] == [0, 1, 2, 3, None]
    assert len(features) == 4


def test_a_clip_of_one_frame_has_no_motion(tmp_path):
    write_video(tmp_path / "one.mp4", np.full((1, 32, 48, 3), 90, np.uint8), 8)
    [row], features = described([tmp_path / "one.mp4"], tmp_path / "out", None)
    assert row.motion is None
    assert (row.frames, row.width, row.height) == (1, 48, 32)
    assert features.shape == (0, 0)


def test_a_stopped_call_goes_on_to_the_same_bytes(videos, tmp_path):
    seen = []

    def stops(frames):
        seen.append(len(frames))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return mean_colours(frames)

    embedder = Embedder("colours", "", stops)
    with pytest.raises(KeyboardInterrupt):
        measure_set([videos], tmp_path / "stopped", "set", embedder)
    measure_set([videos], tmp_path / "stopped", "set", embedder)
    assert len(seen) == 5  # two done, one lost, two more
    measure_set([videos], tmp_path / "whole", "set", COLOURS)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_parts_join_to_the_same_bytes(videos, tmp_path):
    assert not measure_set([videos], tmp_path / "parts", "set", COLOURS, Shard(2, 2)).finished
    assert measure_set([videos], tmp_path / "parts", "set", COLOURS, Shard(1, 2)).finished
    measure_set([videos], tmp_path / "whole", "set", COLOURS)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


def test_another_set_or_network_is_not_mixed_in(videos, tmp_path):
    described([videos], tmp_path / "out")
    with pytest.raises(UserError, match=r"set\.json: made with another embedder"):
        described([videos], tmp_path / "out", None)
    write_footage(tmp_path / "videos", count=1)
    with pytest.raises(UserError, match=r"set\.json: made with another clips"):
        described([tmp_path / "videos"], tmp_path / "out")


def test_another_caption_is_not_overlooked(tmp_path):
    videos = write_footage(tmp_path / "videos", count=1)
    (videos / "clip-0.txt").write_text("one two")
    assert described([videos], tmp_path / "out", None)[0][0].words == {"caption": 2}
    (videos / "clip-0.txt").write_text("one two three")
    with pytest.raises(UserError, match=r"set\.json: made with another clips"):
        described([videos], tmp_path / "out", None)


def test_captions_come_from_tables_manifests_and_tars(videos, tmp_path):
    video = videos / "clip-0.mp4"
    table = tmp_path / "clips.csv"
    table.write_text(f"path,caption\n{video},one two three\n")
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "manifest.jsonl").write_text(json.dumps({"path": str(video), "prompt": "one two"}))
    levels = {"long": "a b c d", "medium": "a b", "short": "a"}
    files = {"k.txt": b"a b c d", "k.json": json.dumps({"captions": levels}).encode()}
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        tar.add(video, "k.mp4")
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            tar.add(tmp_path / name, name)
    rows, _ = described([table, listed, tmp_path / "some.tar"], tmp_path / "out", None)
    assert [row.words for row in rows] == [
        {"caption": 3}, {"caption": 2}, {"long": 4, "medium": 2, "short": 1},
    ]  # fmt: skip
    assert len({tuple(row.hashes) for row in rows}) == 1  # one video, three ways
    assert not (tmp_path / "out" / "videos").exists()  # the tar was not unpacked


def test_a_fault_in_a_tar_does_not_name_a_temporary_file(tmp_path):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        write_video(tmp_path / "a.mp4", np.zeros((2, 32, 32, 3), np.uint8), 8)
        (tmp_path / "b.mp4").write_bytes(b"no video")
        tar.add(tmp_path / "a.mp4", "a.mp4")
        tar.add(tmp_path / "b.mp4", "b.mp4")
    rows, _ = described([tmp_path / "some.tar"], tmp_path / "out", None)
    assert rows[1].left_out.startswith("not a readable video")


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["bad"], "bad: no clip can be described; the first: "),
        (["gone"], "gone: no videos"),
        (["good", "good"], "good: good/clip-0.mp4 is in the set twice"),
        (["good", "latents"], "latents: a set of latents is described alone"),
    ],
)
def test_bad_sets_are_one_line(names, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_footage(tmp_path / "good", count=1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video")
    write_set(tmp_path / "latents", *random_samples(2), 2)
    with pytest.raises(UserError) as error:
        measure_set([*map(type(tmp_path), names)], tmp_path / "out", "set", None)
    assert fault in str(error.value)


# latents


def test_latents_are_described_without_a_model(tmp_path):
    latents, embeds = random_samples(5)
    latents[3] = latents[1]
    folder = write_set(tmp_path / "latents", latents, embeds, 2)
    rows, features = described([folder], tmp_path / "out", None)
    assert [row.id for row in rows][:3] == [
        "shard-00000.tar:00000", "shard-00000.tar:00001", "shard-00001.tar:00002",
    ]  # fmt: skip
    assert {(row.frames, row.fps, row.height, row.width) for row in rows} == {(5, 8, 24, 24)}
    assert rows[0].seconds == 0.625
    assert rows[4].words == {"caption": 2}  # "clip 4"
    assert rows[3].sha256 == rows[1].sha256 != rows[0].sha256
    assert rows[2].latent_change == pytest.approx(
        (latents[2][:, 1] - latents[2][:, 0]).abs().mean().item(), abs=1e-5
    )
    assert features.shape == (5, 4 * 16)
    assert (features[3] == features[1]).all()


def test_change_and_features_of_latents_by_hand():
    latents = torch.zeros(2, 3, 8, 8)  # C T H W
    latents[0, 1] = 1.0
    assert change(latents) == 0.5  # one of two channels changes by 1, twice
    latents[0, :, :2, 2:4] = 3.0  # the second of the four parts across, at the top
    latents[0, 1] = latents[0, 0]
    feature = latent_feature(latents)
    assert feature.tolist() == [0, 1] + [0] * 30
    assert latent_feature(torch.zeros(2, 3, 8, 8)).tolist() == [0] * 32


def test_a_damaged_latent_is_left_out(tmp_path):
    folder = write_set(tmp_path / "latents", *random_samples(2), 2)
    path = folder / "shard-00000.tar"
    data = bytearray(path.read_bytes())
    data[512:520] = b"\xff" * 8  # the length of the first safetensors' header
    path.write_bytes(data)
    rows, features = described([folder], tmp_path / "out", None)
    assert rows[0].id == "shard-00000.tar:00000"
    assert rows[0].left_out.startswith("damaged (")
    assert rows[1].left_out is None
    assert len(features) == 1


def test_latents_of_two_autoencoders_are_not_compared(tmp_path):
    sample = random_samples(1)
    one = write_set(tmp_path / "one", *sample, 1)
    assert incomparable(one, write_set(tmp_path / "two", *sample, 1)) is None
    other = write_set(tmp_path / "other", *sample, 1, vae_sha256="w")
    assert incomparable(one, other) == "their autoencoders differ"
