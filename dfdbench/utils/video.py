"""Read and write clips: the reader (decode.py), frame policies, H.264 writer, first frames.

Used by generation (writes), scoring and report (read). Frames are always uint8 RGB, T H W 3.

Why yuv444p at CRF 8 (24 toy clips of 64×64×17 written and read back):

    format   CRF  PSNR mean / min dB  mean saturation, shift / largest  kB a clip
    yuv420p    0        36.6 / 32.0              +.0021 / .0079              8.9
    yuv420p    8        36.5 / 31.9              +.0021 / .0093              8.2
    yuv444p    0        51.9 / 51.1              -.0008 / .0019             11.1
    yuv444p    8        47.7 / 45.8              -.0010 / .0028              8.2
    yuv444p   16        43.3 / 41.3              -.0012 / .0042              5.1

Halved chroma (yuv420p) smears the colours of small sprites and shifts the saturation that is to be
measured, at any CRF. No oracle reading changed with either.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np

from dfdbench.utils import decode
from dfdbench.utils.errors import UserError, pass_out_of_memory, unknown_name
from dfdbench.utils.files import atomic_path

if TYPE_CHECKING:
    import torch

PIXEL_FORMAT = "yuv444p"
CRF = 8
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, on gamma-coded R, G, B


class Damaged(UserError):
    """The decoder reports errors of a clip."""


class Clip(NamedTuple):
    """Decoded frames of one video.

    frames: uint8 (T, H, W, 3) RGB. fps: frames per second of the file, not of the selection.
    decoder: name and version, e.g. "pyav-18.1.0-r2". indices: int (T,), the frame numbers taken.
    path: the file, None for frames that come from none. prompt: its text, image: the picture that
    it should continue, uint8 (H, W, 3) RGB; only for families that need them. total: frames of the
    file, where one was read. damage: what the decoder reported, None where nothing. blocks: as of a
    Sample (utils/manifest.py), where a causal student made it.
    """

    frames: np.ndarray
    fps: float
    decoder: str
    indices: np.ndarray
    path: Path | None = None
    prompt: str | None = None
    image: np.ndarray | None = None
    total: int = 0
    damage: str | None = None
    blocks: str = ""


def _all_frames(total: int) -> np.ndarray:
    return np.arange(total)


def _even16(total: int) -> np.ndarray:
    # Both end frames included; a clip of 16 frames or fewer is taken whole, nothing twice.
    return np.unique(np.rint(np.linspace(0, total - 1, min(16, total))).astype(int))


def _middle(count: int) -> Callable[[int], np.ndarray]:
    def indices(total: int) -> np.ndarray:
        # VBench: the middle of each of `count` parts; a shorter clip's last frame fills the rest
        edges = np.linspace(0, total, min(count, total) + 1).astype(int)
        middles = (edges[:-1] + edges[1:] - 1) // 2
        return np.pad(middles, (0, count - len(middles)), mode="edge")

    return indices


POLICIES: dict[str, Callable[[int], np.ndarray]] = {
    "all": _all_frames,
    "even16": _even16,
    "middle8": _middle(8),
    "middle16": _middle(16),
}


def frame_indices(total: int, policy: str) -> np.ndarray:
    """Frame numbers that `policy` takes from a video of `total` frames; int, never falling."""
    if policy not in POLICIES:
        raise unknown_name("frame policy", policy, POLICIES)
    return POLICIES[policy](total)


def select(clip: Clip, policy: str) -> Clip:
    """The part of a completely decoded `clip` that `policy` takes; a view where it can be."""
    if policy == "all":
        return clip
    indices = frame_indices(len(clip.frames), policy)
    return clip._replace(frames=clip.frames[indices], indices=clip.indices[indices])


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """The uint8 image (H, W) or (H, W, 3) with a short side of at most `side`, never enlarged.

    Every new pixel is the mean over the area that it covers (OpenCV's INTER_AREA).
    """
    import cv2

    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return image
    size = round(width * scale), round(height * scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def frame_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height in pixels as `read_video` gives the clip's frames; None where it cannot.

    Rotated as the display matrix says; a sample aspect ratio is not applied, as in no frame.
    """
    try:
        first = read_video(path, lambda times, fps: np.arange(min(1, len(times))), True).frames[0]
    except (UserError, IndexError):
        return None
    return first.shape[1], first.shape[0]


def read_video(
    path: str | Path, policy: str | decode.Choose = "all", allow_damaged: bool = False
) -> Clip:
    """The frames that `policy` takes from those that the video at `path` shows; see decode.py.

    Decoded in order on one thread: clips are the parallel unit.

    Args:
        policy: a key of POLICIES; or a function of times (T,) in seconds from the first frame and
            the frame rate that gives frame numbers, and depends on no time after the last of them.
        allow_damaged: read a clip on which the decoder reports errors; `damage` then says so.

    Raises:
        UserError: the file is missing, no regular file, no video, cut short, or damaged.
    """
    path = Path(path)
    with _readable(path):
        if isinstance(policy, str):
            shown, indices = decode.read(path, lambda times, _: frame_indices(len(times), policy))
        else:
            shown, indices = decode.read(path, policy, stop_early=True)
    if shown.damage and not allow_damaged:
        raise Damaged(damaged_line(path, shown.damage))
    total = len(shown.times)
    return Clip(
        shown.frames, shown.fps, decode.name(), indices, path, None, None, total, shown.damage
    )


def stream_video(
    path: str | Path, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture of the frames of a video of any length, as `decode.stream` gives them.

    They are those of `read_video`.

    Raises:
        UserError: as `read_video`; of damage only after what could be read.
    """
    path = Path(path)
    with _readable(path):
        yield from decode.stream(path, wanted)


def frame_rate(path: str | Path) -> float:
    """Frames a second of the file, from its packets.

    Raises:
        UserError: as `read_video`.
    """
    path = Path(path)
    with _readable(path):
        return decode.rate(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what decoding raises into one line that names the file."""
    try:
        is_file = path.is_file()
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path}: {error.strerror}; check the path") from None
    if not is_file:
        kind = "not a regular file" if path.exists() else "no such video file"
        raise UserError(f"{path}: {kind}; check the path")
    try:
        yield
    except decode.TooLarge as error:
        raise UserError(f"{path}: {error}; cut the clip") from error
    except UserError:
        raise
    except av.error.MemoryError as error:  # also what FFmpeg says of absurd sizes in a damaged file
        raise UserError(
            f"{path}: FFmpeg was refused memory for it; leave it out, or read fewer at a time"
        ) from error
    except decode.UNREADABLE as error:
        pass_out_of_memory(error)
        reason = "empty file" if path.stat().st_size == 0 else _one_line(error)
        raise UserError(
            f"{path}: not a readable video ({reason}); write or download it again"
        ) from error


def damaged_line(path: Path, damage: str) -> str:
    """Why a clip is left out on which the decoder reported `damage`."""
    return f"{path}: damaged ({damage}); write or download it again"


def read_image(path: str | Path | None) -> np.ndarray | None:
    """The picture at `path` as it is shown, uint8 (H, W, 3) RGB; None for None.

    Turned and mirrored as its EXIF orientation says.

    Raises:
        UserError: it is missing, no regular file, no picture, or too large to be one.
    """
    if path is None:
        return None
    from PIL import Image, ImageOps

    if not Path(path).is_file():
        raise UserError(f"{path}: no such picture, or no regular file; check the path")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # PIL would clip its 16 bits to 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        pass_out_of_memory(error)
        raise UserError(f"{path}: not a readable picture; write or download it again") from error


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120]


@contextmanager
def video_writer(path: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write H.264 to `path` (.mp4) frame by frame: gives what takes uint8 RGB frames (T, H, W, 3).

    The file takes its name when the body has ended, and none when it raises. Its bytes depend on
    the frames alone, not on how many come at a time. What is held does not grow with the clip.

    Raises:
        UserError: frames of another type or shape, or none at all.
    """
    options = {"fflags": "+bitexact"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", "mp4", options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = PIXEL_FORMAT
        # One thread: x264's rate control, and with it the bytes, depend on the number of threads.
        # cpu-independent: else x264's fast look-ahead rounds by where buffers happen to lie, and
        # about one file in twenty differs from its twin.
        stream.options = {
            "crf": str(CRF),
            "preset": "medium",
            "threads": "1",
            "x264-params": "cpu-independent=1",
        }
        size: tuple[int, ...] = ()

        def write(frames: np.ndarray) -> None:
            nonlocal size
            shape = frames.shape
            if frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not len(frames):
                raise UserError(
                    f"{path}: frames must be uint8 (T, H, W, 3), got {frames.dtype} {shape}"
                )
            if not size:
                size = stream.height, stream.width = shape[1:3]
            if shape[1:3] != size:
                raise UserError(f"{path}: frames of {shape[1:3]} after frames of {size}")
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))

        yield write
        if not size:
            raise UserError(f"{path}: no frames to write")
        container.mux(stream.encode())


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write uint8 RGB `frames` (T, H, W, 3) as H.264 to `path` (.mp4), atomic, same bytes always.

    Raises:
        UserError: frames of another type or shape.
    """
    with video_writer(path, fps) as write:
        write(frames)


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames uint8 (T H W 3) resized, keeping their ratio, to cover the size; the centre is kept.

    Areas are averaged on the way down (OpenCV's INTER_AREA), up is bicubic.
    """
    import cv2

    old_height, old_width = frames.shape[1:3]
    scale = max(height / old_height, width / old_width)
    if scale != 1:
        size = max(width, round(old_width * scale)), max(height, round(old_height * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frames = np.stack([cv2.resize(frame, size, interpolation=way) for frame in frames])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return np.ascontiguousarray(frames[:, top : top + height, left : left + width])


def to_uint8(video: "torch.Tensor") -> np.ndarray:
    """(3 T H W) in [-1, 1] to uint8 RGB (T H W 3)."""
    import torch

    scaled = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 3, 0).cpu().numpy())
