"""The toy world: seeded 64×64 clips of one sprite over a scene, rendered on the CPU.

A caption fixes shape and scene, and at higher levels hue and direction; what it leaves open (hue,
direction, pan, size) is uniform, so that its diversity given the caption is known exactly. Used by
the teachers' training, by the `real` arm of `generate`, and (its shapes and ranges) by the oracle
that reads clips back.

All shapes of one size cover the same area. A scene is one panorama, seen from a random place.
"""

from dataclasses import dataclass, fields
from math import tau

import torch

from dfdbench.toy.scenes import SCENES, SIZE, SPAN, view

FRAMES, FPS = 17, 8
SHAPES = ("ball", "triangle", "cross", "bar")
HUES = tuple(10.0 + 60.0 * k for k in range(6))  # degrees
HUE_NAMES = ("red", "yellow", "green", "cyan", "blue", "magenta")
HUE_JITTER = 6.0  # degrees, uniform to both sides
SATURATION = (0.35, 0.80)  # HSV, of the sprite
VALUE = 0.85
DIRECTIONS = 8  # k · 45°, 0 is right, counted clockwise because y points down
DIRECTION_NAMES = (
    "east", "southeast", "south", "southwest", "west", "northwest", "north", "northeast"
)  # fmt: skip
SPEED = (0.5, 0.7)  # pixels a frame
SIZES = ("small", "large")
RADIUS = (11.0, 13.5)  # pixels, of a ball of each size
RADIUS_JITTER = 0.3  # pixels, uniform to both sides
START = 2.0  # pixels to both sides of the middle, where sprites begin
PANS = ("left", "none", "right")
PAN_SPEED = 1.0  # pixels a frame

# In image to video a sprite begins white and small, whatever it becomes.
REVEALED = 8  # frame from which on it has its own colour and size
HIDDEN_VALUE, HIDDEN_RADIUS = 1.0, 9.0

SCENE_PHRASES = {
    "desert": "the desert",
    "city": "a city at dusk",
    "snow": "snowy hills",
    "meadow": "a misty meadow",
}
TEMPLATES = (
    "a {sprite} moving{to} over {scene}",
    "a {sprite} drifting{to} across {scene}",
    "{scene} with a {sprite} gliding past{to}",
    "a video of a {sprite} floating{to} above {scene}",
    "one {sprite} flies{to} over {scene}",
)
LEVELS = (1, 2, 3)  # captions name shape and scene; also the hue; also hue and direction


@dataclass(frozen=True)
class Caption:
    """A canonical caption and what it fixes; `id` is a file name, such as ball-desert.

    hue, direction: None where the caption leaves them open.
    """

    id: str
    text: str
    shape: str
    scene: str
    hue: str | None = None
    direction: str | None = None


def paraphrases(
    shape: str, scene: str, hue: str | None = None, direction: str | None = None
) -> list[str]:
    """All English phrasings of what a caption fixes; the first is the canonical one."""
    sprite = f"{hue} {shape}" if hue else shape
    to = f" {direction}" if direction else ""
    return [t.format(sprite=sprite, to=to, scene=SCENE_PHRASES[scene]) for t in TEMPLATES]


def captions(level: int = 1) -> list[Caption]:
    """The canonical captions of a level: 16 of level 1, 96 of level 2, 768 of level 3.

    In the order of `caption_index`: shapes outermost, then scenes, hues, directions.
    """
    found = []
    for shape in SHAPES:
        for scene in SCENES:
            for hue in HUE_NAMES if level > 1 else (None,):
                for direction in DIRECTION_NAMES if level > 2 else (None,):
                    fixed = (shape, scene, hue, direction)
                    name = "-".join(word for word in fixed if word)
                    found.append(Caption(name, paraphrases(*fixed)[0], *fixed))
    return found


def phrasings() -> list[str]:
    """Every caption that the world knows: all phrasings of all captions of all levels."""
    return [
        text
        for level in LEVELS
        for c in captions(level)
        for text in paraphrases(c.shape, c.scene, c.hue, c.direction)
    ]


@dataclass
class Attributes:
    """What makes n clips. Every field is a tensor whose first axis is n.

    shape, scene, hue_mode (0..5), direction (0..7), pan (0 left, 1 none, 2 right), size (0 small,
    1 large): int64 (n,). hue (degrees), saturation (0..1), speed (pixels a frame), radius (pixels,
    of a ball of equal area), place (pixels, where in the panorama the picture's left edge lies in
    the middle frame): float32 (n,). start: float32 (n, 2), x and y of the sprite's middle in the
    first frame, pixels.
    """

    shape: torch.Tensor
    scene: torch.Tensor
    hue_mode: torch.Tensor
    hue: torch.Tensor
    saturation: torch.Tensor
    direction: torch.Tensor
    speed: torch.Tensor
    size: torch.Tensor
    radius: torch.Tensor
    start: torch.Tensor
    pan: torch.Tensor
    place: torch.Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | torch.Tensor) -> "Attributes":
        return Attributes(*(getattr(self, f.name)[index] for f in fields(self)))


def caption_index(clips: Attributes, level: int = 1) -> torch.Tensor:
    """Each clip's index (n,) into `captions(level)`."""
    index = clips.shape * len(SCENES) + clips.scene
    if level > 1:
        index = index * len(HUES) + clips.hue_mode
    return index * DIRECTIONS + clips.direction if level > 2 else index


def sample_attributes(
    count: int,
    seed: int,
    shape: str | None = None,
    scene: str | None = None,
    hue: str | None = None,
    direction: str | None = None,
    saturation: tuple[float, float] = SATURATION,
) -> Attributes:
    """Draw `count` clips' attributes from `seed`, uniformly and independently of each other.

    Args:
        shape, scene, hue, direction: names that fix an attribute.
        saturation: the range that it is drawn from.
    """
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *more: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *more, generator=rng)

    def integer(names: tuple[str, ...], fixed: str | None = None) -> torch.Tensor:
        drawn = torch.randint(len(names), (count,), generator=rng)
        return drawn if fixed is None else torch.full_like(drawn, names.index(fixed))

    shapes, scenes = integer(SHAPES, shape), integer(SCENES, scene)
    modes, directions = integer(HUE_NAMES, hue), integer(DIRECTION_NAMES, direction)
    pan, size = integer(PANS), integer(SIZES)
    return Attributes(
        shape=shapes,
        scene=scenes,
        hue_mode=modes,
        hue=(torch.tensor(HUES)[modes] + uniform(-HUE_JITTER, HUE_JITTER)) % 360,
        saturation=uniform(*saturation),
        direction=directions,
        speed=uniform(*SPEED),
        size=size,
        radius=torch.tensor(RADIUS)[size] + uniform(-RADIUS_JITTER, RADIUS_JITTER),
        start=SIZE / 2 - 0.5 + uniform(-START, START, 2),
        pan=pan,
        place=uniform(0, SPAN),
    )


def velocity(direction: torch.Tensor, speed: torch.Tensor) -> torch.Tensor:
    """Pixels a frame (n, 2) of direction k · 45°."""
    angle = direction * (tau / DIRECTIONS)
    return torch.stack([angle.cos(), angle.sin()], -1) * speed[:, None]


def shape_distance(
    shape: int, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Signed distance in pixels (negative inside) from the outline of a sprite at the origin.

    Every shape covers π · radius² pixels.
    """
    if SHAPES[shape] == "ball":
        return (x * x + y * y).sqrt() - radius
    if SHAPES[shape] == "bar":
        return torch.maximum(x.abs() - 1.36 * radius, y.abs() - 0.5775 * radius)
    if SHAPES[shape] == "triangle":  # equilateral, one corner up, the box around it at the origin
        around = 1.5551 * radius  # circumradius; the centroid lies a quarter of it below the middle
        low = y - around / 4
        return torch.maximum(low, 0.8660254 * x.abs() - 0.5 * low) - 0.5 * around
    arm, half = 1.1533 * radius, 0.4152 * radius
    upright = torch.maximum(x.abs() - half, y.abs() - arm)
    level = torch.maximum(x.abs() - arm, y.abs() - half)
    return torch.minimum(upright, level)


def hsv_to_rgb(
    hue: torch.Tensor, saturation: torch.Tensor, value: float | torch.Tensor
) -> torch.Tensor:
    """Hue in degrees and saturation in 0..1, (…,), to RGB (…, 3) in [0, 1]; value is as they."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[..., None] / 60) % 6
    rgb = 1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1)
    return rgb * (value[..., None] if isinstance(value, torch.Tensor) else value)


def revealed(reveal: bool) -> torch.Tensor:
    """How much of its own colour and size a sprite has in each frame: (T,) in [0, 1]."""
    if not reveal:
        return torch.ones(FRAMES)
    return (torch.arange(FRAMES) / REVEALED).clamp(max=1)


def render(attributes: Attributes, reveal: bool = False) -> torch.Tensor:
    """Render clips: float32 (B 3 T H W) in [0, 1], T = 17, H = W = 64, antialiased.

    reveal: sprites begin white and of one size, and have their own colour and size from frame
    `REVEALED` on: the first frame then leaves hue, saturation, size, direction and pan open.
    """
    a, n = attributes, len(attributes)
    frame = torch.arange(FRAMES)
    camera = a.place[:, None] + (a.pan - 1)[:, None] * PAN_SPEED * (frame - (FRAMES - 1) / 2)
    video = view(a.scene, camera)
    middle = a.start[:, None] + velocity(a.direction, a.speed)[:, None] * frame[:, None]  # n T 2
    axis = torch.arange(SIZE, dtype=torch.float32)
    x = (axis - middle[..., 0, None])[:, :, None, :].expand(-1, -1, SIZE, -1)  # n T H W
    y = (axis - middle[..., 1, None])[:, :, :, None].expand(-1, -1, -1, SIZE)
    own = revealed(reveal)
    radius = HIDDEN_RADIUS + (a.radius[:, None] - HIDDEN_RADIUS) * own  # n T
    cover = torch.empty(n, FRAMES, SIZE, SIZE)
    for shape in range(len(SHAPES)):
        chosen = a.shape == shape
        if chosen.any():
            distance = shape_distance(shape, x[chosen], y[chosen], radius[chosen][..., None, None])
            cover[chosen] = (0.5 - distance).clamp(0, 1)  # coverage of a pixel
    value = (HIDDEN_VALUE + (VALUE - HIDDEN_VALUE) * own).expand(n, -1)
    rgb = hsv_to_rgb(a.hue[:, None].expand(-1, FRAMES), a.saturation[:, None] * own, value)
    colour = rgb.permute(0, 2, 1)[..., None, None]  # n 3 T 1 1
    return video + (colour - video) * cover[:, None]
