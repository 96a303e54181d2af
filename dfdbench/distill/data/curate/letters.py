"""How much of a shot has letters laid over it: titles, subtitles, watermarks, logos.

Two rules without a network. Lines of glyphs are told by their shape, in a scene that moves or not;
what else stays, such as a logo, only where the scene around it moves, for in a still camera's view
everything stays. Pure functions of uint8 RGB frames. Used by shots.py.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dfdbench.utils.video import reduced

READABLE = 360  # pixels of the short side
HEIGHTS = (0.02, 0.15)  # least and largest height of a line of letters, of the picture's height
MARGIN = 0.01  # of the picture's height, along its border, without letters
LEAST_GLYPH = 6  # pixels of its height; smaller specks have no form
EDGE = 60.0  # least contrast of a letter's edge, grey levels
INK = 50.0  # the same of its strokes
STROKE = 0.02  # least width that is no stroke any more, of the picture's height
CORE = 0.6  # share of the way from what is around a stroke to it, from which on it is stroke
ONE_INK = 20.0  # grey levels that the letters of a line differ by, at most
GLYPHS = 6  # of one line, at least
MOST_GLYPHS = 1000  # more specks than that are leaves or gravel
REPEATS = 0.7  # share of a line's glyphs that are alike where they are no letters
LASTING = 3  # readings in which a line of glyphs must be, a second at two a second
SAME = 0.7  # overlap of boxes that are one line
SLIM = 0.75  # least width of what stays, of its height
FILLED = 0.4  # share of a box that what stays fills
LEAST_EDGES = 0.005  # share of what is around a box that must be edges to tell that it moves
STILL = 0.1  # share of the edges beside a box that stay where a scene does not move
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Reading(NamedTuple):
    """What one frame shows of letters.

    edges: bits of bool (H, W), packed along its rows. shape: H and W. lines: boxes of lines of
    glyphs.
    """

    edges: np.ndarray
    shape: tuple[int, int]
    lines: list[Box]


def read_letters(picture: np.ndarray) -> Reading:
    """The edges and the lines of glyphs of one frame, uint8 (H W 3) RGB, reduced."""
    import cv2

    grey = cv2.cvtColor(reduced(picture, READABLE), cv2.COLOR_RGB2GRAY)
    change = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, _box(3, 3))
    height, width = grey.shape
    return Reading(np.packbits(change > EDGE, axis=1), (height, width), glyph_lines(grey))


def text_share(readings: Sequence[Reading]) -> float:
    """Share of the area of a shot that letters cover, 0 to 1: the larger one of both rules.

    Letters that move with the scene or across it, single words of fewer than GLYPHS, and script
    whose glyphs are joined are found by neither; a sign that a still camera looks at is.

    Args:
        readings: of frames of the shot, all of one size, at least two.
    """
    return max(_glyph_share(readings), _overlaid_share(readings))


def _glyph_share(readings: Sequence[Reading]) -> float:
    """The most that lines of glyphs cover in LASTING readings after each other, at one place."""
    height, width = readings[0].shape
    most, lasting = 0, min(LASTING, len(readings))
    for last in range(lasting - 1, len(readings)):
        covered = np.zeros((height, width), bool)
        for box in readings[last].lines:
            before = readings[last - lasting + 1 : last]
            if all(any(_overlap(box, o) >= SAME for o in reading.lines) for reading in before):
                left, top, right, bottom = box
                covered[top:bottom, left:right] = True
        most = max(most, int(covered.sum()))
    return most / (height * width)


def _overlap(one: Box, other: Box) -> float:
    """Area that two boxes share, over that of both together."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (one, other))
    return shared / (both - shared)


def _overlaid_share(readings: Sequence[Reading]) -> float:
    """The share in filled boxes of edges that stay through a shot while those around them go."""
    import cv2

    height, width = readings[0].shape
    often = np.zeros((height, width), np.float32)
    for reading in readings:
        often += np.unpackbits(reading.edges, axis=1, count=width)
    often /= len(readings)  # share of the readings in which a place is an edge
    stays = often == 1
    joined = cv2.morphologyEx(
        stays.astype(np.uint8), cv2.MORPH_CLOSE, _box(1, max(3, height // 40))
    )
    _, _, found, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    boxes = [
        (x, y, x + w, y + h)
        for x, y, w, h, pixels in found[1:].tolist()
        if HEIGHTS[0] * height <= h <= HEIGHTS[1] * height
        and w >= SLIM * h
        and pixels >= FILLED * w * h
    ]
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes if _moves(box, stays, often))
    return area / (height * width)


def _moves(box: Box, stays: np.ndarray, often: np.ndarray) -> bool:
    """Whether the scene moves, around a box and as a whole, as far as there is anything to see."""
    left, top, right, bottom = box
    reach = 2 * (bottom - top)
    outside = np.ones(stays.shape, bool)
    outside[top:bottom, left:right] = False
    around = np.s_[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach]
    staying = []
    for place in (around, np.s_[:, :]):
        edges = float(often[place][outside[place]].sum())
        if edges >= LEAST_EDGES * outside[place].sum():
            staying.append(float(stays[place][outside[place]].sum()) / edges)
    return bool(staying) and max(staying) < STILL


def glyph_lines(grey: np.ndarray) -> list[Box]:
    """Boxes of lines of at least GLYPHS separate glyphs on one baseline, in uint8 (H, W).

    Glyphs are strokes brighter or darker than what is around them, of a height that letters have;
    in a line they are close, of one ink and of a few heights, and unlike: what repeats itself at
    one distance is a fence, a wall or a row of windows.
    """
    import cv2

    kernel = _box(*[2 * round(STROKE * min(grey.shape)) + 1] * 2)
    lines: list[Box] = []
    for ink in (grey, 255 - grey):
        strokes = cv2.morphologyEx(ink, cv2.MORPH_TOPHAT, kernel) > INK
        least, most = cv2.erode(ink, kernel), cv2.dilate(ink, kernel)
        strokes &= ink >= least + CORE * (most.astype(np.float32) - least)
        _, _, found, _ = cv2.connectedComponentsWithStats(strokes.astype(np.uint8), connectivity=8)
        glyphs = _glyphs(found[1:], *grey.shape)
        lines += [_around(run) for run in _lines_of(glyphs) if _one_ink(ink, run)]
    return lines


def _one_ink(ink: np.ndarray, glyphs: np.ndarray) -> bool:
    """Whether the brightest pixels of nearly all glyphs of a line are alike."""
    peaks = np.array([float(ink[y : y + h, x : x + w].max()) for x, y, w, h, _ in glyphs.tolist()])
    return bool(np.mean(np.abs(peaks - np.median(peaks)) <= ONE_INK) >= 0.8)


def _glyphs(found: np.ndarray, height: int, width: int) -> np.ndarray:
    """Components that may be glyphs, from left to right: left, top, width, height, area of each.

    What the picture's border may cut is none; there are none where more than MOST_GLYPHS may be.
    """
    left, top, w, h, area = found.T
    margin = MARGIN * height
    whole = (np.minimum(left, top) > margin) & (left + w < width - margin)
    whole &= top + h < height - margin
    filled = area / (w * h)
    high = (h >= max(LEAST_GLYPH, 0.6 * HEIGHTS[0] * height)) & (h <= HEIGHTS[1] * height)
    solid = (filled >= 0.85) & (w >= 0.45 * h)  # a block, where an l is only a bar
    kept = found[whole & high & (w >= 0.1 * h) & (w <= 1.6 * h) & (filled > 0.2) & ~solid]
    return kept[np.argsort(kept[:, 0], kind="stable")] if len(kept) <= MOST_GLYPHS else kept[:0]


def _lines_of(glyphs: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of glyphs that are next to each other on a baseline and differ, as letters do."""
    if len(glyphs) < GLYPHS:
        return
    left, top, w, h, _ = glyphs.T.astype(np.float32)
    bottom, tall = top + h, np.maximum(h[:, None], h[None])
    gap = left[None] - (left + w)[:, None]  # from a row's glyph to a column's
    beside = (
        (left[None] > left[:, None])
        & (gap >= -0.3 * tall)
        & (gap <= tall)
        & (np.abs(bottom[None] - bottom[:, None]) <= np.maximum(1, 0.1 * tall))
        & (tall <= 2 * np.minimum(h[:, None], h[None]))
    )
    following = np.where(beside.any(1), np.where(beside, gap, np.inf).argmin(1), -1)
    for first in np.setdiff1d(np.arange(len(glyphs)), following).tolist():
        run = [first]
        while (after := int(following[run[-1]])) >= 0:
            run.append(after)
        if len(run) >= GLYPHS and _as_letters(glyphs[run]):
            yield glyphs[run]


def _as_letters(glyphs: np.ndarray) -> bool:
    """Whether half of a run's glyphs are of one height, and forms and distances do not repeat."""
    left, _, w, h, area = glyphs.T.astype(np.float64)
    of_one_height = (np.abs(h[None] - h[:, None]) <= np.maximum(1, 0.1 * h[:, None])).sum(1).max()
    filled, steps = area / (w * h), np.diff(left + w / 2)
    alike = _near(w, np.maximum(1, 0.12 * np.median(w))) & _near(filled, 0.06)
    evenly = _near(steps, 0.1 * np.median(steps))
    repeats = max(alike.mean(), (alike.mean() + evenly.mean()) / 2)
    return bool(2 * of_one_height >= len(h) and repeats < REPEATS)


def _near(values: np.ndarray, most: float) -> np.ndarray:
    return np.abs(values - np.median(values)) <= most


def _around(glyphs: np.ndarray) -> Box:
    left, top, w, h, _ = glyphs.T
    return int(left.min()), int(top.min()), int((left + w).max()), int((top + h).max())


def _box(height: int, width: int) -> np.ndarray:
    return np.ones((height, width), np.uint8)
