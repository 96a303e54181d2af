"""Video bytes to the frames that a player shows: one stream, in order, as the ffmpeg program does.

Used by video.py. The stream is the one that ffmpeg would choose; it is decoded from its first
packet, never entered in the middle. Edit lists drop the frames that they hide, display matrices
turn and mirror, times are those of presentation, and colours are converted by ffmpeg's own filters
(bicubic flags, matrix and range as tagged; where there is no tag bt601 and limited range). Ten bits
are rounded to eight, HDR (PQ, HLG) is not tone-mapped: its code values become RGB, which is what
`ffmpeg -pix_fmt rgb24` gives. Pixels are the stored ones: a sample aspect ratio is not applied.

A decoder conceals what it cannot read. What it says of it (its log, the marks on packets and
frames) is kept as `damage`; nothing of that can be had from decord, which this module replaced.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from dfdbench.utils.errors import UserError

READER = 2
"""Raised when a file would give other frames than before; part of the decoder's name in scores."""
FORMATS = (
    "mov,matroska,avi,gif,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,obu,av1,ivf,flv,asf,ogg,nut,mxf,"
    "apng,rm,dv,wtv,yuv4mpegpipe"
)  # no playlists, no pictures: a clip is what its bytes are, not what they point to
MOST_PIXELS = 2**26  # of a frame: 8192×8192
LARGE, THINNEST = 4096 * 2304, 2048
"""Pixels of a frame from which on a file must have a byte for so many: a damaged header costs
minutes and gigabytes otherwise."""
OPTIONS = {
    "format_whitelist": FORMATS,
    "protocol_whitelist": "file",
    "max_pixels": str(MOST_PIXELS),
}
MOSTLY = 0.9  # of a clip's frames that keep one distance if it is steady
COVER = 0x0400  # AV_DISPOSITION_ATTACHED_PIC
DEFAULT_STREAM = 5_000_000  # what ffmpeg adds to a stream's pixels if it is marked as default


UNREADABLE = (av.FFmpegError, ArithmeticError, LookupError, OSError, RuntimeError, ValueError)
"""What PyAV raises on bytes that are no video."""


class TooLarge(Exception):
    """The frames of a clip do not fit the machine's memory, however much of it is free."""


Choose = Callable[[np.ndarray, float], np.ndarray]
"""Times (T,) in seconds and frame rate to frame numbers, int (K,), never falling."""
Filter = tuple[str, str | None]


class Decoded(NamedTuple):
    """What a file shows.

    frames: uint8 (K, H, W, 3) RGB, those that were wanted. times: float64 (T,), seconds from the
    first frame, of all frames. fps: T - 1 frames over the time from the first to the last.
    damage: what the decoder complained of, None where of nothing.
    """

    frames: np.ndarray
    times: np.ndarray
    fps: float
    damage: str | None


def name() -> str:
    """Name and version of this decoder, as scores have it."""
    return f"pyav-{av.__version__}-r{READER}"


@cache
def _listen() -> None:
    """Let decoders' errors reach `Capture`, each time that they come, and no one else."""
    logging.getLogger("libav").addHandler(logging.NullHandler())
    logging.getLogger("libav").propagate = False
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)


def open_video(path: Path) -> Any:
    """The container at `path`, a local file whatever its name looks like."""
    _listen()
    return av.open(f"file:{path}", options=OPTIONS, metadata_errors="replace")


def choose_stream(container: Any) -> Any:
    """The video stream that ffmpeg takes: most pixels, a default one first, no cover picture.

    Raises:
        ValueError: there is none.
    """
    streams = [s for s in container.streams.video if not int(s.disposition) & COVER]
    if not streams:
        raise ValueError("no video stream")
    streams = [s for s in streams if s.codec_context is not None]
    if not streams:
        raise ValueError("no decoder for its video")

    def rank(stream: Any) -> int:
        is_default = int(stream.disposition) & 1
        return int(stream.width * stream.height + DEFAULT_STREAM * is_default)

    return max(streams, key=rank)


def read(path: Path, choose: Choose, stop_early: bool = False) -> tuple[Decoded, np.ndarray]:
    """The frames that `choose` takes from the video at `path`, and their numbers, int (K,).

    Packets say how many frames to expect and when, so that only wanted frames are kept; where the
    decoder shows others than expected the file is decoded once more, by what it showed.

    Args:
        choose: times (T,) and frame rate to frame numbers, never falling.
        stop_early: end with the last wanted frame; `choose` must then depend on no later times.

    Raises:
        ValueError, av.FFmpegError: not a readable video.
        TooLarge: its frames are larger than the machine's memory.
    """
    expected, fps = _expected(path)
    try:
        wanted = choose(expected, fps)
    except UserError:  # what the decoder shows decides whether that is so
        wanted = np.empty(0, int)
    decoded = _decode(path, wanted, (expected, fps) if stop_early else None)
    exact = choose(decoded.times, decoded.fps)
    if not np.array_equal(exact, wanted):
        decoded = _decode(path, exact, None)
    return decoded, exact


def rate(path: Path) -> float:
    """Frames a second as the packets tell them; nothing is decoded.

    Raises:
        ValueError, av.FFmpegError: not a readable video.
    """
    return _expected(path)[1]


def stream(path: Path, wanted: Sequence[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Number and picture, uint8 (H, W, 3) RGB, of the frames in order, one in memory at a time.

    Args:
        wanted: rising numbers of those to give; decoding ends with the last. None: all.

    Raises:
        ValueError, av.FFmpegError: not a readable video, or, after what was read, a damaged one.
    """
    keep = None if wanted is None else set(wanted)
    with av.logging.Capture() as log, open_video(path) as container:
        complaints, to_rgb = _Complaints(log), _ToRgb()
        for number, frame in enumerate(_shown(container, choose_stream(container), complaints)):
            if keep is None or number in keep:
                yield number, to_rgb(frame)
            if wanted is not None and number >= wanted[-1]:
                break
        if damage := complaints.summary():
            raise ValueError(f"damaged: {damage}")


def _expected(path: Path) -> tuple[np.ndarray, float]:
    """Times of the frames and their rate as the packets tell them; nothing is decoded."""
    with open_video(path) as container:
        stream = choose_stream(container)
        packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        area = stream.width * stream.height
        if area > LARGE and area * len(packets) > THINNEST * path.stat().st_size:
            size = f"{stream.width}x{stream.height}"
            raise ValueError(f"{len(packets)} frames of {size} pixels in so few bytes")
        ticks = [packet.dts if packet.pts is None else packet.pts for packet in packets]
        return _timing(ticks, stream, sum(packet.duration or 0 for packet in packets[-1:]))


def _timing(ticks: list[int | None], stream: Any, duration: int) -> tuple[np.ndarray, float]:
    """Seconds from the first frame, and frames a second, of time stamps in stream ticks.

    The rate is that of the steps between frames: of the usual step where nearly all are of it (a
    cut leaves gaps at its ends), else their mean. The header's is taken where the stamps agree with
    it within their rounding, or say nothing. duration: of the last frame in ticks, or 0.
    """
    header = stream.average_rate or stream.guessed_rate
    known = np.sort(np.array([tick for tick in ticks if tick is not None], np.int64))
    if len(known) == len(ticks) > 1 and known[-1] > known[0]:
        steps = np.diff(known)
        usual = np.abs(steps - np.median(steps)) <= 1
        if usual.mean() < MOSTLY:
            usual[:] = True
        count, span = int(usual.sum()), int(steps[usual].sum())
        rate = count / (span * stream.time_base)
        if header and abs(count / header / stream.time_base - span) <= 1 + (~usual).sum():
            rate = header
        return (known - known[0]) * float(stream.time_base), float(rate)
    rate = header or (1 / (duration * stream.time_base) if duration else None)
    if not rate:
        raise ValueError("no frame rate")
    return np.arange(len(ticks)) / float(rate), float(rate)


def _decode(path: Path, wanted: np.ndarray, expected: tuple[np.ndarray, float] | None) -> Decoded:
    """Decode in order and keep the frames with the numbers `wanted`.

    expected: times and rate; where they come true up to the last wanted frame, decoding ends there.
    """
    keep, last = set(wanted.tolist()), int(wanted[-1]) if len(wanted) else -1
    frames, ticks, duration = np.empty((0, 0, 0, 3), np.uint8), list[int | None](), 0
    with av.logging.Capture() as log, open_video(path) as container:
        stream, to_rgb, complaints = choose_stream(container), _ToRgb(), _Complaints(log)
        for frame in _shown(container, stream, complaints):
            number, duration = len(ticks), frame.duration
            ticks.append(frame.dts if frame.pts is None else frame.pts)
            if number in keep:
                picture = to_rgb(frame)
                if not len(frames):
                    frames = _room(len(wanted), *picture.shape)
                frames[wanted == number] = picture
            if number == last and expected is not None:
                times, _ = _timing(ticks, stream, duration)
                if np.allclose(times, expected[0][: number + 1], rtol=0, atol=1e-6):
                    return Decoded(frames, *expected, complaints.summary())
        if not ticks:
            raise ValueError(f"no frame of it can be decoded{complaints.first()}")
        times, fps = _timing(ticks, stream, duration)
        return Decoded(frames, times, fps, complaints.summary())


def _room(count: int, *shape: int) -> np.ndarray:
    """Memory for the frames.

    Raises:
        TooLarge: they are larger than the machine's.
    """
    size = count * math.prod(shape)
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        height, width, _ = shape
        raise TooLarge(f"{count} frames of {width}x{height} take {size / 1e9:.0f} GB of memory")
    return np.empty((count, *shape), np.uint8)


class _Complaints:
    """What a decoder says about damage: its log, and marks on packets and frames."""

    def __init__(self, log: list[tuple[int, str, str]]) -> None:
        self.log, self.marked = log, 0

    def summary(self) -> str | None:
        """How much and the first of it, on one line; None where there is nothing."""
        if self.log:
            return f"{len(self.log)} errors{self.first()}"
        return f"{self.marked} packets or frames are marked as corrupt" if self.marked else None

    def first(self) -> str:
        """The first message, to be added to a line; empty where there is none."""
        texts = (" ".join(text.split()) for _, _, text in self.log)
        return next((f", the first: {text[:80]}" for text in texts if text), "")


def _shown(container: Any, stream: Any, complaints: _Complaints) -> Iterator[Any]:
    """The frames in order of presentation; an error is noted, and decoding goes on after it."""
    stream.codec_context.options = {"max_pixels": OPTIONS["max_pixels"]}
    # One thread: clips are the parallel unit, and only its own thread's log can be captured.
    stream.thread_type, stream.thread_count = "NONE", 1
    packets = container.demux(stream)
    while True:
        said = len(complaints.log)
        try:
            packet = next(packets)
            complaints.marked += packet.is_corrupt
            frames = packet.decode()
        except StopIteration:
            return
        except av.FFmpegError as error:
            if len(complaints.log) == said:
                complaints.log.append((av.logging.ERROR, "", str(error)))
            continue
        if packet.is_discard:  # of a part that an edit list hides
            del complaints.log[said:]
        for frame in frames:
            complaints.marked += frame.is_corrupt
            yield frame


class _ToRgb:
    """Turns frames as their display matrix says and makes them RGB, by ffmpeg's filters.

    Frames of another size, as some streams have after a change, get the size of the first.
    """

    def __init__(self) -> None:
        self._like: tuple[Any, ...] = ()
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> np.ndarray:
        """The decoded frame as uint8 (H, W, 3)."""
        matrix = _display_matrix(frame)
        like = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if (*like, matrix) != self._like:
            self._like = (*like, matrix)
            self._build(*like, _turns(matrix))
        self._source.push(frame)
        picture: Any = self._sink.pull()
        self._size = self._size or (picture.width, picture.height)
        array: np.ndarray = picture.to_ndarray()
        return array

    def _build(
        self, width: int, height: int, pixels: str, space: int, levels: int, turns: list[Filter]
    ) -> None:
        graph = av.filter.Graph()
        shape = f"video_size={width}x{height}:pix_fmt={pixels}:time_base=1/1000:pixel_aspect=1/1"
        size = ":".join(map(str, self._size)) + ":" if self._size else ""
        chain = [
            ("buffer", f"{shape}:colorspace={space}:range={levels}"),
            *turns,
            ("scale", f"{size}flags=bicubic:threads=1"),
            ("format", "rgb24"),
            ("buffersink", None),
        ]
        nodes = [graph.add(*step) for step in chain]
        graph.link_nodes(*nodes).configure()
        self._graph, self._source, self._sink = graph, nodes[0], nodes[-1]


def _display_matrix(frame: Any) -> tuple[int, ...]:
    """The nine numbers of the frame's display matrix; none where it has none."""
    for item in frame.side_data:
        if item.type.name == "DISPLAYMATRIX":
            return tuple(np.frombuffer(bytes(item), np.int32)[:9].tolist())
    return ()


def _turns(matrix: tuple[int, ...]) -> list[Filter]:
    """The filters with which ffmpeg rotates and mirrors by a display matrix."""
    if not matrix or not np.hypot(matrix[0], matrix[3]) or not np.hypot(matrix[1], matrix[4]):
        return []
    across, along = np.hypot(matrix[0], matrix[3]), np.hypot(matrix[1], matrix[4])
    angle = round(math.degrees(math.atan2(matrix[1] / along, matrix[0] / across))) % 360
    match angle:
        case 0:
            return [("vflip", None)] if matrix[4] < 0 else []
        case 90:
            return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
        case 180:
            flips: list[Filter] = [("hflip", None)] if matrix[0] < 0 else []
            return [*flips, ("vflip", None)] if matrix[4] < 0 else flips
        case 270:
            return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    return [("rotate", f"{angle}*PI/180")]
