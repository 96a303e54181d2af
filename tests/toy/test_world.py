"""The renderer and the oracle that reads it back."""

import colorsys

import numpy as np
import pytest
import torch

from dfdbench.toy import oracle, scenes, world


def frames_of(attributes: world.Attributes, reveal: bool = False) -> np.ndarray:
    video = world.render(attributes, reveal)
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


def test_what_a_caption_fixes_is_kept_and_the_rest_is_uniform_and_independent():
    clips = world.sample_attributes(2000, 0, "cross", "snow", hue="blue", direction="north")
    assert set(clips.shape.tolist()) == {world.SHAPES.index("cross")}
    assert set(clips.scene.tolist()) == {scenes.SCENES.index("snow")}
    assert set(clips.hue_mode.tolist()) == {4} and set(clips.direction.tolist()) == {6}
    free = world.sample_attributes(2000, 0)
    for column, classes in (
        (free.hue_mode, 6), (free.direction, 8), (free.pan, 3), (free.size, 2), (free.shape, 4)
    ):  # fmt: skip
        counts = torch.bincount(column, minlength=classes) * classes / 2000
        assert counts.min() > 0.8 and counts.max() < 1.2
    columns = [free.hue_mode, free.direction, free.pan, free.size, free.start[:, 0], free.place]
    correlations = np.corrcoef(np.stack([c.float().numpy() for c in columns]))
    assert np.abs(correlations - np.eye(len(columns))).max() < 0.08


def test_pale_clips_are_drawn_from_their_own_range():
    pale = world.sample_attributes(500, 0, saturation=(0.35, 0.5))
    assert pale.saturation.min() >= 0.35 and pale.saturation.max() <= 0.5
    assert world.sample_attributes(500, 0).saturation.max() > 0.75


@pytest.mark.parametrize("hue", [0.0, 35.0, 130.0, 200.0, 310.0])
def test_colours_equal_the_standard_library(hue):
    ours = world.hsv_to_rgb(torch.tensor([hue]), torch.tensor([0.5]), 0.85)[0]
    assert np.allclose(ours, colorsys.hsv_to_rgb(hue / 360, 0.5, 0.85), atol=1e-6)


def test_sprites_stay_inside_the_picture():
    """Drawn in white on every frame of many clips, none touches the outermost pixels."""
    clips = world.sample_attributes(600, 3)
    clips.scene[:] = scenes.SCENES.index("city")
    clips.saturation[:] = 1.0
    video = world.render(clips)
    chroma = video.amax(1) - video.amin(1)
    edge = torch.cat([chroma[..., 0, :], chroma[..., -1, :], chroma[..., 0], chroma[..., -1]], -1)
    assert edge.max() < 0.2
    assert chroma.amax((2, 3)).min() > 0.8


@pytest.mark.parametrize("shape", range(4))
def test_all_shapes_of_one_radius_cover_the_area_of_its_ball(shape):
    axis = torch.arange(-30, 30, 0.05) + 0.025
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    inside = world.shape_distance(shape, x, y, torch.tensor(12.0)) < 0
    assert float(inside.sum()) * 0.05**2 == pytest.approx(np.pi * 144, rel=0.005)


@pytest.mark.parametrize("scene", range(4))
def test_panoramas_are_dull_textured_and_close_on_themselves(scene):
    drawn = scenes.panorama(scene)
    assert drawn.min() >= 0 and drawn.max() <= 0.85, "darker than a sprite without colour"
    assert (drawn.amax(0) - drawn.amin(0)).max() <= 0.13, "less chroma than the palest sprite"
    steps = (drawn[..., 1:] - drawn[..., :-1]).abs()
    assert steps[..., -1].max() <= steps.max()
    columns = drawn[..., : -1 : scenes.FINE]
    assert columns.std(-1).mean() > 0.02


def test_a_view_moves_with_its_camera_and_comes_round():
    left = torch.tensor([[10.0, 13.0, 10.0 + scenes.SPAN, 10.5]])
    pictures = scenes.view(torch.tensor([1]), left)[0]  # 3 T H W
    assert torch.allclose(pictures[:, 0, :, 3:], pictures[:, 1, :, :-3], atol=1e-6)
    assert torch.allclose(pictures[:, 0], pictures[:, 2], atol=1e-6)
    assert not torch.allclose(pictures[:, 0], pictures[:, 3], atol=1e-2)


@pytest.mark.parametrize(("level", "count"), [(1, 16), (2, 96), (3, 768)])
def test_captions_are_unique_and_name_what_they_fix(level, count):
    captions = world.captions(level)
    assert len({c.id for c in captions}) == len({c.text for c in captions}) == count
    for caption in captions[::37]:
        named = [caption.shape, caption.hue, caption.direction]
        assert [w for w in named if w] == [w for w in named[: level if level < 3 else 3] if w]
        for text in world.paraphrases(caption.shape, caption.scene, caption.hue, caption.direction):
            assert all(w in text.split() for w in named if w)


@pytest.mark.parametrize("level", world.LEVELS)
def test_a_clips_caption_says_what_it_shows(level):
    clips, captions = world.sample_attributes(50, 8), world.captions(level)
    for i, index in enumerate(world.caption_index(clips, level).tolist()):
        caption = captions[index]
        assert world.SHAPES[clips.shape[i]] == caption.shape
        assert scenes.SCENES[clips.scene[i]] == caption.scene
        assert caption.hue == (world.HUE_NAMES[clips.hue_mode[i]] if level > 1 else None)
        direction = world.DIRECTION_NAMES[clips.direction[i]] if level > 2 else None
        assert caption.direction == direction


def test_directions_are_those_of_a_compass_on_the_screen():
    v = world.velocity(torch.arange(8), torch.ones(8))
    by_name = dict(zip(world.DIRECTION_NAMES, v.round(decimals=4).tolist(), strict=True))
    assert by_name["east"] == [1, 0] and by_name["south"] == [0, 1]
    assert by_name["northwest"] == pytest.approx([-(0.5**0.5), -(0.5**0.5)], abs=1e-4)


@pytest.mark.parametrize("reveal", [False, True])
def test_oracle_reads_rendered_clips(reveal):
    clips = world.sample_attributes(80, 11)
    frames = frames_of(clips, reveal)[:, world.REVEALED if reveal else 0 :]
    readings = [oracle.read(clip) for clip in frames]
    truths = {
        "shape": clips.shape, "scene": clips.scene, "hue": clips.hue_mode,
        "direction": clips.direction, "pan": clips.pan, "size": clips.size,
    }  # fmt: skip
    for name, truth in truths.items():
        assert [getattr(r, name) for r in readings] == truth.tolist(), name
    assert np.allclose([r.saturation for r in readings], clips.saturation, atol=0.01)
    assert np.allclose([r.speed for r in readings], clips.speed, atol=0.06)
    assert all(r.intact for r in readings)


def test_a_hidden_sprite_shows_shape_and_place_and_nothing_else():
    clips = world.sample_attributes(40, 12)
    first = frames_of(clips, reveal=True)[:, 0]
    for i, picture in enumerate(first):
        hidden = oracle.read_hidden(picture)
        assert hidden.shape == clips.shape[i]
        below = 0.39 * world.HIDDEN_RADIUS * (world.SHAPES[hidden.shape] == "triangle")
        start = clips.start[i] + torch.tensor([0.0, below])
        assert np.allclose(hidden.centre, start, atol=0.5)
    other = world.sample_attributes(40, 13)
    for name in ("shape", "scene", "start", "place", "pan"):
        setattr(other, name, getattr(clips, name))
    assert np.array_equal(first, frames_of(other, reveal=True)[:, 0])
    coloured = frames_of(clips)[0, 0]
    assert oracle.read_hidden(coloured).shape == -1


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
    assert not oracle.read(np.concatenate([clip[:, ::2], clip[:, ::2]], 1)).intact


@pytest.mark.parametrize("shape", world.SHAPES)
def test_a_morphing_sprite_is_not_intact(shape):
    """Half of the frames show another shape."""
    other = world.SHAPES[(world.SHAPES.index(shape) + 1) % 4]
    one = world.sample_attributes(1, 7, shape=shape, scene="meadow")
    two = world.sample_attributes(1, 7, shape=other, scene="meadow")
    mixed = frames_of(one)[0]
    mixed[8:] = frames_of(two)[0][8:]
    assert not oracle.read(mixed).intact


def test_more_saturated_pixels_read_as_more_saturation():
    clip = frames_of(world.sample_attributes(1, 21))[0].astype(np.float32)
    grey = clip.mean(-1, keepdims=True)
    readings = [
        oracle.read((grey + k * (clip - grey)).clip(0, 255).astype(np.uint8)).saturation
        for k in (0.8, 1.0, 1.3)
    ]
    assert readings == sorted(readings) and readings[2] - readings[0] > 0.15
