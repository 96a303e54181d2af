"""temporal_flickering against an independent loop and OpenCV, with its orientation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import random_clip, released_videos

from dfdbench.evaluate.metrics.flicker import temporal_flickering
from dfdbench.utils.video import read_video


def by_loop(frames: list[np.ndarray]) -> float:
    """VBench's definition, with OpenCV's absolute difference on float32 frames."""
    total = 0.0
    for i in range(len(frames) - 1):
        difference = cv2.absdiff(frames[i].astype(np.float32), frames[i + 1].astype(np.float32))
        total += float(difference.mean(dtype=np.float64))
    return (255.0 - total / (len(frames) - 1)) / 255.0


def opencv_frames(path: Path) -> list[np.ndarray]:
    reader, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = reader.read()
        if not there:
            return frames
        frames.append(frame)


def test_equals_the_loop_on_frames_decoded_by_opencv() -> None:
    path = released_videos() / "t2v" / "anim_fox_teacher.mp4"
    decoded = opencv_frames(path)
    assert len(decoded) == 81
    assert temporal_flickering(read_video(path).frames) == pytest.approx(by_loop(decoded), abs=1e-5)


def test_equals_the_loop_on_random_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    assert temporal_flickering(frames) == pytest.approx(by_loop(list(frames)), abs=1e-9)


def test_still_clip_is_one_and_black_white_flicker_is_zero() -> None:
    still = np.repeat(random_clip()[:1], 4, axis=0)
    assert temporal_flickering(still) == 1
    flicker = np.zeros((4, 8, 8, 3), np.uint8)
    flicker[1::2] = 255
    assert temporal_flickering(flicker) == 0


def test_uint8_differences_do_not_wrap() -> None:
    frames = np.stack([np.full((2, 2, 3), v, np.uint8) for v in (10, 5)])
    assert temporal_flickering(frames) == pytest.approx(250 / 255)
