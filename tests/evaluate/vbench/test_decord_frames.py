"""decord's frames are ours where a clip is plain; where it sees others that is said."""

from pathlib import Path

import numpy as np
import pytest
from clips import random_clip, released_videos
from ffmpeg_clips import CODECS, SOUND, X264, ffmpeg, make

from dfdbench.evaluate import engine
from dfdbench.evaluate.vbench import decord_frames
from dfdbench.evaluate.vbench.decord_frames import difference_to_decord, seen_otherwise
from dfdbench.generate.suites import get_suite
from dfdbench.toy import world
from dfdbench.utils.video import read_video, write_video

pytestmark = pytest.mark.skipif(decord_frames._decord() is None, reason="decord has no wheel here")


def decord_reads(path: Path) -> np.ndarray:
    reader = decord_frames._decord().VideoReader(str(path), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()


@pytest.mark.fault("A6")
def test_pixels_of_the_clips_that_dfdbench_writes_are_decords(tmp_path: Path) -> None:
    clips = world.render(world.sample_attributes(4, seed=5)).permute(0, 2, 3, 4, 1)
    for clip in (clips.numpy() * 255).round().astype(np.uint8):
        write_video(tmp_path / "clip.mp4", clip, fps=8)
        read = read_video(tmp_path / "clip.mp4").frames
        np.testing.assert_array_equal(read, decord_reads(tmp_path / "clip.mp4"))


@pytest.mark.fault("A6")
@pytest.mark.parametrize("name", ["t2v/vipe_coast_dmd.mp4", "diversity/dfd_1.mp4"])
def test_pixels_of_released_clips_are_decords(name: str) -> None:
    path = released_videos() / name
    np.testing.assert_array_equal(read_video(path).frames, decord_reads(path))
    assert difference_to_decord(path) is None


@pytest.mark.fault("A6b", "A6c")
def test_what_decord_sees_otherwise_is_said(tmp_path: Path) -> None:
    source = f"-f lavfi -i testsrc2=s=80x64:r=16:d=7.5 {SOUND} -c:a aac {X264} -g 12"
    ffmpeg(f"{source} whole.mp4", cwd=tmp_path)
    ffmpeg("-ss 1.3 -i whole.mp4 -t 3 -c copy cut.mp4", cwd=tmp_path)
    assert difference_to_decord(tmp_path / "cut.mp4") == "sees 59 frames, not 50"
    make("flat.mp4", CODECS["h264.mp4"], tmp_path)
    assert difference_to_decord(tmp_path / "flat.mp4") is None
    ffmpeg("-display_hflip -i flat.mp4 -c copy mirrored.mp4", cwd=tmp_path)
    assert "frames otherwise" in (difference_to_decord(tmp_path / "mirrored.mp4") or "")


@pytest.mark.fault("A6")
def test_clips_of_official_values_are_named(tmp_path: Path) -> None:
    for i in range(2):
        write_video(tmp_path / f"a fox-{i}.mp4", random_clip(i, height=64, width=64), fps=8)
    summary = engine.score([tmp_path], "released-clips", tmp_path, families=["colour"])
    suite = get_suite("released-clips")
    assert seen_otherwise(summary.stores, suite) == []
    (tmp_path / "a fox-0.mp4").rename(tmp_path / "flat.mp4")
    ffmpeg("-display_hflip -i flat.mp4 -c copy turned.mp4", cwd=tmp_path)
    (tmp_path / "turned.mp4").rename(tmp_path / "a fox-0.mp4")
    (line,) = seen_otherwise(summary.stores, suite)
    assert line.startswith("a fox-0.mp4: decord, which the official vbench reads with, sees ")
