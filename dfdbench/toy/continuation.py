"""What can follow a toy clip's first frame: the exact reference of image-to-video diversity.

Used by generate/real.py and evaluate/toy_quality_i2v.py. As image to video has them, clips begin
with a white sprite near the middle: the frame shows shape, scene and where the sprite starts, and
leaves hue, saturation, size, direction, speed and pan open. All of these are drawn independently of
what the frame shows (`world.sample_attributes`), so their distribution given the frame is the one
that they have anyway.
"""

from dataclasses import replace

from dfdbench.toy import world
from dfdbench.toy.world import FRAMES, PAN_SPEED, SCENES, SHAPES


def continuations(clip: world.Attributes, count: int, seed: int) -> world.Attributes:
    """`count` real clips that begin with the first frame of `clip` (one clip)."""
    shape, scene = SHAPES[int(clip.shape)], SCENES[int(clip.scene)]
    many = world.sample_attributes(count, seed, shape, scene)
    # All cameras begin at one place: the middle frame's lies further along each one's way.
    half = PAN_SPEED * (FRAMES - 1) / 2
    return replace(
        many,
        start=clip.start.expand(count, -1).clone(),
        place=(clip.place + (many.pan - clip.pan) * half) % world.SPAN,
    )
