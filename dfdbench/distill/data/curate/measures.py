"""What is measured of a shot's pixels: change, black bars, and hashes for near duplicates.

Pure functions of uint8 RGB frames. Used by shots.py.
"""

from typing import NamedTuple

import numpy as np

from dfdbench.utils.video import reduced

SMALL = 144  # pixels of the short side
BLACK = 24  # grey levels up to which a pixel is black
HASH_SIDE, HASH_KEPT = 32, 8


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


def unlike(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Most bits in which a shot's three hashes differ from those of each other shot, (N,).

    hashes: uint64 (3,). others: uint64 (N, 3).
    """
    return np.bitwise_count(others ^ hashes).max(axis=1)
