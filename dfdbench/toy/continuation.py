"""What can follow a toy clip's first frame: the exact reference of image-to-video diversity.

Used by generate/real.py and evaluate/toy_quality_i2v.py. The frame shows shape, scene, hue, size
and where the sprite starts; direction, speed and pan are still free. The pan is independent of
the frame, the direction is not: the sprite's path stays inside the picture, so one that starts at
the left goes right. Its distribution given the start follows from how `world.sample_attributes`
draws.
"""

from dataclasses import replace

import torch

from dfdbench.toy import world
from dfdbench.toy.world import DIRECTIONS, FRAMES, HOUSES, PANS, SIZE, SPEED

SPEEDS = 100  # of the grid that stands for the uniform distribution
HALF = (FRAMES - 1) / 2  # frames from the first to the middle one


def start(clips: world.Attributes) -> torch.Tensor:
    """Where the sprites are in the first frame (n, 2), x and y in pixels."""
    return clips.centre - HALF * world.velocity(clips.direction, clips.speed)


def _choices() -> tuple[torch.Tensor, torch.Tensor]:
    """Direction and speed (8 · SPEEDS,) of every combination."""
    speeds = SPEED[0] + (torch.arange(SPEEDS) + 0.5) / SPEEDS * (SPEED[1] - SPEED[0])
    return torch.arange(DIRECTIONS).repeat_interleave(SPEEDS), speeds.repeat(DIRECTIONS)


def _weights(clips: world.Attributes) -> torch.Tensor:
    """p(direction, speed | start, radius), (n, 8 · SPEEDS), by Bayes' rule.

    The centre is uniform over a rectangle whose size depends on direction and speed, so the
    likelihood of a start is one over its area, or 0 where the centre would lie outside.
    """
    direction, speed = _choices()
    v = world.velocity(direction, speed)  # K 2
    room = SIZE / 2 - (1.2 * clips.radius[:, None, None] + 1 + HALF * v.abs())  # n K 2
    offset = start(clips)[:, None] + HALF * v - (SIZE / 2 - 0.5)
    inside = (offset.abs() <= room + 1e-3).all(-1)
    weights = inside / room.prod(-1)
    return weights / weights.sum(1, keepdim=True)


def direction_probabilities(clips: world.Attributes) -> torch.Tensor:
    """p(direction | first frame) of each clip: (n, 8)."""
    return _weights(clips).view(len(clips), DIRECTIONS, SPEEDS).sum(-1)


def continuations(clip: world.Attributes, count: int, seed: int) -> world.Attributes:
    """`count` real clips that begin with the first frame of `clip` (one clip).

    Direction and speed are drawn from their distribution given that frame, the pan uniformly; the
    scene's phases are moved so that every camera starts with the same view.
    """
    rng = torch.Generator().manual_seed(seed)
    direction, speed = _choices()
    chosen = torch.multinomial(_weights(clip)[0], count, replacement=True, generator=rng)
    direction, speed = direction[chosen], speed[chosen]
    pan = torch.randint(len(PANS), (count,), generator=rng)
    many = clip[torch.zeros(count, dtype=torch.long)]
    return replace(
        many,
        direction=direction,
        speed=speed,
        centre=start(many) + HALF * world.velocity(direction, speed),
        pan=pan,
        texture=_moved(many, (pan - many.pan) * world.PAN_SPEED * HALF),
    )


def _moved(clips: world.Attributes, pixels: torch.Tensor) -> torch.Tensor:
    """The texture (n, 16) that shows `pixels` (n,) further right what was at each place."""
    texture = clips.texture.clone()
    for number, scene in enumerate(world.SCENES):
        rows = clips.scene == number
        if scene in world.PERIODS:
            periods = torch.tensor(world.PERIODS[scene])
            texture[rows, : len(periods)] += pixels[rows, None] / periods
            continue
        phase = texture[rows, world.HOUSE_PHASE] + pixels[rows] / world.CELL
        passed = phase.floor()
        texture[rows, world.HOUSE_PHASE] = phase - passed
        house = (torch.arange(HOUSES) + passed[:, None].long()) % HOUSES
        texture[rows, :HOUSES] = texture[rows, :HOUSES].gather(1, house)
    return texture
