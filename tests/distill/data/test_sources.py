"""Clips and captions as they come: each that cannot be used is named, no other file is opened."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from clips import put_no_file
from ffmpeg_clips import CODECS, SOUND, X264, ffmpeg, make, shown

from dfdbench.distill.data.sources import Target, decode, find_sources, resample
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import fit

TARGET = Target(9, 64, 80, 8)
CAPTIONS: dict[str, tuple[str, bytes, str]] = {
    "none": ("", b"", "no caption; put one beside it"),
    "empty": ("txt", b" \n", "no caption; put one beside it"),
    "bytes": ("txt", b"\xff\xfe", "its caption cannot be read"),
    "no json": ("json", b"{", "not JSON"),
    "no object": ("json", b"null", "CaptionFile"),
    "no key": ("json", b"{}", "lacks 'caption'"),
    "no text": ("json", b'{"caption": null}', "caption: not a valid string"),
    "number": ("json", b'{"caption": 7}', "caption: not a valid string"),
    "deep": ("json", b"[" * 100_000, "not JSON"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make("clip.mp4", X264, tmp_path_factory.mktemp("clip")).read_bytes()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.fault("C.caption")
@pytest.mark.parametrize("what", CAPTIONS)
def test_a_clip_of_a_tar_without_caption_is_named_and_the_rest_is_read(
    tmp_path: Path, clip: bytes, what: str
) -> None:
    suffix, content, reason = CAPTIONS[what]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "one.mp4", clip)
        if suffix:
            add(tar, f"one.{suffix}", content)
        add(tar, "two.mp4", clip)
        add(tar, "two.txt", b"\xef\xbb\xbfa red ball\n")
    one, two = find_sources(tmp_path / "a.tar")
    with pytest.raises(UserError) as caught:
        decode(one, TARGET)
    assert str(caught.value).startswith("a.tar/one.mp4: ") and reason in str(caught.value)
    assert decode(two, TARGET).prompt == "a red ball", "without the byte-order mark"


@pytest.mark.fault("D.fifo", "A7")
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "dangling"])
def test_what_is_no_regular_file_is_neither_clip_nor_caption(
    tmp_path: Path, clip: bytes, kind: str
) -> None:
    for name in ("a.mp4", ".a.k2.mp4", "._a.mp4"):
        (tmp_path / name).write_bytes(clip)
    put_no_file(tmp_path / "a.txt", kind)
    put_no_file(tmp_path / "b.mp4", kind)
    (tmp_path / "b.txt").write_text("a ball")
    clip_without_caption, no_clip = find_sources(tmp_path)
    with pytest.raises(UserError, match=r"a\.mp4: (no caption|its caption)"):
        decode(clip_without_caption, TARGET)
    with pytest.raises(UserError, match=r"b\.mp4: (not a regular file|no such)"):
        decode(no_clip, TARGET)


@pytest.mark.fault("A6a", "A6b")
@pytest.mark.parametrize("name", ["intra-refresh.mp4", "open-gop.ts", "mpeg4.avi", "cut.mp4"])
def test_training_frames_are_those_that_a_player_shows(tmp_path: Path, name: str) -> None:
    if name == "cut.mp4":
        source = f"-f lavfi -i testsrc2=s=80x64:r=16:d=7 {SOUND} -c:a aac {X264} -g 12"
        ffmpeg(f"{source} whole.mkv", cwd=tmp_path)
        ffmpeg("-ss 1.3 -i whole.mkv -t 3 -c copy cut.mp4", cwd=tmp_path)
        (tmp_path / "whole.mkv").unlink()
    else:
        path = make(name.replace("ts", "mkv"), CODECS[name], tmp_path)
        name = path.name
    (tmp_path / name).with_suffix(".txt").write_text("a ball")
    (source,) = find_sources(tmp_path)
    expected = fit(shown(tmp_path / name)[:18:2], 64, 80)
    assert np.abs(decode(source, TARGET).frames.astype(int) - expected).max() <= 1


@pytest.mark.fault("A5")
def test_a_damaged_clip_is_no_training_clip(tmp_path: Path, clip: bytes) -> None:
    place = clip.index(b"mdat") + 900
    noise = np.random.default_rng(0).bytes(600)
    (tmp_path / "a.mp4").write_bytes(clip[:place] + noise + clip[place + 600 :])
    (tmp_path / "a.txt").write_text("a ball")
    with pytest.raises(UserError, match=r"/a\.mp4: (damaged|not a readable)"):
        decode(find_sources(tmp_path)[0], TARGET)


@pytest.mark.fault("A6e")
def test_of_a_clip_of_varying_rate_the_frame_on_screen_is_taken() -> None:
    times = np.array([0, 1, 2, 6, 7, 8, 9, 10, 11, 12]) / 8  # the third stays for half a second
    assert resample(times, 10 / 1.5, Target(9, 0, 0, 6)).tolist() == [0, 1, 2, 2, 2, 3, 5, 6, 7]
    with pytest.raises(UserError, match="too short"):
        resample(times, 10 / 1.5, Target(12, 0, 0, 6))
