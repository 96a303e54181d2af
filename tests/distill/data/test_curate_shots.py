"""Stage `shots`: cuts, what is measured, which shots are left out, and near duplicates."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from clips import moving_texture, random_clip
from curation import toy_frames, write_footage

from dfdbench.distill.data.curate.cuts import detector, pieces
from dfdbench.distill.data.curate.footage import shot_frames, spread
from dfdbench.distill.data.curate.measures import bar_area, black_bars, perceptual_hash, unlike
from dfdbench.distill.data.curate.rows import Shot
from dfdbench.distill.data.curate.shots import LEFT_OUT, Filters, shots
from dfdbench.distill.data.curate.work import read_rows
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video, stream_video, write_video

LOOSE = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)


def found(inputs, out, **changes):
    shots(inputs, out, replace(LOOSE, **changes))
    return read_rows(out, "shots", Shot)


def subtitled(frames):
    height, width = frames.shape[1:3]
    lined = frames.copy()
    for frame in lined:
        place, size = (width // 10, int(0.9 * height)), height / 400
        cv2.putText(frame, "words that stay", place, cv2.FONT_HERSHEY_SIMPLEX, size, (255,) * 3, 2)
    return lined


# Measures


def test_bars_are_what_stays_black_along_the_edges_through_all_frames():
    frame = np.full((60, 80), 120, np.uint8)
    frame[:6], frame[-9:], frame[:, :8] = 3, 0, 10
    assert black_bars(frame) == pytest.approx([0.1, 0.15, 0.1, 0])
    night = np.zeros((60, 80), np.uint8)
    assert bar_area(np.stack([black_bars(frame), black_bars(night)])) == pytest.approx(
        1 - 0.75 * 0.9
    )
    less = np.stack([black_bars(frame), np.array([0.2, 0, 0.3, 0])])
    assert bar_area(less) == pytest.approx(1 - 0.9 * 0.9)
    assert bar_area(black_bars(night)[None]) == 1


def test_a_hash_survives_scale_and_noise_and_tells_scenes_apart():
    rng = np.random.default_rng(0)
    greys = [cv2.cvtColor(c[8], cv2.COLOR_RGB2GRAY) for c in toy_frames(8)]
    hashes = [perceptual_hash(grey) for grey in greys]
    for grey, own in zip(greys, hashes, strict=True):
        larger = cv2.resize(grey, (160, 90), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(larger + rng.normal(0, 4, larger.shape), 0, 255).astype(np.uint8)
        assert (own ^ perceptual_hash(noisy)).bit_count() < 8
    apart = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) >= 8


def test_the_hash_is_that_of_imagehash():
    imagehash = pytest.importorskip("imagehash")
    from PIL import Image

    grey = np.random.default_rng(3).integers(0, 255, (32, 32), dtype=np.uint8)
    assert f"{perceptual_hash(grey):016x}" == str(imagehash.phash(Image.fromarray(grey)))


def test_shots_differ_by_the_most_unlike_of_their_three_hashes():
    one = np.array([0, 0, 0], np.uint64)
    others = np.array([[1, 3, 0], [0, 0, 2**64 - 1]], np.uint64)
    assert unlike(one, others).tolist() == [2, 64]


# Cuts


def test_pieces_are_equal_and_no_longer_than_asked():
    assert pieces([10, 30], 40, 0) == [(0, 10), (10, 20), (30, 10)]
    assert pieces([], 25, 10) == [(0, 8), (8, 8), (16, 9)]
    assert pieces([0, 40, 10, 10], 40, 0) == [(0, 10), (10, 30)]


def test_cuts_are_found_at_the_first_frame_after_them(tmp_path):
    pytest.importorskip("scenedetect")
    videos = write_footage(tmp_path / "videos", count=1, films=2)
    starts = [(s.path[-10:], s.start) for s in found([videos], tmp_path / "out", cuts="adaptive")]
    films = [(f"film-{i}.mp4", start) for i in range(2) for start in (0, 17, 34)]
    assert starts == [("clip-0.mp4", 0), *films]


def test_a_missing_library_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scenedetect", None)
    videos = write_footage(tmp_path / "videos", count=1)
    with pytest.raises(UserError, match=r"pip install 'dfdbench\[curate\]'.*--cuts none"):
        shots([videos], tmp_path / "out", Filters())
    assert not (tmp_path / "out").exists()
    assert detector("none", 8.0)(0, np.zeros((4, 4, 3), np.uint8)) == []


# Frames


def test_a_stream_shows_the_frames_that_a_reader_reads(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, random_clip(0, frames=9), 8)
    frames = read_video(path).frames
    assert [number for number, _ in stream_video(path)] == [*range(9)]
    for number, picture in stream_video(path, [2, 5]):
        assert np.array_equal(picture, frames[number])
    assert [number for number, _ in stream_video(path, [2, 5])] == [2, 5]
    with pytest.raises(UserError, match=r"gone\.mp4: no such video"):
        next(stream_video(tmp_path / "gone.mp4"))


def test_frames_of_shots_are_those_of_their_place_in_the_video(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, random_clip(0, frames=20), 10)
    frames = read_video(path).frames
    rows = found([path], tmp_path / "out", max_seconds=0.7)
    assert [(s.start, s.frames) for s in rows] == [(0, 6), (6, 7), (13, 7)]
    for shot, given in shot_frames(tmp_path / "out", rows, spread(2)):
        wanted = [shot.start + int(0.25 * shot.frames), shot.start + int(0.75 * shot.frames)]
        assert np.array_equal(given, frames[wanted])
    path.unlink()
    faults = [str(given) for _, given in shot_frames(tmp_path / "out", rows, spread(2))]
    assert len(faults) == 3
    assert "no such video" in faults[0]


def test_a_video_that_became_shorter_is_told(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, random_clip(0, frames=20), 10)
    rows = found([path], tmp_path / "out", max_seconds=1)
    write_video(path, random_clip(0, frames=12), 10)
    first, second = (given for _, given in shot_frames(tmp_path / "out", rows, spread(4)))
    assert len(first) == 4
    assert "ends before frame" in str(second)


# Filters


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_seconds": 2.2}, "2.12 s, shorter than 2.2"),
        ({"min_side": 65}, "64 pixels, smaller than 65"),
        ({"min_motion": 1e3}, "static: "),
    ],
)
def test_a_filter_says_why(tmp_path, changes, reason):
    videos = write_footage(tmp_path / "videos", count=1)
    (row,) = found([videos], tmp_path / "out", **changes)
    assert row.left_out is not None
    assert row.left_out.startswith(reason)


def test_still_barred_lettered_and_repeated_shots_are_left_out(tmp_path):
    videos, moving = tmp_path / "videos", moving_texture(17, 4, 288, 512)
    barred = moving.copy()
    barred[:, :40], barred[:, -40:] = 0, 0
    write_video(videos / "a.mp4", moving, 8)
    write_video(videos / "b-still.mp4", moving_texture(1, 1, 288, 512, 1).repeat(17, 0), 8)
    write_video(videos / "c-barred.mp4", barred, 8)
    write_video(videos / "d-lettered.mp4", subtitled(moving_texture(17, 4, 288, 512, 2)), 8)
    write_video(
        videos / "e-copy.mp4", np.stack([cv2.resize(frame, (448, 252)) for frame in moving]), 8
    )
    write_video(videos / "f.mp4", moving_texture(17, 4, 288, 512, 3), 8)
    shots([videos], tmp_path / "out", Filters(cuts="none"))
    rows = read_rows(tmp_path / "out", "shots", Shot)
    reasons = [(row.left_out or "").split(":")[0].split(" of ")[0] for row in rows]
    assert reasons == ["", "static", "letterbox", "text", "near duplicate", ""]
    assert rows[0].id in (rows[4].left_out or "")


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path):
    videos = write_footage(tmp_path / "videos", count=2)
    (videos / "broken.mp4").write_bytes(b"no video")
    (videos / "clip-0.txt").write_text(" a ball \n")
    rows = found([videos], tmp_path / "out")
    assert [row.caption for row in rows] == ["a ball", None]
    (line,) = (tmp_path / "out" / LEFT_OUT).read_text().splitlines()
    assert json.loads(line)["video"] == "videos/broken.mp4"
