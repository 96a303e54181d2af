"""The toy world's scenes: four panoramas, periodic in x, of little colour and much texture.

Used by world.py, which looks at them through a moving window of 64 pixels. Their colours stay dull,
so that a sprite is what has chroma; rocks, houses, firs and bushes give a camera something to
track.
"""

from collections.abc import Iterable
from functools import cache
from math import tau

import torch
from torch import Tensor

SIZE = 64  # pixels, height of a panorama, height and width of a picture
SPAN = 192  # pixels, width of a panorama before it repeats
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
    far = _horizon(23, [(3.5, 2, 0.1), (2.5, 5, 0.6), (1.0, 9, 0.3)])
    picture = _paint(picture, (0.62, 0.58, 0.50), _below(far))
    picture = _paint(picture, (0.55, 0.51, 0.43), _below(_horizon(40, [(4, 3, 0.7), (2, 7, 0.2)])))
    for rock in (
        (9, 41, 12, 9),
        (50, 45, 9, 6),
        (88, 39, 15, 11),
        (121, 43, 8, 6),
        (159, 42, 12, 8),
    ):
        picture = _paint(picture, (0.34, 0.32, 0.28), _dome(rock))
    for trunk in (
        (30, 50, 4, 17),
        (72, 52, 4, 12),
        (108, 50, 4, 18),
        (141, 53, 4, 13),
        (178, 51, 4, 16),
    ):
        picture = _paint(picture, (0.37, 0.41, 0.33), _block(trunk))
    return _paint(picture, (0.46, 0.42, 0.36), _below(_horizon(55, [(2.5, 4, 0.4), (1.5, 8, 0.9)])))


def _city() -> Tensor:
    picture = _sky((0.29, 0.31, 0.36), (0.43, 0.42, 0.42))
    houses = (
        (7, 13, 30), (21, 12, 41), (35, 14, 24), (49, 12, 36), (64, 15, 46), (79, 13, 28),
        (93, 12, 38), (107, 14, 22), (121, 13, 43), (136, 15, 32), (151, 13, 26), (165, 12, 44),
        (180, 15, 34),
    )  # fmt: skip
    for i, (x, width, height) in enumerate(houses):
        shade = 0.13 + 0.035 * (i * 5 % 4)
        walls = (0.95 * shade, shade, 1.12 * shade)
        picture = _paint(picture, walls, _block((x, SIZE + 2, width, height)))
        for window in ((x - 2.8, 6.0), (x + 2.8, 13.0)) if i % 3 else ((x, 8.0),):
            lit = (window[0], SIZE - height + window[1] + 2, 3.2, 4.5)
            picture = _paint(picture, (0.56, 0.53, 0.46), _block(lit))
    return picture


def _snow() -> Tensor:
    picture = _sky((0.54, 0.58, 0.64), (0.64, 0.67, 0.71))
    far = _horizon(22, [(4, 3, 0.3), (2, 7, 0.8)])
    picture = _paint(picture, (0.70, 0.73, 0.77), _below(far))
    picture = _paint(picture, (0.62, 0.66, 0.71), _below(_horizon(39, [(4, 2, 0.9), (2, 5, 0.1)])))
    firs = (
        (6, 44, 10, 17), (24, 40, 8, 12), (37, 46, 11, 19), (61, 43, 9, 14), (83, 45, 11, 18),
        (97, 41, 8, 13), (118, 46, 10, 16), (140, 42, 9, 15), (154, 46, 11, 19), (176, 43, 9, 13),
    )  # fmt: skip
    for fir in firs:
        picture = _paint(picture, (0.27, 0.32, 0.33), _fir(fir))
    return _paint(picture, (0.74, 0.77, 0.80), _below(_horizon(54, [(3, 4, 0.5), (1.5, 9, 0.2)])))


def _meadow() -> Tensor:
    picture = _sky((0.50, 0.53, 0.53), (0.58, 0.60, 0.57))
    far = _horizon(25, [(3, 2, 0.6), (2, 5, 0.2)])
    picture = _paint(picture, (0.42, 0.47, 0.40), _below(far))
    picture = _paint(
        picture, (0.36, 0.41, 0.33), _below(_horizon(41, [(3, 3, 0.2), (1.5, 8, 0.7)]))
    )
    for bush in (
        (14, 44, 16, 10),
        (44, 40, 11, 8),
        (71, 45, 18, 11),
        (104, 42, 13, 9),
        (130, 46, 15, 10),
        (168, 43, 19, 12),
    ):
        picture = _paint(picture, (0.22, 0.28, 0.20), _dome(bush))
    for post in range(12):
        picture = _paint(picture, (0.56, 0.54, 0.48), _block((16 * post + 4, 58, 2.6, 9)))
    return _paint(picture, (0.30, 0.35, 0.27), _below(_horizon(57, [(1.5, 5, 0.1)])))


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
