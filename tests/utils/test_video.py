"""Reader and writer: fidelity, policies, clear errors, same bytes."""

from pathlib import Path

import av
import numpy as np
import pytest
from clips import random_clip

from dfdbench.toy import world
from dfdbench.utils import video
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import frame_indices, read_video, select, write_video


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def toy_clips(count: int) -> np.ndarray:
    clips = world.render(world.sample_attributes(count, seed=5)).permute(0, 2, 3, 4, 1)
    return (clips.numpy() * 255).round().astype(np.uint8)


def test_toy_clips_survive_writing_within_45_decibels(tmp_path: Path) -> None:
    for frames in toy_clips(4):
        write_video(tmp_path / "clip.mp4", frames, fps=8)
        clip = read_video(tmp_path / "clip.mp4")
        assert clip.frames.shape == frames.shape and clip.fps == 8
        assert psnr(clip.frames, frames) > 45
        # A swapped channel would still be a picture, but a wrong one.
        assert psnr(clip.frames[..., ::-1], frames) < 35


def test_odd_sizes_keep_their_size(tmp_path: Path) -> None:
    frames = random_clip(height=31, width=45)
    write_video(tmp_path / "odd.mp4", frames, fps=24)
    assert read_video(tmp_path / "odd.mp4").frames.shape == frames.shape


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Also where buffers lie elsewhere in memory, which moves x264's default rounding."""
    clip, kept, files = random_clip(1), [], set()
    for size in np.random.default_rng(0).integers(1, 200_000, 120):
        kept.append(np.empty(size, np.uint8))
        kept = kept[-40:]
        write_video(tmp_path / "a.mp4", clip, fps=16)
        files.add((tmp_path / "a.mp4").read_bytes())
    assert len(files) == 1


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    monkeypatch.setattr(video, "PIXEL_FORMAT", "no_such_format")
    with pytest.raises(ValueError):
        write_video(path, random_clip(), fps=8)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_float_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="uint8"):
        write_video(tmp_path / "clip.mp4", np.zeros((2, 8, 8, 3), np.float32), fps=8)


def test_policy_while_decoding_equals_selection_afterwards(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", random_clip(frames=41), fps=8)
    decoded = read_video(tmp_path / "clip.mp4", "even16")
    selected = select(read_video(tmp_path / "clip.mp4", "all"), "even16")
    np.testing.assert_array_equal(decoded.frames, selected.frames)
    np.testing.assert_array_equal(decoded.indices, selected.indices)


@pytest.mark.parametrize("total", [1, 2, 15, 16, 17, 81])
def test_even16_takes_both_ends_and_nothing_twice(total: int) -> None:
    indices = frame_indices(total, "even16")
    assert len(set(indices)) == len(indices) == min(16, total)
    assert indices[0] == 0 and indices[-1] == total - 1
    assert np.ptp(np.diff(indices)) <= 1 if total > 2 else True


def test_unknown_policy_names_a_near_one() -> None:
    with pytest.raises(UserError, match="even16"):
        frame_indices(8, "even17")


def broken_files(folder: Path) -> dict[str, Path]:
    """Files that are no video, by what is wrong with them."""
    whole = folder / "whole.mp4"
    write_video(whole, random_clip(frames=40, height=64, width=96), fps=8)
    data = whole.read_bytes()
    front = folder / "front.mp4"
    fast = {"movflags": "faststart"}
    with av.open(str(whole)) as source, av.open(str(front), "w", options=fast) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    contents = {
        "empty": b"",
        "text": b"not a video\n" * 50,
        "cut, index at the end": data[: len(data) // 2],
        "cut, index at the front": front.read_bytes()[: front.stat().st_size * 2 // 3],
    }
    paths = {}
    for i, (what, content) in enumerate(contents.items()):
        paths[what] = folder / f"broken{i}.mp4"
        paths[what].write_bytes(content)
    return paths


def test_broken_files_give_one_line_with_their_name(tmp_path: Path) -> None:
    paths = {**broken_files(tmp_path), "missing": tmp_path / "missing.mp4"}
    for what, path in paths.items():
        with pytest.raises(UserError) as caught:
            read_video(path)
        assert path.name in str(caught.value), what
        assert "\n" not in str(caught.value), what


@pytest.mark.parametrize(
    ("total", "policy", "expected"),
    [
        (81, "middle8", [4, 14, 24, 34, 44, 54, 64, 75]),  # edges 0 10 20 … 70 81
        (17, "middle8", [0, 2, 4, 6, 8, 10, 12, 15]),  # edges 0 2 4 6 8 10 12 14 17
        (8, "middle8", list(range(8))),
        (3, "middle8", [0, 1, 2, 2, 2, 2, 2, 2]),
        (5, "middle16", [0, 1, 2, 3, 4, *[4] * 11]),
    ],
)
def test_middle_of_each_part_padded_with_the_last(
    total: int, policy: str, expected: list[int]
) -> None:
    assert frame_indices(total, policy).tolist() == expected


@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]])
def test_a_stream_of_frames_gives_the_bytes_of_the_whole(tmp_path: Path, cuts: list[int]) -> None:
    clip = random_clip()[:8]
    write_video(tmp_path / "whole.mp4", clip, fps=8)
    with video.video_writer(tmp_path / "parts.mp4", 8) as write:
        for part in np.split(clip, np.cumsum(cuts)[:-1]):
            write(part)
            assert not (tmp_path / "parts.mp4").exists(), "it takes its name at the end"
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("spoil", [np.float32, lambda frames: frames[:, :-2]])
def test_a_stream_that_goes_wrong_leaves_no_file(tmp_path: Path, spoil) -> None:
    def go_wrong() -> None:
        with video.video_writer(tmp_path / "clip.mp4", 8) as write:
            write(random_clip())
            write(spoil(random_clip()))

    with pytest.raises(UserError, match=r"clip\.mp4: frames"):
        go_wrong()
    with (
        pytest.raises(UserError, match="no frames to write"),
        video.video_writer(tmp_path / "clip.mp4", 8),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
