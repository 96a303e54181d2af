"""A small rendered room for camera tests: textured planes at several depths, known poses."""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

WIDTH, HEIGHT, FOCAL = 416, 240, 0.9 * 416
TEXELS = 512


class Plane(NamedTuple):
    """A rectangle: centre, two unit directions (world), half extents along them, grey texture."""

    centre: np.ndarray
    along: tuple[np.ndarray, np.ndarray]
    half: tuple[float, float]
    texture: np.ndarray


def _texture(rng: np.random.Generator) -> np.ndarray:
    noise = [
        sigma * cv2.GaussianBlur(rng.standard_normal((TEXELS, TEXELS)), (0, 0), sigma)
        for sigma in (2, 4, 8, 16)
    ]
    return cv2.normalize(sum(noise), None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)


@cache
def room(seed: int = 0) -> list[Plane]:
    """Back wall at z = 9, floor at y = 1.6, five boards between z = 3.6 and 6.5."""
    rng = np.random.default_rng(seed)
    x, y, z = np.eye(3)
    slanted = (x + 0.2 * z) / np.linalg.norm(x + 0.2 * z)
    planes = [
        Plane(9 * z, (x, y), (12, 8), _texture(rng)),
        Plane(1.6 * y + 6 * z, (x, z), (12, 6), _texture(rng)),
    ]
    for centre, half in (
        ((-1.8, 0.3, 4.0), (0.5, 1.2)),
        ((1.2, 0.6, 5.0), (0.6, 1.0)),
        ((0.2, -1.0, 6.5), (0.7, 0.5)),
        ((2.6, 0.0, 3.6), (0.4, 1.5)),
        ((-3.0, -0.5, 6.0), (0.8, 0.8)),
    ):
        planes.append(Plane(np.array(centre), (slanted, y), half, _texture(rng)))
    return planes


def look(planes: list[Plane], pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 (H, W, 3) and depth along z (H, W) of a pinhole camera at `pose`."""
    intrinsics = [[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]]
    ray = pose[:3, :3] @ np.linalg.inv(intrinsics)  # from pixel (x, y, 1) to a ray of depth 1
    depth, grey = np.full((HEIGHT, WIDTH), np.inf), np.full((HEIGHT, WIDTH), 40, np.float32)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    for plane in planes:
        normal, offset = np.cross(*plane.along), pose[:3, 3] - plane.centre
        # A ray meets the plane at depth −offset·n / (n·ray), all linear in the pixel but for the /.
        across = normal @ ray
        maps = [
            (offset @ d * across - offset @ normal * (d @ ray)) / h
            for d, h in zip(plane.along, plane.half, strict=True)
        ]
        to_texel = np.stack([*((m + across) * (TEXELS - 1) / 2 for m in maps), across])
        colour = cv2.warpPerspective(
            plane.texture,
            to_texel,
            (WIDTH, HEIGHT),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderValue=-1e9,
        )
        far = -(offset @ normal) / (across[0] * column + across[1] * row + across[2])
        seen = (far > 0.1) & (far < depth) & (colour >= 0)
        grey[seen], depth[seen] = colour[seen], far[seen]
    return np.repeat(grey.astype(np.uint8)[..., None], 3, -1), depth


def film(planes: list[Plane], poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (T, H, W, 3) and depths (T, H, W) along poses (T, 4, 4)."""
    frames, depths = zip(*(look(planes, pose) for pose in poses), strict=True)
    return np.stack(frames), np.stack(depths)


def pose(position: tuple[float, float, float], **angles: float) -> np.ndarray:
    """Camera to world; yaw (right), pitch (up) and roll in degrees, turned in this order."""
    euler = [angles.get(name, 0.0) for name in ("yaw", "pitch", "roll")]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("YXZ", euler, degrees=True).as_matrix()
    matrix[:3, 3] = position
    return matrix


def motion(name: str, frames: int = 8, speed: float = 1.0) -> np.ndarray:
    """Poses (T, 4, 4) of a named camera motion; `speed` 1 is a fair pace for 8 frames."""

    def at(t: float) -> np.ndarray:
        turn = np.radians(12 * t)
        return {
            "dolly": pose((0, 0, t)),
            "dolly_out": pose((0, 0, -t)),
            "truck": pose((0.7 * t, 0, 0)),
            "pedestal": pose((0, -0.4 * t, 0)),
            "pan": pose((0, 0, 0), yaw=10 * t),
            "tilt": pose((0, 0, 0), pitch=6 * t),
            "roll": pose((0, 0, 0), roll=8 * t),
            "static": pose((0, 0, 0)),
            # Around the point (0, 0, 5), to the right and turning left to keep it in the middle.
            "orbit": pose((5 * np.sin(turn), 0, 5 - 5 * np.cos(turn)), yaw=-12 * t),
        }[name]

    return np.stack([at(speed * k / (frames - 1)) for k in range(frames)])
