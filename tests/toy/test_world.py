"""The renderer and the oracle that reads it back."""

import colorsys

import numpy as np
import pytest
import torch

from dfdbench.toy import oracle, world


def frames_of(attributes: world.Attributes) -> np.ndarray:
    video = world.render(attributes)
    return (video * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def test_one_seed_gives_one_world_and_another_seed_another():
    first, again = world.sample_attributes(4, 5), world.sample_attributes(4, 5)
    assert torch.equal(world.render(first), world.render(again))
    assert not torch.equal(world.render(first), world.render(world.sample_attributes(4, 6)))


def test_a_clip_does_not_depend_on_its_batch():
    clips = world.sample_attributes(6, 1)
    assert torch.equal(world.render(clips)[4:5], world.render(clips[slice(4, 5)]))


def test_values_and_shape_of_a_render():
    video = world.render(world.sample_attributes(12, 2))
    assert video.shape == (12, 3, 17, 64, 64)
    assert video.min() >= 0 and video.max() <= 1


def test_fixed_shape_and_scene_are_kept_and_the_rest_is_free():
    clips = world.sample_attributes(400, 0, shape="cross", scene="snow")
    assert set(clips.shape.tolist()) == {world.SHAPES.index("cross")}
    assert set(clips.scene.tolist()) == {world.SCENES.index("snow")}
    for column, classes in ((clips.hue_mode, 6), (clips.direction, 8), (clips.pan, 3)):
        counts = torch.bincount(column, minlength=classes)
        assert counts.min() > 0.5 * 400 / classes


@pytest.mark.parametrize("hue", [0.0, 35.0, 130.0, 200.0, 310.0])
def test_colours_equal_the_standard_library(hue):
    ours = world.hsv_to_rgb(torch.tensor([hue]), torch.tensor([0.5]), 0.85)[0]
    assert np.allclose(ours, colorsys.hsv_to_rgb(hue / 360, 0.5, 0.85), atol=1e-6)


def test_sprites_stay_inside_the_picture():
    clips = world.sample_attributes(500, 3)
    half = (world.FRAMES - 1) / 2 * world.velocity(clips.direction, clips.speed).abs()
    reach = half + 1.2 * clips.radius[:, None]
    assert ((clips.centre - reach) >= -1).all() and ((clips.centre + reach) <= 64).all()


def test_captions_are_unique_and_name_shape_and_scene():
    captions = world.captions()
    assert len({c.id for c in captions}) == len({c.text for c in captions}) == 12
    texts = [t for s in world.SHAPES for c in world.SCENES for t in world.paraphrases(s, c)]
    assert len(set(texts)) == 12 * len(world.TEMPLATES)


def test_oracle_reads_rendered_clips():
    clips = world.sample_attributes(60, 11)
    readings = [oracle.read(clip) for clip in frames_of(clips)]
    truths = {
        "shape": clips.shape, "scene": clips.scene, "hue": clips.hue_mode,
        "direction": clips.direction, "pan": clips.pan,
    }  # fmt: skip
    for name, truth in truths.items():
        assert [getattr(r, name) for r in readings] == truth.tolist(), name
    assert np.allclose([r.saturation for r in readings], clips.saturation, atol=0.01)
    assert np.allclose([r.speed for r in readings], clips.speed, atol=0.05)
    assert all(r.intact for r in readings)


def test_oracle_turns_with_the_clip():
    """Played backwards, direction and pan are reversed; mirrored, both flip horizontally."""
    clips = world.sample_attributes(20, 4)
    for clip, direction, pan in zip(
        frames_of(clips), clips.direction.tolist(), clips.pan.tolist(), strict=True
    ):
        back = oracle.read(clip[::-1])
        assert (back.direction, back.pan) == ((direction + 4) % 8, 2 - pan)
        mirrored = oracle.read(clip[:, :, ::-1])
        assert (mirrored.direction, mirrored.pan) == ((4 - direction) % 8, 2 - pan)


def test_swapped_colour_channels_are_noticed():
    red = world.sample_attributes(30, 9)
    red.hue_mode[:] = 0
    red.hue[:] = world.HUES[0]
    clip = frames_of(red)[0]
    assert oracle.read(clip).hue == 0
    assert oracle.read(clip[..., ::-1]).hue == world.HUES.index(250.0)  # blue at 240 − 10 + …


def test_broken_sprites_are_not_intact():
    clip = frames_of(world.sample_attributes(1, 0, shape="ball", scene="snow"))[0]
    assert oracle.read(clip).intact
    assert not oracle.read(np.repeat(clip.mean(-1, keepdims=True), 3, -1).astype(np.uint8)).intact
    noise = np.random.default_rng(0).integers(0, 255, clip.shape, dtype=np.uint8)
    assert not oracle.read(noise).intact
    vanishing = clip.copy()
    vanishing[8:] = vanishing[8:].mean(-1, keepdims=True).astype(np.uint8)
    assert not oracle.read(vanishing).intact
    twins = np.maximum(clip, 0)
    twins[:, :, :32] = clip[:, :, ::-1][:, :, :32]
    assert not oracle.read(np.concatenate([clip[:, ::2], clip[:, ::2]], 1)).intact


def test_more_saturated_pixels_read_as_more_saturation():
    clip = frames_of(world.sample_attributes(1, 21))[0].astype(np.float32)
    grey = clip.mean(-1, keepdims=True)
    readings = [
        oracle.read((grey + k * (clip - grey)).clip(0, 255).astype(np.uint8)).saturation
        for k in (0.8, 1.0, 1.3)
    ]
    assert readings == sorted(readings) and readings[2] - readings[0] > 0.15
