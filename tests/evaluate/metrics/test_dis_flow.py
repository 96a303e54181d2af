"""DIS dynamic degree: known translations, VBench's rule on both sides, one value on any machine."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from clips import as_clip, moving_texture

from dfdbench.evaluate.metrics import dis_flow
from dfdbench.evaluate.metrics.dis_flow import THRESHOLD, compute, is_dynamic, magnitudes, stride


def test_known_translation_gives_its_length_and_speed():
    frames = moving_texture(9, 3, height=128)
    found = magnitudes(frames[::2])
    # the fastest 5 % hold the errors at the border that the texture crosses
    np.testing.assert_allclose(found, 6 / 128, rtol=0.05)
    # 16 fps, every second frame: 8 pairs a second
    speed = compute(as_clip(frames, 16.0))["dis_flow_magnitude"]
    assert speed == pytest.approx(8 * 6 / 128, rel=0.05)


def test_speed_depends_on_neither_frame_rate_nor_size_of_the_same_motion():
    coarse, fine = moving_texture(9, 4), moving_texture(9, 2)
    speed = compute(as_clip(coarse, 8.0))["dis_flow_magnitude"]
    assert compute(as_clip(fine, 16.0))["dis_flow_magnitude"] == pytest.approx(speed, rel=0.05)
    large = np.stack([cv2.resize(f, None, fx=4, fy=4) for f in coarse])
    assert min(large.shape[1:3]) > dis_flow.SIDE
    assert compute(as_clip(large, 8.0))["dis_flow_magnitude"] == pytest.approx(speed, rel=0.05)


def test_the_fastest_twentieth_of_the_pixels_counts():
    frames = moving_texture(2, 0, height=256, width=256)
    moving = moving_texture(2, 4, height=80, width=256, seed=1)
    few = frames.copy()
    few[:, 88:168] = moving  # 31 % of the pixels
    assert magnitudes(few)[0] == pytest.approx(4 / 256, rel=0.1)
    assert magnitudes(frames)[0] < 0.01 / 256


def test_still_clip_has_no_motion():
    values = compute(as_clip(moving_texture(9, 0)))
    assert values["dis_flow_dynamic"] == 0
    assert values["dis_flow_magnitude"] == pytest.approx(0, abs=1e-3)


def test_threshold_is_six_pixels_at_256():
    for shift, dynamic in ((5, 0.0), (7, 1.0)):
        clip = as_clip(moving_texture(5, shift, height=256, width=320), fps=8.0)
        assert compute(clip)["dis_flow_dynamic"] == dynamic


def test_a_quarter_of_the_frames_must_move():
    slow, fast = THRESHOLD, THRESHOLD * 1.01  # exactly the threshold is not above it
    pairs = np.full(40, slow)  # 41 frames: round(4 · 41 / 16) = 10
    pairs[:9] = fast
    assert not is_dynamic(pairs)
    pairs[9] = fast
    assert is_dynamic(pairs)
    assert not is_dynamic(np.append(pairs, [slow, slow]))  # 43 frames, not pairs: 11
    assert is_dynamic(np.array([fast])) and not is_dynamic(np.array([slow]))


def test_stride_is_that_of_vbench():
    rates = {4.0: 1, 8.0: 1, 12.0: 2, 16.0: 2, 20.0: 2, 24.0: 3, 29.97: 4, 60.0: 8}
    assert {fps: stride(fps) for fps in rates} == rates


def test_clip_shorter_than_a_stride_has_no_value():
    assert compute(as_clip(moving_texture(4, 3), fps=60.0)) == {}


def test_threads_change_nothing():
    clips = [as_clip(moving_texture(7, step, seed=step)) for step in range(1, 7)]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = [compute(clip) for clip in clips]
        cv2.setNumThreads(4)
        assert [compute(clip) for clip in clips] == alone
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(compute, clips)) == alone
    finally:
        cv2.setNumThreads(before)
