"""VBench's formulas and preprocessing without networks: closed forms, torch and Pillow."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from official import vbench_site
from PIL import Image

from dfdbench.evaluate.metrics.vbench.aesthetic_quality import aesthetic_quality
from dfdbench.evaluate.metrics.vbench.appearance_style import STYLES, style_of
from dfdbench.evaluate.metrics.vbench.consistency import conformity, consistency, frame_weighted
from dfdbench.evaluate.metrics.vbench.nets.pixels import (
    IMAGENET,
    normalised,
    resized,
    resized_by_pillow,
)

X, Y = np.eye(2, dtype=np.float32)
DIAGONAL = 2**-0.5


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([X, X, X], 1),
        ([X, Y, X], 1 / 4),  # previous 0, 0; first 0, 1
        ([X, X, Y], 1 / 2),  # its reverse [Y, X, X] has 1/4: first and last are not the same
        ([Y, X, X], 1 / 4),
        ([X, -X, -X], 1 / 4),  # each cosine is clamped alone: ½(0 + 0), ½(1 + 0)
        ([X, X + Y], DIAGONAL),
        ([X, 5 * X], 1),
    ],
)
def test_consistency_compares_each_frame_with_the_last_and_the_first(
    features: list[np.ndarray], expected: float
) -> None:
    assert consistency(np.stack(features)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("image", "features", "expected"),
    [
        (X, [X, X, X], 1),
        (Y, [X, X, X], 0.6),  # still, but of another picture
        (X, [X, Y, X], 0.4),  # the best frame counts for the image, no pair is alike
        (X, [X, X, Y], 0.4 + 0.3 / 2),
        (X, [X, X + Y, Y], 0.4 + 0.6 * DIAGONAL),
        (X, [X, -X, -X], 0.4 + 0.3 / 2),
        (-X, [X, X], 0.6),
    ],
)
def test_conformity_weighs_the_image_and_adjacent_frames(
    image: np.ndarray, features: list[np.ndarray], expected: float
) -> None:
    assert conformity(image, np.stack(features)) == pytest.approx(expected, abs=1e-7)


def test_long_clips_weigh_more_in_a_frame_weighted_mean() -> None:
    assert frame_weighted([1, 0], [3, 1]) == 0.75


def test_aesthetic_quality_is_a_tenth_of_the_head_on_directions() -> None:
    weight = np.array([3.0, -1.0])
    assert aesthetic_quality(np.stack([X, 7 * Y]), weight, 4.0) == pytest.approx((7 + 3) / 2 / 10)


def test_every_style_is_found_at_the_end_of_a_prompt_only() -> None:
    for style in STYLES:
        assert style_of(f"A panda drinking coffee in a cafe, {style}") == style
        assert style_of(f"{style} of a panda") is None


def test_styles_are_those_that_vbench_lists_for_its_prompts() -> None:
    site = vbench_site() or str(Path(find_spec("vbench").origin).parents[1])  # type: ignore
    entries = json.loads((Path(site) / "vbench" / "VBench_full_info.json").read_text())
    styles = [e for e in entries if "appearance_style" in e["dimension"]]
    assert len(styles) == 90
    for entry in styles:
        expected = entry["auxiliary_info"]["appearance_style"]["appearance_style"]
        assert style_of(entry["prompt_en"]) == expected


def test_resized_does_what_torch_does_and_clamps_nothing() -> None:
    frames = np.zeros((1, 20, 30, 3), np.uint8)
    frames[:, :, 15:] = 255
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    found = resized(frames, 50, "bicubic", antialias=False)
    expected = torch.nn.functional.interpolate(pixels, (50, 75), mode="bicubic")
    torch.testing.assert_close(found, expected)
    assert found.max() > 256 and found.min() < -1
    assert resized(frames, 224, "bilinear", antialias=False).shape == (1, 3, 224, 336)
    assert resized(frames[:, :, :29], 224, "bilinear", antialias=False).shape == (1, 3, 224, 324)
    torch.testing.assert_close(
        resized(frames, 10, "bilinear", antialias=True, crop=10),
        torch.nn.functional.interpolate(pixels, (10, 15), mode="bilinear", antialias=True)[
            ..., 2:12
        ],
    )


def test_images_are_resized_by_pillow() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = Image.fromarray(frame).resize((30, 20), Image.Resampling.BICUBIC)
    expected = expected.crop((5, 0, 25, 20))
    found = resized_by_pillow(frame[None], 20, crop=20)[0].permute(1, 2, 0)
    np.testing.assert_array_equal(found.numpy(), np.asarray(expected))


def test_normalised_channels_have_their_own_mean_and_deviation() -> None:
    mean, deviation = IMAGENET
    pixels = torch.tensor(mean).view(1, 3, 1, 1) * 255
    assert normalised(pixels, IMAGENET).abs().max() < 1e-6
    white = normalised(torch.full((1, 3, 1, 1), 255.0), IMAGENET).flatten().tolist()
    assert white == pytest.approx([(1 - m) / d for m, d in zip(mean, deviation, strict=True)])
