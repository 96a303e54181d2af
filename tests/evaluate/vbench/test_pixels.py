"""Pillow's resize on tensors, number by number."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfdbench.evaluate.metrics.vbench.nets.pixels import as_pillow, resized_by_pillow

RNG = np.random.default_rng(0)
FRAMES = {
    "noise": lambda h, w: RNG.integers(0, 256, (h, w, 3), np.uint8),
    "black and white": lambda h, w: RNG.integers(0, 2, (h, w, 3), np.uint8) * 255,
    "ramp": lambda h, w: np.broadcast_to(np.linspace(0, 255, w)[None, :, None], (h, w, 3)),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((480, 832), (224, 388)),
        ((480, 832), (224, 224)),
        ((31, 57), (224, 411)),  # larger
        ((224, 300), (224, 224)),  # one side stays
        ((333, 477), (101, 17)),
        ((224, 224), (224, 224)),
    ],
)
def test_every_number_is_pillows(kind, before, after):
    frame = np.ascontiguousarray(FRAMES[kind](*before).astype(np.uint8))
    theirs = Image.fromarray(frame).resize(after[::-1], Image.Resampling.BICUBIC)
    ours = as_pillow(torch.from_numpy(frame)[None].permute(0, 3, 1, 2), after)
    assert ours.dtype == torch.float32
    np.testing.assert_array_equal(ours[0].permute(1, 2, 0).numpy(), np.asarray(theirs))


@pytest.mark.parametrize(("height", "width"), [(75, 121), (121, 75), (224, 300), (64, 64)])
@pytest.mark.parametrize(("size", "crop"), [(224, 224), (256, 224), ((224, 224), None)])
def test_sides_and_crop_are_those_of_the_path_through_images(height, width, size, crop):
    frames = RNG.integers(0, 256, (2, height, width, 3), np.uint8)
    through_images = resized_by_pillow(frames, size, crop)
    # "cpu:0" is no CPU to it, so this goes the way of a GPU.
    assert torch.equal(resized_by_pillow(frames, size, crop, "cpu:0"), through_images)
