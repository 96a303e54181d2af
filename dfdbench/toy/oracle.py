"""The oracle: reads a toy clip's attributes back from its pixels, with no learned weights.

Used by evaluate/metrics/oracle.py. It segments the sprite by its chroma, fits the four outlines to
the mask, follows its centroid, and slides the background to find the pan. Accuracy on real clips
after the VAE is measured by `accuracy` and recorded in results/toy/teacher/.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from dfdbench.toy.scenes import SCENES, mean_colour
from dfdbench.toy.world import (
    DIRECTIONS,
    HUES,
    PANS,
    REVEALED,
    SHAPES,
    shape_distance,
)
from dfdbench.utils.video import LUMA

MIN_CONTRAST = 0.12  # chroma of the sprite above the background's, below which there is no sprite
MIN_AREA, MAX_AREA = 150, 1100  # pixels; real sprites cover 360 to 600
LARGE = (
    12.0  # pixels of radius, from which on a sprite is a large one; after a VAE .97 of the truth
)
STEP = 4  # frames between the two pictures that are slid over each other
MAX_SHIFT = 7  # pixels over STEP frames; a real pan makes 4
INTACT_SHARE = 0.8  # share of frames that must show one sprite of known outline
INTACT_LIKENESS = 0.9  # correlation with the best outline; real sprites after the VAE: .97 and more
WINDOW = 48  # pixels around the sprite's centroid
RADII = tuple(float(r) for r in np.arange(7.5, 17.1, 0.5))  # real sprites have 10.7 to 13.8
BLURS = (0.5, 1.0, 1.5, 2.0)  # pixels
WHITE = 0.9  # least brightness inside a sprite without colour; scenes end at .8
ASTRAY = 4.0  # pixels between a sprite's start and where its later path comes from
STEADY = 0.75  # pixels of wobble
SPEEDS = (0.3, 1.0)  # pixels a frame; real sprites move at 0.5 to 0.7


class Reading(NamedTuple):
    """What the oracle sees. Indices are -1 where nothing can be read.

    shape, scene, hue (0..5), direction (0..7), pan (0 left, 1 none, 2 right), size (0 small,
    1 large): the class indices of dfdbench.toy.world. saturation: HSV, median of the sprite's inner
    pixels, 0..1. area: pixels, mean over frames. start, velocity: pixels and pixels a frame, x and
    y, of the straight line that fits the sprite's centroids, at the first frame. wobble: pixels,
    RMS distance of the centroids from that line. likeness: correlation with the best outline, mean
    over frames. intact: one sprite of known outline in at least 80 % of frames.
    """

    shape: int
    scene: int
    hue: int
    direction: int
    pan: int
    size: int
    saturation: float
    area: float
    start: tuple[float, float]
    velocity: tuple[float, float]
    wobble: float
    likeness: float
    intact: bool

    @property
    def speed(self) -> float:
        """Pixels a frame."""
        return float(np.hypot(*self.velocity))


class Hidden(NamedTuple):
    """A sprite that has no colour yet: its shape's index and its centroid, x and y in pixels."""

    shape: int
    centre: tuple[float, float]


def read_hidden(picture: np.ndarray) -> Hidden:
    """The white sprite that a clip of image to video begins with.

    Args:
        picture: uint8 (H W 3) RGB.

    Returns:
        A `Hidden`, its shape -1 where no such sprite is seen.
    """
    white = picture.min(-1) / 255
    if not MIN_AREA <= (white > WHITE).sum() <= MAX_AREA:
        return Hidden(-1, (0.0, 0.0))
    near = ndimage.binary_dilation(white > WHITE, np.ones((7, 7), bool))
    around = white[near & (white < WHITE - 0.1)]
    if not len(around):
        return Hidden(-1, (0.0, 0.0))
    behind = np.median(around)
    cover = ((white - behind) / (1 - behind)).clip(0, 1).astype(np.float32) * near
    mask = cover > 0.5
    y, x = ndimage.center_of_mass(mask)
    return Hidden(int(_likeness(_centred(cover * near, mask)).argmax()), (float(x), float(y)))


def continues(reading: Reading, hidden: Hidden) -> bool:
    """Whether the sprite of a first frame stays whole and moves on steadily from its place.

    reading: of the frames from `world.REVEALED` on.
    """
    back = np.array(reading.start) - REVEALED * np.array(reading.velocity)
    return (
        reading.intact
        and reading.shape == hidden.shape
        and float(np.hypot(*(back - hidden.centre))) <= ASTRAY
        and reading.wobble <= STEADY
        and SPEEDS[0] <= reading.speed <= SPEEDS[1]
    )


def _segment(frames_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest chromatic blob of each frame.

    Returns:
        masks (T H W) bool; cover (T H W) float32, how much of a pixel is sprite, 0..1; single (T,),
        whether the blob is the only one.
    """
    chroma = frames_THWC.max(-1) - frames_THWC.min(-1)
    low = np.median(chroma, axis=(1, 2))[:, None, None]
    high = np.quantile(chroma, 0.985, axis=(1, 2))[:, None, None]
    share = (chroma - low) / np.maximum(high - low, 1e-6)
    masks = share > 0.5
    single = np.zeros(len(masks), bool)
    for i, mask in enumerate(masks):
        if high[i] - low[i] < MIN_CONTRAST:
            masks[i] = False
            continue
        labels, count = ndimage.label(mask)
        if count:
            sizes = np.bincount(labels.ravel())[1:]
            masks[i] = labels == 1 + sizes.argmax()
            single[i] = sizes.max() >= 0.85 * sizes.sum()
    near = ndimage.binary_dilation(masks, np.ones((1, 5, 5), bool))
    return masks, (share.clip(0, 1) * near).astype(np.float32), single


@cache
def _outlines() -> tuple[np.ndarray, ...]:
    """Every shape, blurred, of every size in RADII: (R, W·W) of zero mean and unit norm each."""
    axis = torch.arange(WINDOW) - (WINDOW - 1) / 2
    x, y = axis[None, None, :], axis[None, :, None]
    tables = []
    for shape in range(len(SHAPES)):
        radius = torch.tensor(RADII)[:, None, None]
        full = (len(RADII), WINDOW, WINDOW)
        drawn = (0.5 - shape_distance(shape, x.expand(full), y.expand(full), radius)).clamp(0, 1)
        rows = []
        for outline in drawn.numpy():
            rows += [ndimage.gaussian_filter(_centred(outline, outline), b) for b in BLURS]
        flat = np.stack(rows).reshape(len(rows), -1)
        flat = flat - flat.mean(1, keepdims=True)
        tables.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
    return tuple(tables)


def _centred(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`picture` (H W) moved so that the centroid of `mask` is its centre, cut to the window."""
    centre = (np.array(picture.shape) - 1) / 2
    moved = ndimage.shift(picture, centre - ndimage.center_of_mass(mask), order=1)
    edge = (np.array(picture.shape) - WINDOW) // 2
    return moved[edge[0] : edge[0] + WINDOW, edge[1] : edge[1] + WINDOW]


def _likeness(cover_HW: np.ndarray) -> np.ndarray:
    """Correlation of a centred sprite (WINDOW²) with the best size and blur of each shape: (4,).

    Blurred outlines stand beside sharp ones because a VAE rounds corners; against sharp ones alone
    every rounded cross is a ball.
    """
    return np.array([fits.max() for fits in _fits(cover_HW)])


def _fits(cover_HW: np.ndarray) -> list[np.ndarray]:
    """Correlation of a centred sprite (WINDOW²) with every outline: (R,) for each shape."""
    flat = cover_HW.ravel() - cover_HW.mean()
    flat = flat / max(float(np.linalg.norm(flat)), 1e-6)
    return [table @ flat for table in _outlines()]


def _hue_and_saturation(pixels_N3: np.ndarray) -> tuple[int, float]:
    """Nearest hue mode of the chroma-weighted mean hue, and the median HSV saturation."""
    r, g, b = pixels_N3.T
    angle = np.arctan2(np.sqrt(3) * (g - b).sum(), (2 * r - g - b).sum())
    gap = (np.degrees(angle) - np.array(HUES) + 180) % 360 - 180
    high, low = pixels_N3.max(1), pixels_N3.min(1)
    return int(np.abs(gap).argmin()), float(np.median((high - low) / np.maximum(high, 1e-6)))


def _scene(colour_3: np.ndarray) -> int:
    """Scene whose mean colour is nearest to the background's."""
    gaps = [np.abs(mean_colour(i).numpy() - colour_3).sum() for i in range(len(SCENES))]
    return int(np.argmin(gaps))


def _pan(luma_THW: np.ndarray, background_THW: np.ndarray) -> int:
    """Pan of the horizontal shift that best maps each frame onto the one STEP later."""
    a, b = luma_THW[:-STEP], luma_THW[STEP:]
    free_a, free_b = background_THW[:-STEP], background_THW[STEP:]
    width = a.shape[-1]
    shifts = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    errors = []
    for shift in shifts:  # content moved left by `shift` pixels: the camera panned right
        left, right = (
            slice(max(shift, 0), width + min(shift, 0)),
            slice(max(-shift, 0), width - max(shift, 0)),
        )
        free = free_a[..., left] & free_b[..., right]
        errors.append((np.abs(a[..., left] - b[..., right]) * free).sum() / max(free.sum(), 1))
    best = shifts[int(np.argmin(errors))]
    return PANS.index("none" if abs(best) < STEP / 2 else "right" if best > 0 else "left")


def read(frames: np.ndarray) -> Reading:
    """Read one clip.

    Args:
        frames: uint8 (T H W 3) RGB, T at least 5.

    Returns:
        A `Reading`; `intact` is False and the sprite's fields are -1 or 0 where none is seen.
    """
    video = frames.astype(np.float32) / 255
    masks, cover, single = _segment(video)
    areas = masks.sum((1, 2))
    seen = (areas >= MIN_AREA) & (areas <= MAX_AREA)
    background = ~ndimage.binary_dilation(masks, np.ones((1, 5, 5), bool))
    scene = _scene(video[background].mean(0)) if background.any() else -1
    pan = _pan(video @ LUMA, background)
    if seen.sum() < 2:
        still = (0.0, 0.0)
        return Reading(
            -1, scene, -1, -1, pan, -1, 0.0, float(areas.mean()), still, still, 0.0, 0.0, False
        )  # fmt: skip
    kept = masks[seen]
    grid_y, grid_x = np.mgrid[: masks.shape[1], : masks.shape[2]]
    area = areas[seen]
    centroids = np.stack(
        [(kept * grid_x).sum((1, 2)) / area, (kept * grid_y).sum((1, 2)) / area], 1
    ).astype(np.float32)
    sprites = np.stack([_centred(*pair) for pair in zip(cover[seen], kept, strict=True)])
    fits = _fits(sprites.mean(0))
    shape = int(np.argmax([fit.max() for fit in fits]))
    radius = RADII[int(fits[shape].argmax()) // len(BLURS)]
    likeness = np.array([_likeness(sprite)[shape] for sprite in sprites])
    times = np.flatnonzero(seen)
    velocity, origin = np.polyfit(times, centroids, 1)
    strayed = centroids - (origin + times[:, None] * velocity)
    turn = np.degrees(np.arctan2(velocity[1], velocity[0])) / (360 / DIRECTIONS)
    inner = ndimage.binary_erosion(masks, np.ones((1, 3, 3), bool)) & seen[:, None, None]
    hue, saturation = _hue_and_saturation(video[inner if inner.any() else masks])
    whole = np.zeros(len(frames), bool)
    whole[seen] = likeness >= INTACT_LIKENESS
    return Reading(
        shape=shape,
        scene=scene,
        hue=hue,
        direction=round(turn) % DIRECTIONS,
        pan=pan,
        size=int(radius >= LARGE),
        saturation=saturation,
        area=float(area.mean()),
        start=(float(origin[0]), float(origin[1])),
        velocity=(float(velocity[0]), float(velocity[1])),
        wobble=float(np.sqrt((strayed**2).sum(1).mean())),
        likeness=float(likeness.mean()),
        intact=bool((whole & single).mean() >= INTACT_SHARE),
    )
