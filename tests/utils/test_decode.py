"""The frames are those that the ffmpeg program shows, to one grey level, whatever the file."""

from pathlib import Path

import numpy as np
import pytest
from ffmpeg_clips import CODECS, COLOURS, MPEG4, ROTATIONS, SOUND, X264, ffmpeg, make, shown

from dfdbench.utils.video import frame_size, read_video


def assert_as_shown(path: Path, fps: float | None = 16, damaged: bool = False) -> np.ndarray:
    """Compare all frames and a sparse choice with the program's; gives them."""
    expected = shown(path)
    clip = read_video(path, allow_damaged=damaged)
    assert clip.frames.shape == expected.shape and len(expected)
    assert np.abs(clip.frames.astype(int) - expected).max() <= 1
    if fps:
        assert clip.fps == pytest.approx(fps, rel=1e-6)
    sparse = read_video(path, "even16", damaged)
    np.testing.assert_array_equal(sparse.frames, clip.frames[sparse.indices])
    assert frame_size(path) == clip.frames.shape[2:0:-1]
    return expected


@pytest.mark.fault("A6a", "A6e", "A6f")
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_and_container(tmp_path: Path, name: str) -> None:
    rate = None if name.startswith(("variable", "gif")) else 16
    assert_as_shown(make(name, CODECS[name], tmp_path), rate)


@pytest.mark.fault("A6f")
@pytest.mark.parametrize("name", COLOURS)
def test_matrix_and_range_as_tagged(tmp_path: Path, name: str) -> None:
    space, levels, pixels = COLOURS[name]
    codec = "libx265 -preset ultrafast -x265-params log-level=none"
    tags = f"-vf setparams=colorspace={space}:range={levels} -c:v {codec} -pix_fmt {pixels}"
    assert_as_shown(make("clip.mp4", tags, tmp_path))


@pytest.mark.fault("A6f")
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_keeps_its_code_values(tmp_path: Path, transfer: str) -> None:
    tags = f"colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    codec = "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le"
    assert_as_shown(make("hdr.mp4", f"-vf setparams={tags} {codec}", tmp_path))


@pytest.mark.fault("A6c")
@pytest.mark.parametrize("turn", ROTATIONS)
@pytest.mark.parametrize("size", ["80x64", "77x61"])
def test_display_matrix_turns_and_mirrors(tmp_path: Path, turn: str, size: str) -> None:
    make("flat.mp4", f"-vf scale={size} -c:v libx264 -pix_fmt yuv444p -frames:v 5", tmp_path)
    ffmpeg(f"{turn} -i flat.mp4 -c copy turned.mp4", cwd=tmp_path)
    assert_as_shown(tmp_path / "turned.mp4")


@pytest.mark.fault("A6b")
@pytest.mark.parametrize("codec", [f"{X264} -g 12", MPEG4])
@pytest.mark.parametrize("start", [1.3, 0.77, 2.0])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_edit_lists_hide_what_they_cut(
    tmp_path: Path, codec: str, start: float, suffix: str
) -> None:
    source = f"-f lavfi -i testsrc2=s=80x64:r=16:d=7.5 {SOUND} -c:a aac"
    ffmpeg(f"{source} {codec} av.mp4", cwd=tmp_path)
    ffmpeg(f"-ss {start} -i av.mp4 -t 3 -c copy cut.{suffix}", cwd=tmp_path)
    assert_as_shown(tmp_path / f"cut.{suffix}")


@pytest.mark.fault("A6d")
@pytest.mark.parametrize("options", [
    "-map 0 -map 1", "-map 1 -map 0", "-map 0 -map 1 -disposition:v:0 0 -disposition:v:1 default",
    "-map 0 -map 1 -disposition:v:0 default -disposition:v:1 0",
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_two_streams_the_one_that_ffmpeg_takes(
    tmp_path: Path, options: str, suffix: str
) -> None:
    make("small.mp4", X264, tmp_path, "-f lavfi -i testsrc2=s=80x64:r=8:d=2")
    make("large.mp4", X264, tmp_path, "-f lavfi -i testsrc=s=160x96:r=24:d=2")
    ffmpeg(f"-i small.mp4 -i large.mp4 {options} -c copy two.{suffix}", cwd=tmp_path)
    frames = assert_as_shown(tmp_path / f"two.{suffix}", None)
    rate = 24 if frames.shape[2] == 160 else 8
    assert read_video(tmp_path / f"two.{suffix}").fps == pytest.approx(rate)


@pytest.mark.fault("A6d")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_picture_is_not_the_clip(tmp_path: Path, suffix: str) -> None:
    make("flat.mp4", X264, tmp_path)
    ffmpeg("-f lavfi -i testsrc=s=640x480:d=1 -frames:v 1 cover.jpg", cwd=tmp_path)
    cover = (
        "-map 0 -map 1 -disposition:v:1 attached_pic"
        if suffix == "mp4"
        else "-attach cover.jpg -metadata:s:t mimetype=image/jpeg"
    )
    inputs = "-i flat.mp4 -i cover.jpg" if suffix == "mp4" else "-i flat.mp4"
    ffmpeg(f"{inputs} {cover} -c copy out.{suffix}", cwd=tmp_path)
    assert assert_as_shown(tmp_path / f"out.{suffix}").shape[1:3] == (64, 80)


@pytest.mark.fault("A6e")
def test_a_stream_that_changes_size_keeps_its_first(tmp_path: Path) -> None:
    small = make("small.ts", X264, tmp_path)
    large = make("large.ts", X264, tmp_path, "-f lavfi -i testsrc2=s=96x96:r=16:d=1")
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    # ffmpeg too takes the seam for a corrupt packet
    frames = assert_as_shown(tmp_path / "both.ts", None, damaged=True)
    assert frames.shape == (48, 64, 80, 3)


@pytest.mark.fault("A6a")
@pytest.mark.parametrize("name", ["intra-refresh.mp4", "open-gop.mp4", "mpeg4.avi", "mpeg2.ts"])
def test_a_policy_never_changes_a_frame(tmp_path: Path, name: str) -> None:
    path = make(name, CODECS[name], tmp_path)
    whole = read_video(path).frames
    for chosen in ([0], [31], [3, 7, 19], [5, 5, 30], list(range(0, 32, 2))):
        some = read_video(path, lambda times, fps, chosen=chosen: np.array(chosen))
        np.testing.assert_array_equal(some.frames, whole[chosen])
        assert some.fps == 16


@pytest.mark.fault("A6e")
def test_rate_and_times_come_from_presentation(tmp_path: Path) -> None:
    """Frames 0, 3, 5, 6 … of 16 a second: a header would say 16."""
    path = make("variable-rate.mp4", CODECS["variable-rate.mp4"], tmp_path)
    numbers = np.array([n for n in range(32) if n % 3 == 0 or n % 5 == 0])
    seen = []

    def choose(times: np.ndarray, fps: float) -> np.ndarray:
        seen.append(times)
        return np.arange(len(times))

    assert read_video(path, choose).fps == pytest.approx((len(numbers) - 1) / numbers[-1] * 16)
    np.testing.assert_allclose(seen[-1], numbers / 16, atol=1e-3)


@pytest.mark.parametrize("name", ["clip: a fox.mp4", "100%d.mp4", "-x.mp4", "é 漢.mp4", "a|b.mp4"])
def test_names_are_files_whatever_they_look_like(tmp_path: Path, name: str) -> None:
    make("h264.mp4", X264, tmp_path).rename(tmp_path / name)
    assert len(read_video(tmp_path / name).frames) == 32
