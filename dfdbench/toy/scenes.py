"""The toy world's scenes: four panoramas, periodic in x, of little colour and bold forms.

Used by world.py, which looks at them through a moving window of 64 pixels. Their colours stay dull,
so that a sprite is what has chroma; rocks, houses, firs and trees, a dozen pixels and more across,
survive the autoencoder and give a camera something to track.
"""

from collections.abc import Iterable
from functools import cache
from math import tau

import torch
from torch import Tensor

SIZE = 64  # pixels, height of a panorama, height and width of a picture
SPAN = 128  # pixels, width of a panorama before it repeats
FINE = 4  # columns a pixel in which panoramas are drawn
SCENES = ("desert", "city", "snow", "meadow")

Wave = tuple[float, int, float]  # height in pixels, periods a panorama, phase in periods
Thing = tuple[float, float, float, float]  # x and y of the middle of its foot, width, height


def _axes() -> tuple[Tensor, Tensor]:
    """World x (1, X) and y (H, 1) of a panorama's samples, in pixels."""
    return torch.arange(SPAN * FINE)[None] / FINE, torch.arange(SIZE, dtype=torch.float32)[:, None]


def _horizon(level: float, waves: Iterable[Wave]) -> Tensor:
    """Height y (1, X) of a wavy line."""
    x, _ = _axes()
    parts = [
        height * (tau * (x * periods / SPAN + phase)).sin() for height, periods, phase in waves
    ]
    return level + torch.stack(parts).sum(0)


def _below(line: Tensor, width: float = 2.0) -> Tensor:
    """Coverage (H, X) of what lies below a line, with an edge `width` pixels soft."""
    return (0.5 + (_axes()[1] - line) / width).clamp(0, 1)


def _apart(x0: float) -> Tensor:
    """Distance (1, X) from world x = x0, with sign, around the panorama."""
    return (_axes()[0] - x0 + SPAN / 2) % SPAN - SPAN / 2


def _dome(thing: Thing) -> Tensor:
    """Coverage (H, X) of the upper half of an ellipse."""
    x0, foot, width, height = thing
    dx, dy = _apart(x0) / (width / 2), (_axes()[1] - foot) / height
    edge = ((dx**2 + dy**2).sqrt() - 1) * min(width / 2, height)
    return torch.minimum((0.5 - edge / 1.5).clamp(0, 1), 1 - _below(torch.tensor([[foot]]), 1.5))


def _crown(thing: Thing) -> Tensor:
    """Coverage (H, X) of an ellipse."""
    x0, foot, width, height = thing
    dx, dy = _apart(x0) / (width / 2), (_axes()[1] - foot + height / 2) / (height / 2)
    edge = ((dx**2 + dy**2).sqrt() - 1) * min(width, height) / 2
    return (0.5 - edge / 1.5).clamp(0, 1)


def _fir(thing: Thing) -> Tensor:
    """Coverage (H, X) of a triangle, one corner up."""
    x0, foot, width, height = thing
    y = _axes()[1]
    side = _apart(x0).abs() - width / 2 * (y - (foot - height)) / height
    return torch.minimum((0.5 - side / 1.5).clamp(0, 1), (0.5 - (y - foot) / 1.5).clamp(0, 1))


def _block(thing: Thing) -> Tensor:
    """Coverage (H, X) of a rectangle."""
    x0, foot, width, height = thing
    y = _axes()[1]
    across = (0.5 - (_apart(x0).abs() - width / 2) / 1.5).clamp(0, 1)
    return (
        across
        * (0.5 - (y - foot) / 1.5).clamp(0, 1)
        * (0.5 + (y - foot + height) / 1.5).clamp(0, 1)
    )


def _paint(picture: Tensor, rgb: tuple[float, float, float], cover: Tensor) -> Tensor:
    """The picture (3 H X) with a colour laid over it."""
    return picture + (torch.tensor(rgb)[:, None, None] - picture) * cover


def _sky(top: tuple[float, float, float], bottom: tuple[float, float, float]) -> Tensor:
    """A picture (3 H X) that goes from one colour to the other."""
    share = (_axes()[1] / SIZE).expand(SIZE, SPAN * FINE)
    a, b = (torch.tensor(rgb)[:, None, None] for rgb in (top, bottom))
    return a + (b - a) * share


def _desert() -> Tensor:
    picture = _sky((0.68, 0.67, 0.64), (0.74, 0.71, 0.65))
    picture = _paint(picture, (0.62, 0.58, 0.50), _below(_horizon(30, [(5, 2, 0.1), (2, 3, 0.6)])))
    for rock in ((14, 46, 28, 22), (56, 45, 18, 14), (98, 46, 36, 28)):
        picture = _paint(picture, (0.36, 0.33, 0.28), _dome(rock))
    return _paint(picture, (0.52, 0.48, 0.41), _below(_horizon(47, [(3, 2, 0.7), (1.5, 5, 0.2)])))


def _city() -> Tensor:
    picture = _sky((0.36, 0.38, 0.43), (0.47, 0.46, 0.46))
    houses = (
        (12, 22, 34, 0.10), (36, 22, 50, 0.22), (58, 20, 22, 0.12), (80, 22, 42, 0.19),
        (104, 24, 28, 0.09), (122, 14, 56, 0.25),
    )  # fmt: skip
    for x, width, height, shade in houses:
        walls = (0.95 * shade, shade, 1.12 * shade)
        picture = _paint(picture, walls, _block((x, SIZE + 2, width, height)))
    return picture


def _snow() -> Tensor:
    picture = _sky((0.54, 0.58, 0.64), (0.64, 0.67, 0.71))
    picture = _paint(picture, (0.72, 0.75, 0.79), _below(_horizon(32, [(5, 2, 0.3), (2, 5, 0.8)])))
    for fir in (
        (10, 50, 18, 30),
        (36, 48, 15, 22),
        (66, 51, 20, 36),
        (88, 47, 14, 20),
        (112, 50, 18, 27),
    ):
        picture = _paint(picture, (0.22, 0.28, 0.30), _fir(fir))
    return _paint(picture, (0.66, 0.70, 0.75), _below(_horizon(52, [(3, 2, 0.5), (1.5, 5, 0.2)])))


def _meadow() -> Tensor:
    picture = _sky((0.52, 0.55, 0.55), (0.60, 0.62, 0.59))
    picture = _paint(picture, (0.44, 0.49, 0.42), _below(_horizon(36, [(3, 1, 0.6), (2, 3, 0.2)])))
    for x, foot, width, height in (
        (16, 48, 24, 22),
        (52, 50, 18, 16),
        (84, 47, 28, 26),
        (116, 50, 16, 18),
    ):
        picture = _paint(picture, (0.30, 0.29, 0.24), _block((x, foot + 8, 5, 12)))
        picture = _paint(picture, (0.18, 0.25, 0.17), _crown((x, foot, width, height)))
    return _paint(picture, (0.34, 0.39, 0.31), _below(_horizon(55, [(2, 2, 0.1)])))


@cache
def panorama(scene: int) -> Tensor:
    """A scene (3, 64, SPAN · FINE + 1) in [0, 1]; its last column is the first again."""
    drawn = {"desert": _desert, "city": _city, "snow": _snow, "meadow": _meadow}[SCENES[scene]]()
    return torch.cat([drawn, drawn[..., :1]], -1)


@cache
def mean_colour(scene: int) -> Tensor:
    """Mean RGB (3,) of a scene."""
    return panorama(scene).mean((1, 2))


def view(scene: Tensor, left: Tensor) -> Tensor:
    """Pictures (n 3 T H W) of scenes (n,) with their left edge at world x `left` (n, T)."""
    at = ((left[..., None] + torch.arange(SIZE)) % SPAN) * FINE  # n T W
    low = at.floor().clamp(max=SPAN * FINE - 1)
    share, low = at - low, low.long()
    out = torch.empty(len(scene), 3, left.shape[1], SIZE, SIZE)
    for i in range(len(scene)):
        drawn = panorama(int(scene[i]))
        a, b = drawn[..., low[i]], drawn[..., low[i] + 1]  # 3 H T W
        out[i] = (a + (b - a) * share[i]).transpose(1, 2)
    return out
