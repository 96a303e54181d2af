"""`dfdbench data encode`: which frames, which clips, what is written, and what stops it."""

import errno
import io
import json
import shutil
import tarfile
import threading

import numpy as np
import pytest
import torch
from clips import random_clip
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.data import encode as encoder
from dfdbench.distill.data import format as layout
from dfdbench.distill.data.format import members, read_index, read_member
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.data.sources import Target, decode, find_sources, resample
from dfdbench.models.wan import Wan
from dfdbench.utils.errors import UserError
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import fit, read_video, write_video

CLIPS = 5


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips that fit the tiny model: 17 frames at 64×64, 8 a second; one deeper in the tree."""
    folder = tmp_path_factory.mktemp("data") / "clips"
    for i in range(CLIPS):
        path = folder / ("more" if i == 3 else "") / f"clip {i}.mp4"
        write_video(path, random_clip(i, height=64, width=64), 8)
        path.with_suffix(".txt").write_text(f"a ball drifts {'across the desert ' * (i % 2)}\n")
    return folder


@pytest.fixture(scope="module")
def whole(clips, tiny_checkpoint, tmp_path_factory):
    """All clips encoded into shards of two."""
    out = tmp_path_factory.mktemp("sets") / "whole"
    encoder.encode([clips], str(tiny_checkpoint), out, shard_size=2, workers=2)
    return out


def copied(clips, tmp_path):
    return shutil.copytree(clips, tmp_path / "clips")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def by_source(folder):
    """Source name -> (latents, embeddings cut, facts)."""
    index, found = read_index(folder), {}
    for shard in index.shards:
        for key, files in members(folder / shard.name).items():
            facts = json.loads(read_member(folder / shard.name, files["json"]))
            data = read_member(folder / shard.name, files["safetensors"])
            found[facts["source"]] = (
                *layout.unpack(data, key, index.latents, index.prompt_embeds),
                facts,
            )
    return found


@pytest.mark.parametrize(
    ("fps", "total", "wanted", "expected"),
    [
        (8.0, 9, 5, [0, 1, 2, 3, 4]),
        (16.0, 9, 5, [0, 2, 4, 6, 8]),
        (12.0, 20, 6, [0, 1, 3, 4, 6, 7]),  # 1.5 frames a step: the one on screen
        (8000 / 1001, 300, 280, list(range(280))),  # NTSC beside 8: nothing repeated
        (8.01, 300, 100, list(range(100))),
    ],
)
def test_resampling_takes_the_frame_on_screen_at_each_time(fps, total, wanted, expected):
    times = np.arange(total) / fps
    assert resample(times, fps, Target(wanted, 0, 0, 8)).tolist() == expected


@pytest.mark.parametrize(
    ("total", "fps", "words"), [(8, 16.0, "too short: 8 frames at 16"), (99, 4.0, "lower --fps")]
)
def test_a_clip_that_is_too_short_or_too_slow_is_refused(total, fps, words):
    with pytest.raises(UserError, match=words):
        resample(np.arange(total) / fps, fps, Target(5, 0, 0, 8))


def test_a_faster_and_larger_clip_is_decoded_to_the_target(tmp_path):
    write_video(tmp_path / "a.mp4", random_clip(0, 33, 128, 160), 16)
    (tmp_path / "a.txt").write_text(" a ball \n")
    (source,) = find_sources(tmp_path)
    clip = decode(source, Target(17, 64, 64, 8))
    expected = fit(read_video(tmp_path / "a.mp4").frames[::2], 64, 64)
    assert np.array_equal(clip.frames, expected) and clip.prompt == "a ball"
    assert clip.facts["source_sha256"] == layout.sha256_file(tmp_path / "a.mp4")
    assert (clip.facts["source_height"], clip.facts["source_width"]) == (128, 160)


def test_fitting_keeps_the_ratio_and_the_centre():
    frames = random_clip(0, 3, 40, 60)
    assert np.array_equal(fit(frames, 40, 60), frames), "untouched where the size is right"
    assert np.array_equal(fit(frames, 40, 20), frames[:, :, 20:40]), "cropped, not squeezed"
    blocks = random_clip(1, 2, 20, 20).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(fit(blocks, 20, 20), blocks[:, ::2, ::2]), "areas are averaged"
    assert fit(frames, 63, 31).shape == (3, 63, 31, 3)


def test_samples_are_what_the_model_makes_of_clip_and_caption(whole, clips, tiny_family):
    found = by_source(whole)
    assert len(found) == CLIPS == read_index(whole).samples
    frames = read_video(clips / "more" / "clip 3.mp4").frames
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    latents, cut, facts = found["clips/more/clip 3.mp4"]
    expected = tiny_family.encode_video(video)[0].bfloat16()
    assert torch.equal(latents, expected)
    prompt = "a ball drifts across the desert"
    assert facts["prompt"] == prompt and facts["source_fps"] == 8
    embeds = tiny_family.encode_prompt([prompt]).prompt_embeds[0].bfloat16()
    assert len(cut) < len(embeds) and torch.equal(cut, embeds[: len(cut)])
    assert not embeds[len(cut) :].any()


def test_the_index_states_model_shapes_and_hashes(whole, tiny_family):
    index = read_index(whole)
    assert index.latents == list(tiny_family.latent_shape(17, 64, 64))
    assert (index.frames, index.height, index.width, index.fps) == (17, 64, 64, 8)
    assert [len(shard.keys) for shard in index.shards] == [2, 2, 1]
    for shard in index.shards:
        assert layout.sha256_file(whole / shard.name) == shard.sha256
    negative = tiny_family.encode_prompt([tiny_family.defaults.negative_prompt])
    stored = LatentSet(whole, 0).negative(tiny_family.defaults.negative_prompt)
    assert torch.equal(stored.prompt_embeds, negative.prompt_embeds)
    LatentSet(whole, 0).check(tiny_family, 17, 64, 64)
    LatentSet(whole, 0).check(tiny_family, 0, 0, 0)


def test_workers_and_parts_change_no_byte(whole, clips, tiny_checkpoint, tmp_path):
    parts = [
        encoder.encode(
            [clips], str(tiny_checkpoint), tmp_path / "parts", shard_size=2, workers=1,
            shard=Shard(i, 2),
        )
        for i in (1, 2)
    ]  # fmt: skip
    assert [part.finished for part in parts] == [False, True]
    assert bytes_of(tmp_path / "parts") == bytes_of(whole)


def test_manifests_and_webdataset_tars_give_the_same_samples(
    whole, clips, tiny_checkpoint, tmp_path
):
    manifest = tmp_path / "list.csv"
    rows = [f'{p},"{p.with_suffix(".txt").read_text().strip()}"' for p in clips.glob("*.mp4")]
    manifest.write_text("\n".join(["path,prompt", *rows]))
    tar = tmp_path / "some.tar"
    with tarfile.open(tar, "w") as file:
        for i in (0, 3):
            source = next(clips.rglob(f"clip {i}.mp4"))
            text = source.with_suffix(".txt").read_text().encode()
            if i == 3:
                text = json.dumps({"caption": text.decode()}).encode()
            file.add(source, f"deep/sample{i}.MP4")
            info = tarfile.TarInfo(f"deep/sample{i}.{'json' if i == 3 else 'txt'}")
            info.size = len(text)
            file.addfile(info, io.BytesIO(text))
    encoder.encode([manifest, tar], str(tiny_checkpoint), tmp_path / "out")
    found, expected = by_source(tmp_path / "out"), by_source(whole)
    assert len(found) == 4 + 2
    for name, same in {
        "list.csv/clip 2.mp4": "clips/clip 2.mp4",
        "some.tar/deep/sample0.mp4": "clips/clip 0.mp4",
        "some.tar/deep/sample3.mp4": "clips/more/clip 3.mp4",
    }.items():
        assert torch.equal(found[name][0], expected[same][0])
        assert torch.equal(found[name][1], expected[same][1])
        assert found[name][2]["source_sha256"] == expected[same][2]["source_sha256"]


def test_clips_written_by_webdataset_are_found(clips, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as writer:
        for path in sorted(clips.glob("*.mp4")):
            sample = {"mp4": path.read_bytes(), "json": {"caption": "a ball"}}
            writer.write({"__key__": path.stem, **sample})
    found = find_sources(tmp_path / "theirs.tar")
    assert [s.name for s in found] == [f"theirs.tar/clip {i}.mp4" for i in (0, 1, 2, 4)]
    assert found[0].read_prompt() == "a ball"
    with found[0].video_file() as path:
        assert path.read_bytes() == (clips / "clip 0.mp4").read_bytes()


def test_the_threads_write_the_bytes_of_one_thread(whole, clips, tiny_family, tmp_path):
    for number in range(3):
        samples = []
        for i, source in enumerate(find_sources(clips)[2 * number : 2 * number + 2]):
            clip = decode(source, Target(17, 64, 64, 8))
            video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            samples.append(
                layout.Sample(
                    f"{number:05d}-{i:05d}",
                    tiny_family.encode_video(video)[0],
                    tiny_family.encode_prompt([clip.prompt]).prompt_embeds[0],
                    clip.facts,
                )
            )
        name = f"shard-{number:05d}.tar"
        layout.write_shard(tmp_path / name, samples)
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_autoencoder_text_encoder_and_packing_work_at_the_same_time(
    clips, tiny_checkpoint, tmp_path, monkeypatch
):
    """A stage ends only when another, which would come later in turn, has begun."""
    originals = {"video": Wan.encode_video, "text": Wan.encode_prompt, "pack": layout.pack}
    threads, begun = {}, {stage: [threading.Event() for _ in range(CLIPS)] for stage in originals}
    count = dict.fromkeys(originals, 0)

    def staged(stage, waits_for):
        def run(*args):
            number, count[stage] = count[stage], count[stage] + 1
            threads[stage] = threading.current_thread()
            if number < CLIPS:  # the negative prompt comes last, alone
                begun[stage][number].set()
                if event := waits_for(number):
                    assert event.wait(60), f"{stage} {number} waits in vain"
            return originals[stage](*args)

        return run

    def following(number):
        return begun["video"][number + 1] if number + 1 < CLIPS else None

    monkeypatch.setattr(Wan, "encode_video", staged("video", lambda n: begun["text"][n]))
    monkeypatch.setattr(Wan, "encode_prompt", staged("text", lambda n: begun["video"][n]))
    monkeypatch.setattr(layout, "pack", staged("pack", following))
    encoder.encode([clips], str(tiny_checkpoint), tmp_path / "out", workers=2)
    assert threads["pack"] is threading.main_thread()
    assert threads["video"] is not threads["pack"]
    assert len(LatentSet(tmp_path / "out", 0)) == CLIPS


def test_a_set_says_where_tf32_made_its_latents(
    whole, clips, tiny_checkpoint, tmp_path, monkeypatch
):
    assert read_index(whole).tf32 is False
    monkeypatch.setattr(encoder, "uses_tf32", lambda device: True)
    copy = shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(UserError, match="made from other clips or settings"):
        encoder.encode([clips], str(tiny_checkpoint), copy, shard_size=2, resume=True)
    encoder.encode([clips], str(tiny_checkpoint), tmp_path / "out", shard_size=2)
    assert read_index(tmp_path / "out").tf32 is True


def test_a_stopped_call_goes_on_with_what_is_missing_and_ends_the_same(
    whole, clips, tiny_checkpoint, tmp_path, monkeypatch
):
    out, calls, encode_video = tmp_path / "out", [], Wan.encode_video

    def dying(self, video):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode_video(self, video)

    with monkeypatch.context() as patch:
        patch.setattr(Wan, "encode_video", dying)
        with pytest.raises(KeyboardInterrupt):
            encoder.encode([clips], str(tiny_checkpoint), out, shard_size=2)
    assert sorted(bytes_of(out)) == ["shard-00000.json", "shard-00000.tar"], "nothing half-written"
    (out / ".shard-00001.1a2b3c4d.part.tar").write_text("what a kill -9 leaves")
    with pytest.raises(UserError, match="pass --resume"):
        encoder.encode([clips], str(tiny_checkpoint), out, shard_size=2)
    before = (out / "shard-00000.tar").stat().st_mtime_ns
    encoder.encode([clips], str(tiny_checkpoint), out, shard_size=2, resume=True)
    assert (out / "shard-00000.tar").stat().st_mtime_ns == before
    assert bytes_of(out) == bytes_of(whole)
    with pytest.raises(UserError, match=r"shard-00000\.json was made from other clips or settings"):
        encoder.encode([clips], str(tiny_checkpoint), out, shard_size=3, resume=True)


def test_bad_clips_are_listed_with_their_reasons_and_left_out(
    clips, tiny_checkpoint, tmp_path, monkeypatch
):
    folder = copied(clips, tmp_path)
    (folder / "clip 0.mp4").write_bytes((folder / "clip 0.mp4").read_bytes()[:700])
    (folder / "clip 1.txt").unlink()
    write_video(folder / "clip 2.mp4", random_clip(0, 9, 64, 64), 8)
    encode_video, seen = Wan.encode_video, []

    def broken_once(self, video):
        seen.append(None)
        return encode_video(self, video) * (float("nan") if len(seen) == 1 else 1)

    monkeypatch.setattr(Wan, "encode_video", broken_once)
    result = CliRunner().invoke(
        app, ["data", "encode", str(folder), "--model", str(tiny_checkpoint), "--json",
              "--out", str(tmp_path / "out"), "--shard-size", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    reasons = {row["source"]: row["reason"] for row in said["left_out"]}
    assert said["samples"] == 1 and said["finished"]
    assert "not a readable video" in reasons["clips/clip 0.mp4"]
    assert str(tmp_path) not in reasons["clips/clip 0.mp4"]
    assert "caption" in reasons["clips/clip 1.mp4"]
    assert "too short: 9 frames" in reasons["clips/clip 2.mp4"]
    assert "not finite" in reasons["clips/clip 4.mp4"]
    assert len(LatentSet(tmp_path / "out", 0)) == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tar")) == ["shard-00004.tar"]


def test_where_no_clip_can_be_used_nothing_is_left(clips, tiny_checkpoint, tmp_path):
    folder = copied(clips, tmp_path)
    for path in folder.rglob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match="no clip could be used; the first: clips/clip 0"):
        encoder.encode([folder], str(tiny_checkpoint), tmp_path / "out")
    assert not bytes_of(tmp_path / "out")


def test_a_full_disk_is_one_line_and_takes_the_half_shard_away(
    whole, clips, tiny_checkpoint, tmp_path, monkeypatch
):
    add, written = layout.add_member, []

    def full(tar, name, data):
        written.append(name)
        if len(written) == 7:  # in the second shard
            raise OSError(errno.ENOSPC, "No space left on device")
        add(tar, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(layout, "add_member", full)
        with pytest.raises(UserError, match="no space left on the disk; free some") as caught:
            encoder.encode([clips], str(tiny_checkpoint), tmp_path / "out", shard_size=2)
    assert "\n" not in str(caught.value)
    assert sorted(bytes_of(tmp_path / "out")) == ["shard-00000.json", "shard-00000.tar"]
    encoder.encode([clips], str(tiny_checkpoint), tmp_path / "out", shard_size=2, resume=True)
    assert bytes_of(tmp_path / "out") == bytes_of(whole)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nowhere", "no such folder, manifest or tar"),
        (lambda p: p, "no clips"),
    ],
)
def test_an_input_without_clips_is_refused(tmp_path, make, words):
    with pytest.raises(UserError, match=words):
        find_sources(make(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{", r"not JSON \(.*\)"),
        (b"[]", "not a valid dictionary"),
        (b'{"text": "a ball"}', "lacks 'caption'"),
        (b'{"caption": 3, "fps": 8}', r"caption: not a valid string \(is 3\)"),
        (b'{"caption": " "}', "no caption"),
        (b"\xff", "its caption cannot be read"),
    ],
)
def test_a_caption_that_is_none_is_one_line_that_names_the_clip(tmp_path, text, words):
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name, data in (("a.mp4", b""), ("a.json", text)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (source,) = find_sources(tmp_path / "some.tar")
    with pytest.raises(UserError, match=rf"some\.tar/a\.mp4: {words}") as caught:
        source.read_prompt()
    assert "\n" not in str(caught.value)


def test_a_broken_index_of_a_shard_is_one_line(tmp_path):
    job = encoder._Job(tmp_path, 0, [], {})
    job.index.write_text('{"name": "a.tar"}')
    with pytest.raises(
        UserError, match=r"shard-00000\.json: lacks 'sha256'; delete it and its tar"
    ):
        job.finished()


def test_a_cut_tar_is_refused(clips, tmp_path):
    tar = tmp_path / "some.tar"
    with tarfile.open(tar, "w") as file:
        for path in sorted(clips.rglob("*.mp4")):
            file.add(path, path.name)
    tar.write_bytes(tar.read_bytes()[:6000])
    with pytest.raises(UserError, match=r"some\.tar: not a whole tar file"):
        find_sources(tar)


def test_sizes_that_do_not_fit_the_model_are_refused_before_anything_is_read(
    clips, tiny_checkpoint, tmp_path
):
    with pytest.raises(UserError, match="frames must be 1"):
        encoder.encode([clips], str(tiny_checkpoint), tmp_path / "o", Target(16, 64, 64, 8))


def test_a_set_of_another_autoencoder_or_size_is_refused(
    whole, tiny_family, tiny_checkpoint, tmp_path
):
    from dfdbench.models.registry import load_family
    from dfdbench.toy.checkpoint import TINY, write_checkpoint

    stream = LatentSet(whole, 0)
    with pytest.raises(
        UserError, match=r"17 frames at 64x64, the recipe wants 13.*data\.frames=17"
    ):
        stream.check(tiny_family, 13, 0, 0)
    other = load_family(write_checkpoint(tmp_path / "other", TINY, seed=1))
    with pytest.raises(UserError, match=r"index\.json: encoded with another autoencoder"):
        stream.check(other, 0, 0, 0)
