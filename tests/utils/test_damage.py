"""Bytes that are no whole video: one line, in time, and never frames that were made up."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import put_no_file
from ffmpeg_clips import CODECS, X264, ffmpeg, frames_and_errors, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dfdbench.utils.errors import UserError
from dfdbench.utils.video import frame_size, read_image, read_video

DAMAGED = ("h264.mp4", "hevc.mp4", "mpeg4.mp4", "intra-refresh.mp4", "h264-444.mp4", "mjpeg.mov")
LONGEST = 5  # seconds


def overwritten(whole: bytes, seed: int) -> bytes:
    """A copy of an mp4 with 1 to 48 random bytes at one place of its media data."""
    rng = np.random.default_rng(seed)
    start = whole.index(b"mdat") + 4
    end = start - 8 + int.from_bytes(whole[start - 8 : start - 4])
    count = int(rng.integers(1, 49))
    place = int(rng.integers(start, end - count))
    return whole[:place] + rng.bytes(count) + whole[place + count :]


def missed(folder: Path, count: int) -> tuple[int, list[str]]:
    """How many of `count` damaged clips ffmpeg complains of, and those of them that are read."""
    whole = {name: make(name, CODECS[name], folder).read_bytes() for name in DAMAGED}
    reported, silent = 0, []
    for seed in range(count):
        name = DAMAGED[seed % len(DAMAGED)]
        path = folder / f"damaged{seed}{Path(name).suffix}"
        path.write_bytes(overwritten(whole[name], seed))
        if not frames_and_errors(path)[1]:
            continue
        reported += 1
        try:
            read_video(path)
            silent.append(f"{name} {seed}")
        except UserError as error:
            assert "\n" not in str(error)
            assert path.name in str(error)
    return reported, silent


@pytest.mark.fault("A5")
def test_what_ffmpeg_complains_of_is_left_out(tmp_path: Path) -> None:
    reported, silent = missed(tmp_path, 12)
    assert reported >= 4 and silent == []


@pytest.mark.slow
@pytest.mark.fault("A5")
def test_of_240_damaged_clips_none_that_ffmpeg_complains_of_is_read(tmp_path: Path) -> None:
    reported, silent = missed(tmp_path, 240)
    assert reported >= 100 and silent == []


@pytest.mark.fault("A5")
def test_a_damaged_clip_is_read_where_that_is_asked_for(tmp_path: Path) -> None:
    whole = make("h264.mp4", X264, tmp_path).read_bytes()
    for seed in range(9):
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(overwritten(whole, seed))
        expected, errors = frames_and_errors(path)
        clip = read_video(path, allow_damaged=True)
        assert bool(clip.damage) >= bool(errors)
        assert len(clip.frames) == len(expected)
        if clip.damage:
            with pytest.raises(UserError, match=r"damaged \(.*download it again$"):
                read_video(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Files called .mp4 that are no video, by what they are."""
    whole = make("whole.mp4", X264, folder).read_bytes()
    front = make("front.mp4", f"{X264} -movflags faststart", folder).read_bytes()
    ffmpeg("-f lavfi -i sine=d=1 -c:a aac sound.mp4", cwd=folder)
    ffmpeg(f"-f lavfi -i testsrc2=s=64x64:r=8:d=1 {X264} -frames:v 0 none.mp4", cwd=folder)
    Image.new("RGB", (64, 64)).save(folder / "picture.png")
    moov = whole.index(b"moov")
    return {
        "empty": b"",
        "text": b"not a video\n" * 50,
        "zeros": bytes(4096),
        "noise": np.random.default_rng(0).bytes(50_000),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "list of files": b"ffconcat version 1.0\nfile whole.mp4\n",
        "picture": (folder / "picture.png").read_bytes(),
        "sound": (folder / "sound.mp4").read_bytes(),
        "no frame": (folder / "none.mp4").read_bytes(),
        "index alone": whole[moov - 4 :],
        "data alone": whole[: moov - 4],
        "half, index at the end": whole[: len(whole) // 2],
        "half, index in front": front[: len(front) // 2],
        "all but a little, index in front": front[:-100],
        "head": whole[:40],
    }


@pytest.mark.fault("A5", "F.video")
def test_what_is_no_whole_video_gives_one_line(tmp_path: Path) -> None:
    for what, content in contents(tmp_path).items():
        path = tmp_path / "clip.mp4"
        path.write_bytes(content)
        start = time.monotonic()
        with pytest.raises(UserError) as caught:
            print(what, read_video(path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value), what
        assert time.monotonic() - start < LONGEST, what


@pytest.mark.fault("D.fifo", "F.video")
@pytest.mark.parametrize("read", [read_video, frame_size, read_image])
@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device", "dangling"])
def test_only_regular_files_are_opened(
    tmp_path: Path, read: Callable[[Path], object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("clip.mp4")
    put_no_file(path, kind)
    if read is frame_size:
        assert frame_size(path) is None
        return
    with pytest.raises(UserError, match=r"clip.mp4: .*(regular file|no such)"):
        read(path)


@pytest.mark.fault("F.video")
@pytest.mark.parametrize("side", [8000, 65535])
@pytest.mark.parametrize("name", ["prores.mov", "ffv1.avi"])
def test_frames_too_large_to_be_true_are_refused(tmp_path: Path, name: str, side: int) -> None:
    """Where a header declares them: 16 bits a side, or 32."""
    options = CODECS.get(name, "-c:v ffv1 -pix_fmt yuv410p")
    path = make(name, options, tmp_path)
    data = path.read_bytes()
    width, order = (2, "big") if name.endswith("mov") else (4, "little")
    small = (80).to_bytes(width, order) + (64).to_bytes(width, order)
    assert small in data
    path.write_bytes(data.replace(small, side.to_bytes(width, order) * 2))
    start = time.monotonic()
    with pytest.raises(UserError, match=f"{name}: (not a readable video|damaged)"):
        read_video(path)
    assert time.monotonic() - start < LONGEST


@pytest.mark.fault("F.video")
def test_a_codec_that_nobody_knows_is_named(tmp_path: Path) -> None:
    path = make("clip.mkv", X264, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(UserError, match=r"clip.mkv: not a readable video \(no decoder"):
        read_video(path)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    names = ("h264.mp4", "vp9.webm", "mpeg2.ts", "mpeg4.avi", "gif.gif", "prores.mov")
    return [(Path(n).suffix, make(n, CODECS[n], folder).read_bytes()) for n in names]


@pytest.mark.fault("F.video")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_changed_bytes_give_frames_or_one_line(
    tmp_path: Path, wholes: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    suffix, whole = data.draw(st.sampled_from(wholes))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(content[:end])
    start = time.monotonic()
    try:
        clip = read_video(path, data.draw(st.sampled_from(["all", "even16", "middle8"])))
        assert clip.fps > 0 and len(clip.frames) == len(clip.indices) > 0
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    assert time.monotonic() - start < LONGEST


@pytest.mark.fault("A14")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_upright(tmp_path: Path, orientation: int) -> None:
    shown = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    stored = {  # of what is to be shown, by the definition of the tag
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.swapaxes(0, 1), 6: np.rot90(shown), 7: np.rot90(shown, 2).swapaxes(0, 1),
        8: np.rot90(shown, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), shown)


@pytest.mark.fault("A14")
def test_sixteen_bit_pictures_are_not_clipped(tmp_path: Path) -> None:
    grey = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert picture is not None
    np.testing.assert_array_equal(picture[..., 0], grey >> 8)


@pytest.mark.fault("A14")
@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_picture_gives_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a.png: not a readable picture"):
        read_image(tmp_path / "a.png")
