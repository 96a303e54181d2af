"""Real continuations share the first frame, and follow the world's own distribution given it."""

import numpy as np
import pytest
import torch

from dfdbench.evaluate.toy_quality import to_frames
from dfdbench.toy import oracle, world
from dfdbench.toy.continuation import continuations, direction_probabilities, start


@pytest.mark.parametrize("scene", world.SCENES)
def test_continuations_begin_with_the_same_picture_and_then_part(scene):
    clip = world.sample_attributes(1, 6, scene=scene)
    many = world.render(continuations(clip, 12, 0))
    torch.testing.assert_close(
        many[:, :, 0], world.render(clip)[:, :, 0].expand(12, -1, -1, -1), atol=1e-5, rtol=0
    )
    assert (many[:, :, -1] - many[:1, :, -1]).abs().flatten(1).amax(1)[1:].min() > 0.1


def test_continuations_are_what_their_attributes_say_and_stay_inside():
    clip = world.sample_attributes(1, 8, shape="cross", scene="city")
    many = continuations(clip, 12, 1)
    readings = [oracle.read(frames) for frames in to_frames(world.render(many) * 2 - 1)]
    assert [r.direction for r in readings] == many.direction.tolist()
    assert [r.pan for r in readings] == many.pan.tolist()
    assert len(set(many.pan.tolist())) == 3
    half = (world.FRAMES - 1) / 2 * world.velocity(many.direction, many.speed).abs()
    reach = half + 1.2 * many.radius[:, None]
    assert ((many.centre - reach) >= -1).all() and ((many.centre + reach) <= 64).all()


def test_directions_follow_the_clips_that_start_there():
    """Against counting, among very many clips, those that happen to start at the same place."""
    given = world.sample_attributes(3, 1)
    many = world.sample_attributes(400_000, 12)
    starts = start(many)
    for i, expected in enumerate(direction_probabilities(given)):
        near = ((starts - start(given)[i]).abs() < 1.5).all(1)
        near &= (many.radius - given.radius[i]).abs() < 0.3
        counts = torch.bincount(many.direction[near], minlength=8)
        assert counts.sum() > 100
        deviation = 3.5 * (expected * (1 - expected) / counts.sum()).sqrt()
        assert ((counts / counts.sum() - expected).abs() < deviation + 0.03).all()


def test_direction_probabilities_are_calibrated():
    """E p(true direction) = E Σ p², and no direction is favoured over all clips."""
    clips = world.sample_attributes(20_000, 3)
    p = direction_probabilities(clips)
    of_truth = p.gather(1, clips.direction[:, None]).mean()
    assert float(of_truth) == pytest.approx(float((p**2).sum(1).mean()), abs=0.004)
    assert np.allclose(p.mean(0), 1 / 8, atol=0.004)
    assert float(of_truth) > 0.2, "a start says something about the direction"


def test_a_sprite_at_the_left_edge_never_goes_left():
    clip = world.sample_attributes(1, 0)
    clip.direction[:], clip.speed[:] = 0, 1.5
    clip.centre[:] = torch.tensor([8 * 1.5 + 1.2 * float(clip.radius) + 1.1, 31.5])
    p = direction_probabilities(clip)[0]
    assert p[[3, 4, 5]].sum() == 0 and p[[0, 1, 7]].sum() > 0.8
