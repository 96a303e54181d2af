"""Frames of shots: each video is decoded once, in order, however many shots it has.

Used by the stages that look at pixels. A decoder never enters a video in the middle (decode.py), so
shots of one video are asked for together.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from dfdbench.distill.data.curate.rows import Shot
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import frame_indices, reduced, stream_video

JPEG_QUALITY = 90


def spread(count: int) -> Callable[[Shot], np.ndarray]:
    """Picks `count` frames of a shot at even distances, the middles of equal parts."""

    def numbers(shot: Shot) -> np.ndarray:
        places = (np.arange(count) + 0.5) / count * shot.frames
        return np.unique(places.astype(int))

    return numbers


def by_policy(policy: str) -> Callable[[Shot], np.ndarray]:
    """Picks the frames of a shot that a frame policy takes of a clip of its length."""
    return lambda shot: np.unique(frame_indices(shot.frames, policy))


def shot_frames(
    folder: Path, shots: Sequence[Shot], choose: Callable[[Shot], np.ndarray], side: int = 0
) -> Iterator[tuple[Shot, np.ndarray | UserError]]:
    """Each shot with the frames that are chosen, uint8 (T H W 3) RGB, or why it has none.

    Args:
        shots: those of one video stand together, in the order of their starts.
        choose: numbers of frames within a shot, rising.
        side: pixels of the short side to which frames are reduced; 0: as they are.
    """
    for path, group in groupby(shots, lambda shot: shot.path):
        wanted = [(shot, shot.start + choose(shot)) for shot in group]
        numbers = sorted({int(n) for _, chosen in wanted for n in chosen})
        waiting, pictures = list(wanted), dict[int, np.ndarray]()
        try:
            for number, picture in stream_video(folder / path, numbers):
                pictures[number] = reduced(picture, side) if side else picture
                while waiting and waiting[0][1][-1] <= number:
                    shot, chosen = waiting.pop(0)
                    yield shot, np.stack([pictures[n] for n in chosen.tolist()])
                    first = waiting[0][1][0] if waiting else number + 1
                    pictures = {n: p for n, p in pictures.items() if n >= first}
            fault = UserError(f"{path}: ends before frame {numbers[-1]}; find its shots again")
        except UserError as error:
            fault = error
        except (KeyError, ValueError) as error:  # frames of two sizes, or fewer than there were
            fault = UserError(f"{path}: its frames are not those of its shots ({error})")
        for shot, _ in waiting:
            yield shot, fault


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 (H W 3) RGB as the bytes of a JPEG, the same for the same pixels."""
    import cv2

    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise UserError(f"a picture of {picture.shape} cannot be written as JPEG")
    return data.tobytes()
