"""The toy world: seeded 64×64 clips of one sprite over a scene, rendered on the CPU.

The caption fixes shape and scene; hue, direction, speed, size, start and camera pan are free, so
their entropy given the caption measures diversity exactly. Used by the teacher's training, by the
`real` arm of `generate`, and (its shapes and ranges) by the oracle that reads clips back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import tau

import torch

FRAMES, SIZE, FPS = 17, 64, 8
SHAPES = ("ball", "box", "triangle", "cross")
SCENES = ("desert", "city", "snow")
HUES = tuple(10.0 + 60.0 * k for k in range(6))  # degrees: red, yellow, green, cyan, blue, magenta
HUE_JITTER = 6.0  # degrees, uniform to both sides
SATURATION = (0.45, 0.60)  # HSV, of the sprite
VALUE = 0.85
DIRECTIONS = 8  # k · 45°, 0 is right, counted clockwise because y points down
SPEED = (0.9, 1.5)  # pixels a frame
RADIUS = (8.5, 12.0)  # pixels
PANS = ("left", "none", "right")
PAN_SPEED = 1.0  # pixels a frame
CELL = 11.0  # width of a house in the city, pixels
PERIODS: dict[str, tuple[int, ...]] = {  # pixels, of the waves of three horizons
    "desert": (47, 29, 37, 23, 31, 19),
    "snow": (41, 25, 35, 21, 45, 27),
}
HOUSES = 14  # different ones in the city, then they repeat
HOUSE_PHASE = HOUSES  # index in `texture` of where the first house begins

SCENE_PHRASES = {"desert": "the desert", "city": "a city at dusk", "snow": "snowy hills"}
TEMPLATES = (
    "a {shape} moving over {scene}",
    "a {shape} drifting across {scene}",
    "{scene} with a {shape} gliding past",
    "a video of a {shape} floating above {scene}",
    "one {shape} flies over {scene}",
)


@dataclass(frozen=True)
class Caption:
    """A canonical caption and what it fixes; `id` is a file name, such as ball-desert."""

    id: str
    text: str
    shape: str
    scene: str


def paraphrases(shape: str, scene: str) -> list[str]:
    """All English phrasings of one (shape, scene); the first is the canonical one."""
    return [t.format(shape=shape, scene=SCENE_PHRASES[scene]) for t in TEMPLATES]


def captions() -> list[Caption]:
    """The 12 canonical captions, shapes in the outer order."""
    return [
        Caption(f"{shape}-{scene}", paraphrases(shape, scene)[0], shape, scene)
        for shape in SHAPES
        for scene in SCENES
    ]


@dataclass
class Attributes:
    """What makes n clips. Every field is a tensor whose first axis is n.

    shape, scene, hue_mode (0..5), direction (0..7), pan (0 left, 1 none, 2 right): int64 (n,).
    hue (degrees), saturation (0..1), speed (pixels a frame), radius (pixels): float32 (n,).
    centre: float32 (n, 2), x and y in pixels of the sprite in the middle frame.
    texture: float32 (n, 16) in [0, 1), phases and heights of the scene.
    """

    shape: torch.Tensor
    scene: torch.Tensor
    hue_mode: torch.Tensor
    hue: torch.Tensor
    saturation: torch.Tensor
    direction: torch.Tensor
    speed: torch.Tensor
    radius: torch.Tensor
    centre: torch.Tensor
    pan: torch.Tensor
    texture: torch.Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | torch.Tensor) -> "Attributes":
        return Attributes(*(getattr(self, f.name)[index] for f in fields(self)))


def sample_attributes(
    count: int,
    seed: int,
    shape: str | None = None,
    scene: str | None = None,
) -> Attributes:
    """Draw `count` clips' attributes from `seed`, uniformly; `shape` and `scene` may be fixed."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *more: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *more, generator=rng)

    def integer(high: int) -> torch.Tensor:
        return torch.randint(high, (count,), generator=rng)

    shapes, scenes, modes = integer(len(SHAPES)), integer(len(SCENES)), integer(len(HUES))
    if shape is not None:
        shapes = torch.full_like(shapes, SHAPES.index(shape))
    if scene is not None:
        scenes = torch.full_like(scenes, SCENES.index(scene))
    hue = (torch.tensor(HUES)[modes] + uniform(-HUE_JITTER, HUE_JITTER)) % 360
    direction, pan = integer(DIRECTIONS), integer(len(PANS))
    speed, radius = uniform(*SPEED), uniform(*RADIUS)
    saturation = uniform(*SATURATION)
    # The whole path stays inside the picture: half the travel plus the widest shape (1.2 radii).
    reach = 1.2 * radius[:, None] + 1 + (velocity(direction, speed) * (FRAMES - 1) / 2).abs()
    room = (SIZE / 2 - reach).clamp(min=0)
    centre = SIZE / 2 - 0.5 + room * uniform(-1, 1, 2)
    return Attributes(
        shapes, scenes, modes, hue, saturation, direction, speed, radius, centre, pan,
        uniform(0, 1, 16),
    )  # fmt: skip


def velocity(direction: torch.Tensor, speed: torch.Tensor) -> torch.Tensor:
    """Pixels a frame (n, 2) of direction k · 45°."""
    angle = direction * (tau / DIRECTIONS)
    return torch.stack([angle.cos(), angle.sin()], -1) * speed[:, None]


def shape_distance(
    shape: int, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Signed distance in pixels (negative inside) from the outline of a sprite at the origin."""
    if SHAPES[shape] == "ball":
        return (x * x + y * y).sqrt() - radius
    if SHAPES[shape] == "box":
        return torch.maximum(x.abs(), y.abs()) - 0.86 * radius
    if SHAPES[shape] == "triangle":  # equilateral, one corner up, circumradius 1.2 r
        return torch.maximum(y, 0.8660254 * x.abs() - 0.5 * y) - 0.6 * radius
    arm, half = 1.05 * radius, 0.36 * radius
    upright = torch.maximum(x.abs() - half, y.abs() - arm)
    level = torch.maximum(x.abs() - arm, y.abs() - half)
    return torch.minimum(upright, level)


def hsv_to_rgb(hue: torch.Tensor, saturation: torch.Tensor, value: float) -> torch.Tensor:
    """(n,) hue in degrees and saturation in 0..1 to RGB (n, 3) in [0, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue[:, None] / 60) % 6
    return value * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def _mix(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Colours (n 3 1 1 1) or pictures (n 3 T H W) mixed by weight (n 1 T H W)."""
    return a + (b - a) * weight


def _colour(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1, 1)


def _edge(distance: torch.Tensor, width: float = 1.0) -> torch.Tensor:
    """Coverage 0..1 of a pixel at a signed distance from an edge, `width` pixels soft."""
    return (0.5 - distance / width).clamp(0, 1)


def _waves(x: torch.Tensor, phases: torch.Tensor, periods: Sequence[float]) -> torch.Tensor:
    """Mean of sines of world x (n T W) with per-clip phases (n, len(periods))."""
    parts = [(tau * (x / p + phases[:, i, None, None])).sin() for i, p in enumerate(periods)]
    return torch.stack(parts).mean(0)


def _background(scene: int, texture: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """The scene (n 3 T H W) seen by a camera at x = `camera` (n, T)."""
    x = torch.arange(SIZE) + camera[:, :, None]  # world x (n T W)
    y = torch.arange(SIZE, dtype=torch.float32).view(1, 1, 1, SIZE, 1)

    def line(level: float, height: float, number: int) -> torch.Tensor:
        """Coverage of the ground below the wavy horizon `number` (n 1 T H W)."""
        pair = slice(2 * number, 2 * number + 2)
        horizon = level + height * _waves(x, texture[:, pair], PERIODS[SCENES[scene]][pair])
        return _edge(horizon[:, None, :, None, :] - y, 2.0)

    if SCENES[scene] == "desert":
        picture = _mix(_colour(0.78, 0.77, 0.74), _colour(0.86, 0.83, 0.77), y / SIZE)
        picture = _mix(picture, _colour(0.75, 0.70, 0.62), line(26, 7, 0))
        far = line(42, 8, 1)
        picture = _mix(picture, _colour(0.66, 0.61, 0.53), far)
        return _mix(picture, _colour(0.58, 0.53, 0.46), line(56, 5, 2))
    if SCENES[scene] == "snow":
        picture = _mix(_colour(0.72, 0.76, 0.80), _colour(0.82, 0.85, 0.88), y / SIZE)
        picture = _mix(picture, _colour(0.86, 0.89, 0.92), line(24, 9, 0))
        picture = _mix(picture, _colour(0.77, 0.81, 0.85), line(42, 8, 1))
        return _mix(picture, _colour(0.93, 0.95, 0.97), line(56, 5, 2))
    picture = _mix(_colour(0.25, 0.27, 0.31), _colour(0.37, 0.37, 0.40), y / SIZE)
    cell = (
        x / CELL + texture[:, HOUSE_PHASE, None, None]
    ) + 2.0  # world x in houses, never negative
    house = cell.floor().long() % HOUSES
    edge = (cell - cell.floor() - 0.5).abs() * CELL - (CELL / 2 - 0.8)
    inside = _edge(edge, 1.6)[:, None, :, None, :]
    random = texture[:, None, :HOUSES].expand(-1, x.shape[1], -1).gather(2, house)
    roof = (24 + 28 * random)[:, None, :, None, :]
    shade = (0.14 + 0.10 * ((random * 7.31) % 1))[:, None, :, None, :]
    walls = shade * _colour(0.95, 1.0, 1.12)
    return picture + (walls - picture) * inside * _edge(roof - y, 2.0)


def render(attributes: Attributes) -> torch.Tensor:
    """Render clips: float32 (B 3 T H W) in [0, 1], T = 17, H = W = 64, antialiased."""
    a, n = attributes, len(attributes)
    time = torch.arange(FRAMES) - (FRAMES - 1) / 2
    camera = (a.pan - 1)[:, None] * PAN_SPEED * time
    video = torch.empty(n, 3, FRAMES, SIZE, SIZE)
    for scene in range(len(SCENES)):
        chosen = a.scene == scene
        if chosen.any():
            video[chosen] = _background(scene, a.texture[chosen], camera[chosen])
    place = a.centre[:, None] + velocity(a.direction, a.speed)[:, None] * time[:, None]  # n T 2
    axis = torch.arange(SIZE, dtype=torch.float32)
    x = (axis - place[..., 0, None])[:, :, None, :].expand(-1, -1, SIZE, -1)  # n T H W
    y = (axis - place[..., 1, None])[:, :, :, None].expand(-1, -1, -1, SIZE)
    cover = torch.empty(n, FRAMES, SIZE, SIZE)
    for shape in range(len(SHAPES)):
        chosen = a.shape == shape
        if chosen.any():
            radius = a.radius[chosen][:, None, None, None]
            cover[chosen] = _edge(shape_distance(shape, x[chosen], y[chosen], radius))
    rgb = hsv_to_rgb(a.hue, a.saturation, VALUE)[:, :, None, None, None]
    return _mix(video, rgb, cover[:, None])
