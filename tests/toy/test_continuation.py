"""Real continuations share the first frame, and are else as free as any clip."""

import pytest
import torch

from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.toy import oracle, world
from dfdbench.toy.continuation import continuations


@pytest.mark.parametrize("scene", world.SCENES)
def test_continuations_begin_with_the_same_picture_and_then_part(scene):
    clip = world.sample_attributes(1, 6, scene=scene)
    many = world.render(continuations(clip, 12, 0), reveal=True)
    first = world.render(clip, reveal=True)[:, :, 0]
    torch.testing.assert_close(many[:, :, 0], first.expand(12, -1, -1, -1), atol=1e-4, rtol=0)
    assert (many[:, :, -1] - many[:1, :, -1]).abs().flatten(1).amax(1)[1:].min() > 0.1


def test_continuations_are_what_their_attributes_say():
    clip = world.sample_attributes(1, 8, shape="cross", scene="city")
    many = continuations(clip, 24, 1)
    frames = to_frames(world.render(many, reveal=True) * 2 - 1)
    readings = [oracle.read(clip[world.REVEALED :]) for clip in frames]
    for name, column in (
        ("hue", many.hue_mode), ("direction", many.direction), ("pan", many.pan),
        ("size", many.size),
    ):  # fmt: skip
        assert [getattr(r, name) for r in readings] == column.tolist(), name
    assert {r.shape for r in readings} == {int(clip.shape)}
    hidden = oracle.read_hidden(frames[0, 0])
    assert all(oracle.continues(reading, hidden) for reading in readings)


def test_what_the_frame_leaves_open_is_uniform_whatever_it_shows():
    for seed in range(3):
        many = continuations(world.sample_attributes(1, seed), 3000, seed)
        for column, classes in (
            (many.hue_mode, 6), (many.direction, 8), (many.pan, 3), (many.size, 2)
        ):  # fmt: skip
            shares = torch.bincount(column, minlength=classes) / 3000
            assert (shares * classes - 1).abs().max() < 0.2
        assert len(many.start.unique(dim=0)) == 1
