"""The oracle: reads a toy clip's attributes back from its pixels, with no learned weights.

Used by metrics/oracle.py. It segments the sprite by its chroma, fits the four known outlines to
the mask, follows its centroid, and slides the background to find the pan. Accuracy on real clips
after the VAE is measured by `accuracy` and recorded in results/toy/teacher/.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from dfdbench.toy.world import DIRECTIONS, HUES, PANS, SCENES, SHAPES, shape_distance

MIN_CONTRAST = 0.12  # chroma of the sprite above the background's, below which there is no sprite
MIN_AREA, MAX_AREA = 70, 1000  # pixels; real sprites cover 120 to 460
STEP = 4  # frames between the two pictures that are slid over each other
MAX_SHIFT = 7  # pixels over STEP frames; a real pan makes 4
INTACT_SHARE = 0.8  # share of frames that must show one sprite of known outline
INTACT_IOU = 0.72  # overlap with the best known outline, below which a sprite is not intact
# Shape area / radius²: how large a shape is drawn so that it has the area of the mask.
AREA_FACTOR = (np.pi, (2 * 0.86) ** 2, 1.2**2 * 3 * 3**0.5 / 4, 8 * 1.05 * 0.36 - 4 * 0.36**2)


class Reading(NamedTuple):
    """What the oracle sees. Indices are -1 where nothing can be read.

    shape, scene, hue (0..5), direction (0..7), pan (0 left, 1 none, 2 right): the class indices
    of dfdbench.toy.world. saturation: HSV, median of the sprite's inner pixels, 0..1.
    area: pixels, mean over frames. speed: pixels a frame. iou: overlap of the mask with the best
    outline, mean over frames. intact: one sprite of known outline in at least 80 % of frames.
    """

    shape: int
    scene: int
    hue: int
    direction: int
    pan: int
    saturation: float
    area: float
    speed: float
    iou: float
    intact: bool


def _masks(frames_THWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest chromatic blob per frame (T H W bool) and whether it is the only one (T,)."""
    chroma = frames_THWC.max(-1) - frames_THWC.min(-1)
    low = np.median(chroma, axis=(1, 2))
    high = np.quantile(chroma, 0.985, axis=(1, 2))
    masks = chroma > ((low + high) / 2)[:, None, None]
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
    return masks, single


def _outline_overlap(masks_THW: np.ndarray, centroids_T2: np.ndarray) -> np.ndarray:
    """IoU of each mask with each known outline of the same area and centroid: (T, 4)."""
    masks = torch.from_numpy(masks_THW)
    area = masks.sum((1, 2)).float()
    height, width = masks_THW.shape[1:]
    x = torch.arange(width)[None, None] - torch.from_numpy(centroids_T2[:, 0])[:, None, None]
    y = torch.arange(height)[None, :, None] - torch.from_numpy(centroids_T2[:, 1])[:, None, None]
    scores = []
    for shape in range(len(SHAPES)):
        radius = (area / AREA_FACTOR[shape]).sqrt()[:, None, None]
        outline = shape_distance(shape, x.expand_as(masks), y.expand_as(masks), radius) < 0
        scores.append((outline & masks).sum((1, 2)) / (outline | masks).sum((1, 2)).clamp(min=1))
    return torch.stack(scores, 1).numpy()


def _hue_and_saturation(pixels_N3: np.ndarray) -> tuple[int, float]:
    """Nearest hue mode of the chroma-weighted mean hue, and the median HSV saturation."""
    r, g, b = pixels_N3.T
    angle = np.arctan2(np.sqrt(3) * (g - b).sum(), (2 * r - g - b).sum())
    gap = (np.degrees(angle) - np.array(HUES) + 180) % 360 - 180
    high, low = pixels_N3.max(1), pixels_N3.min(1)
    return int(np.abs(gap).argmin()), float(np.median((high - low) / np.maximum(high, 1e-6)))


def _scene(colour_3: np.ndarray) -> int:
    """Scene of the background's mean colour: dark is city, warm desert, cool snow."""
    if colour_3.mean() < 0.48:
        return SCENES.index("city")
    return SCENES.index("desert" if colour_3[0] > colour_3[2] else "snow")


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
    masks, single = _masks(video)
    areas = masks.sum((1, 2))
    seen = (areas >= MIN_AREA) & (areas <= MAX_AREA)
    background = ~ndimage.binary_dilation(masks, np.ones((1, 5, 5), bool))
    scene = _scene(video[background].mean(0)) if background.any() else -1
    pan = _pan(video @ np.array([0.2126, 0.7152, 0.0722], np.float32), background)
    if seen.sum() < 2:
        return Reading(-1, scene, -1, -1, pan, 0.0, float(areas.mean()), 0.0, 0.0, False)
    kept = masks[seen]
    grid_y, grid_x = np.mgrid[: masks.shape[1], : masks.shape[2]]
    area = areas[seen]
    centroids = np.stack(
        [(kept * grid_x).sum((1, 2)) / area, (kept * grid_y).sum((1, 2)) / area], 1
    ).astype(np.float32)
    overlap = _outline_overlap(kept, centroids)
    shape = int(overlap.mean(0).argmax())
    velocity = np.polyfit(np.flatnonzero(seen), centroids, 1)[0]
    turn = np.degrees(np.arctan2(velocity[1], velocity[0])) / (360 / DIRECTIONS)
    inner = ndimage.binary_erosion(masks, np.ones((1, 3, 3), bool)) & seen[:, None, None]
    hue, saturation = _hue_and_saturation(video[inner if inner.any() else masks])
    whole = np.zeros(len(frames), bool)
    whole[seen] = overlap[:, shape] >= INTACT_IOU
    return Reading(
        shape=shape,
        scene=scene,
        hue=hue,
        direction=round(turn) % DIRECTIONS,
        pan=pan,
        saturation=saturation,
        area=float(area.mean()),
        speed=float(np.hypot(*velocity)),
        iou=float(overlap[:, shape].mean()),
        intact=bool((whole & single).mean() >= INTACT_SHARE),
    )
