"""PSNR of the first frame against the given picture."""

import numpy as np
import pytest
from clips import random_clip

from dfdbench.evaluate.metrics.first_frame import FAMILY, compute, psnr
from dfdbench.utils.video import Clip


def clip(frames, image):
    return Clip(frames, 8.0, "none", np.arange(len(frames)), image=image)


def test_psnr_of_a_known_error_and_its_sign():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black + np.uint8(51), black) == pytest.approx(20 * np.log10(5))
    assert psnr(black, black + np.uint8(51)) == pytest.approx(20 * np.log10(5))
    assert psnr(black + np.uint8(102), black) < psnr(black + np.uint8(51), black)


def test_it_is_the_first_frame_that_counts():
    frames = random_clip()
    value = compute(clip(frames, frames[0]))["first_frame_psnr"]
    assert value == 100 and compute(clip(frames[::-1], frames[0]))["first_frame_psnr"] < 20


def test_a_larger_picture_is_fitted_to_the_clip():
    frames = np.full((2, 16, 24, 3), 40, np.uint8)
    picture = np.full((64, 64, 3), 200, np.uint8)
    picture[11:53] = 40  # 64 x 42.7 of it have the clip's ratio
    assert compute(clip(frames, picture))["first_frame_psnr"] > 30
    assert compute(clip(frames, picture.transpose(1, 0, 2)))["first_frame_psnr"] < 15


def test_without_a_picture_there_is_no_value():
    assert compute(clip(random_clip(), None)) == {} and FAMILY.needs == ("image",)
