"""Read and write clips: one reader (decord, PyAV as the fallback), frame policies, H.264 writer.

Used by generation (writes), scoring and report (read). Frames are always uint8 RGB, T H W 3.

Why yuv444p at CRF 8 (24 toy clips of 64×64×17 written and read back; decord and PyAV returned the
same pixels in every case):

    format   CRF  PSNR mean / min dB  mean saturation, shift / largest  kB a clip
    yuv420p    0        38.2 / 36.4              +.0049 / .0107              6.2
    yuv420p    8        38.1 / 36.4              +.0049 / .0107              5.7
    yuv444p    0        52.1 / 51.2              -.0004 / .0067              7.4
    yuv444p    8        49.5 / 47.9              -.0003 / .0066              5.4
    yuv444p   16        45.8 / 43.8              +.0002 / .0054              3.7

Halved chroma (yuv420p) smears the colours of small sprites and shifts the saturation that is to be
measured, at any CRF. No oracle reading changed with either.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np

from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import atomic_path

if TYPE_CHECKING:
    import torch

PIXEL_FORMAT = "yuv444p"
CRF = 8
Choose = Callable[[int], np.ndarray]  # frame numbers of a video of so many frames
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, on gamma-coded R, G, B


class Clip(NamedTuple):
    """Decoded frames of one video.

    frames: uint8 (T, H, W, 3) RGB. fps: frames per second of the file, not of the selection.
    decoder: name and version, e.g. "decord-0.6.0". indices: int (T,), the frame numbers taken.
    path: the file, None for frames that come from none. prompt: its text, image: the picture that
    it should continue, uint8 (H, W, 3) RGB; only for families that need them.
    """

    frames: np.ndarray
    fps: float
    decoder: str
    indices: np.ndarray
    path: Path | None = None
    prompt: str | None = None
    image: np.ndarray | None = None


def _all_frames(total: int) -> np.ndarray:
    return np.arange(total)


def _even16(total: int) -> np.ndarray:
    # Both end frames included; a clip of 16 frames or fewer is taken whole, nothing twice.
    return np.unique(np.rint(np.linspace(0, total - 1, min(16, total))).astype(int))


def _middle(count: int) -> Choose:
    def indices(total: int) -> np.ndarray:
        # VBench: the middle of each of `count` parts; a shorter clip's last frame fills the rest
        edges = np.linspace(0, total, min(count, total) + 1).astype(int)
        middles = (edges[:-1] + edges[1:] - 1) // 2
        return np.pad(middles, (0, count - len(middles)), mode="edge")

    return indices


POLICIES: dict[str, Choose] = {
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


@cache
def _decord() -> Any:
    """The decord module, quiet; None where no wheel exists (ARM, macOS)."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def decoders() -> list[str]:
    """Name and version of the decoders on this machine, the preferred first."""
    first = [f"decord-{_decord().__version__}"] if _decord() else []
    return [*first, f"pyav-{av.__version__}"]


def _decode_decord(path: Path, choose: Choose, threads: int = 0) -> tuple[np.ndarray, np.ndarray]:
    threads = threads or int((os.environ.get("OMP_NUM_THREADS") or "0").split(",")[0])
    reader = _decord().VideoReader(str(path), num_threads=threads)
    indices = choose(len(reader))
    return reader.get_batch(indices).asnumpy(), indices


def _decode_pyav(path: Path, choose: Choose) -> tuple[np.ndarray, np.ndarray]:
    with av.open(str(path)) as container:
        declared = container.streams.video[0].frames
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(frames) < declared:
        raise ValueError(f"{len(frames)} of {declared} frames can be decoded")
    indices = choose(len(frames))
    return np.stack([frames[i] for i in indices]), indices


def _probe(path: Path) -> float:
    """Frame rate of the first video stream; raises where the container is unreadable.

    Asked before decord, which writes to stderr from C++ when it cannot open a file.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        rate = container.streams.video[0].average_rate
    if not rate:
        raise ValueError("no frame rate")
    return float(rate)


def frame_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height in pixels that the file declares; None where it cannot be read."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return (stream.width, stream.height) if stream.width and stream.height else None
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return None


def read_video(
    path: str | Path,
    policy: str | Callable[[int, float], np.ndarray] = "all",
    threads: int = 0,
) -> Clip:
    """Decode the frames that `policy` takes from the video at `path`.

    policy: a key of POLICIES, or a function of the number of frames and the frame rate.

    decord first; PyAV where decord is missing or fails. Both give the same pixels (a test compares
    them on a released clip). threads: of decord, 0 for `OMP_NUM_THREADS` or one a core.

    Raises:
        UserError: the file is missing, unreadable, no video, or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such video file; check the path")
    try:
        fps = _probe(path)
        choose = (
            partial(frame_indices, policy=policy)
            if isinstance(policy, str)
            else lambda total: policy(total, fps)
        )
        if _decord():
            try:
                frames, indices = _decode_decord(path, choose, threads)
                return Clip(frames, fps, decoders()[0], indices, path)
            except (_decord().DECORDError, RuntimeError, IndexError):
                pass  # PyAV decides whether the file or decord is at fault
        frames, indices = _decode_pyav(path, choose)
    except UserError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = "empty file" if path.stat().st_size == 0 else _one_line(error)
        raise UserError(
            f"{path}: not a readable video ({reason}); write or download it again"
        ) from error
    return Clip(frames, fps, decoders()[-1], indices, path)


def read_image(path: str | Path | None) -> np.ndarray | None:
    """The picture at `path` as uint8 (H, W, 3) RGB; None for None.

    Raises:
        UserError: it is missing or no picture.
    """
    if path is None:
        return None
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable picture; write or download it again") from error


def _one_line(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120]


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write uint8 RGB `frames` (T, H, W, 3) as H.264 to `path` (.mp4), atomic, same bytes always.

    Raises:
        UserError: frames of another type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise UserError(
            f"{path}: frames must be uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}"
        )
    options = {"fflags": "+bitexact"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", "mp4", options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
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
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


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
