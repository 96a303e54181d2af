"""What is measured of a shot's pixels: change, black bars, letters, and hashes for near duplicates.

Pure functions of uint8 RGB frames. Used by shots.py.
"""

from typing import NamedTuple

import numpy as np

from dfdbench.utils.video import reduced

SMALL, READABLE = 144, 288  # pixels of the short side: of all measures, of that of letters
BLACK = 24  # grey levels up to which a pixel is black
HASH_SIDE, HASH_KEPT = 32, 8
LETTERS = (0.02, 0.15)  # least and largest height of a line of letters, of the picture's height
LINE = 2.0  # a line of letters is so many times as wide as high
FILLED = 0.4  # share of a line's box that its letters fill
EDGE = 60.0  # least contrast of a letter's edge, grey levels


class Look(NamedTuple):
    """What one frame shows.

    grey: float32 (H, W), small, 0 to 255. bars: shares of height or width that are black along
    the top, bottom, left and right, (4,). hash: 64 bits.
    """

    grey: np.ndarray
    bars: np.ndarray
    hash: int


def look(picture: np.ndarray) -> Look:
    """Measure one frame, uint8 (H W 3) RGB."""
    import cv2

    grey = cv2.cvtColor(reduced(picture, SMALL), cv2.COLOR_RGB2GRAY)
    return Look(grey.astype(np.float32), black_bars(grey), perceptual_hash(grey))


def black_bars(grey: np.ndarray) -> np.ndarray:
    """Shares black along top, bottom, left and right, (4,), of uint8 (H, W); a black frame: ones.

    A row or column is black if all its pixels are.
    """
    shares = []
    for axis in (1, 0):
        bright = np.asarray((grey > BLACK).any(axis=axis))
        places = np.flatnonzero(bright)
        if not len(places):
            return np.ones(4)
        shares += [places[0] / len(bright), (len(bright) - 1 - places[-1]) / len(bright)]
    return np.array(shares)


def bar_area(bars: np.ndarray) -> float:
    """Share of the area behind bars that stay in all frames; `bars`: (T, 4), of `black_bars`."""
    top, bottom, left, right = bars.min(axis=0)
    return float(1 - max(0.0, 1 - top - bottom) * max(0.0, 1 - left - right))


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits of uint8 (H, W): which of the 8×8 lowest frequencies exceed their median (pHash).

    The cosine transform of the picture at 32×32 (Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010, 3.2.1). Copies that were scaled or compressed differ in
    a few bits.
    """
    import cv2

    square = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(square.astype(np.float32))[:HASH_KEPT, :HASH_KEPT]
    bits = (low > np.median(low)).flatten()
    return int(np.packbits(bits).tobytes().hex(), 16)


def strong_edges(picture: np.ndarray) -> np.ndarray:
    """Where uint8 (H W 3) has edges as strong as those of letters, bool (H, W), reduced."""
    import cv2

    grey = cv2.cvtColor(reduced(picture, READABLE), cv2.COLOR_RGB2GRAY)
    change = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return np.asarray(change > EDGE)


def text_share(edges: np.ndarray) -> float:
    """Share of the area in boxes that look like lines of letters laid over a shot, 0 to 1.

    Edges that stay where they are through the shot are joined sideways; what is then a filled box,
    wider than high and of a height that letters have, counts. A rule without a network: it finds
    titles, subtitles and logos over a scene that moves, not those that move with it, and where
    nothing moves it takes some fences and windows for letters.

    Args:
        edges: bool (T, H, W), of `strong_edges`.
    """
    import cv2

    stays = np.asarray(edges.all(axis=0), np.uint8)
    height, width = stays.shape
    reach = np.ones((1, max(3, height // 40)), np.uint8)
    joined = cv2.morphologyEx(stays, cv2.MORPH_CLOSE, reach)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    area = 0
    for _, _, w, h, pixels in boxes[1:].tolist():
        high = LETTERS[0] * height <= h <= LETTERS[1] * height
        if high and w >= LINE * h and pixels >= FILLED * w * h:
            area += w * h
    return area / (height * width)


def unlike(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Most bits in which a shot's three hashes differ from those of each other shot, (N,).

    hashes: uint64 (3,). others: uint64 (N, 3).
    """
    return np.bitwise_count(others ^ hashes).max(axis=1)
