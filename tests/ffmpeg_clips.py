"""Clips made by the ffmpeg program, and what it shows of them: the truth that readers are held to.

`-fps_mode passthrough` keeps each frame that is shown once, whatever the times.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import imageio_ffmpeg
import numpy as np

TWO_SECONDS = "-f lavfi -i testsrc2=s=80x64:r=16:d=2"
SOUND = "-f lavfi -i sine=d=8"
X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
MPEG4 = "-c:v mpeg4 -q:v 3 -bf 2 -g 12"

CODECS: Mapping[str, str] = {
    "h264.mp4": X264,
    "h264-444.mp4": "-c:v libx264 -preset veryfast -pix_fmt yuv444p",
    "h264-10bit.mkv": "-c:v libx264 -preset veryfast -pix_fmt yuv420p10le",
    "intra-refresh.mp4": f"{X264} -x264-params intra-refresh=1:keyint=12",
    "open-gop.mp4": f"{X264} -x264-params open-gop=1:keyint=8:bframes=3",
    "open-gop.ts": f"{X264} -x264-params open-gop=1:keyint=8:bframes=3",
    "hevc.mp4": "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p",
    "hevc-open-gop.mkv": "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=8",
    "hevc-10bit.mp4": "-c:v libx265 -preset ultrafast -x265-params log-level=none "
    "-pix_fmt yuv420p10le",
    "av1.mp4": "-c:v libaom-av1 -cpu-used 8 -usage realtime",
    "av1-10bit.webm": "-c:v libaom-av1 -cpu-used 8 -usage realtime -pix_fmt yuv420p10le",
    "vp8.webm": "-c:v libvpx -deadline realtime -auto-alt-ref 1",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 1",
    "mpeg4.mp4": MPEG4,
    "mpeg4.avi": MPEG4,
    "mpeg2.ts": "-c:v mpeg2video -q:v 3 -bf 2 -g 12",
    "mpeg2-interlaced.mkv": "-c:v mpeg2video -q:v 3 -bf 2 -flags +ildct+ilme",
    "prores.mov": "-c:v prores_ks -profile:v 3",
    "gif.gif": "",
    "mjpeg.mov": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "ffv1-rgb.mkv": "-c:v ffv1 -pix_fmt gbrp",
    "odd-420.mkv": "-vf scale=77:61 -c:v ffv1 -pix_fmt yuv420p",
    "odd-420.webm": "-vf scale=77:61 -c:v libvpx-vp9 -deadline realtime -cpu-used 8",
    "odd-420.avi": f"-vf scale=77:61 {MPEG4}",
    "odd-10bit.mkv": "-vf scale=77:61 -c:v ffv1 -pix_fmt yuv420p10le",
    "odd-422.mkv": "-vf scale=77:61 -c:v ffv1 -pix_fmt yuv422p",
    "odd-444.mp4": "-vf scale=77:61 -c:v libx264 -pix_fmt yuv444p",
    "grey.mkv": "-c:v ffv1 -pix_fmt gray",
    "422.mov": "-c:v libx264 -preset veryfast -pix_fmt yuv422p",
    "wide-pixels.mp4": f"-vf setsar=2 {X264}",
    "variable-rate.mp4": f"-vf select=not(mod(n\\,3))+not(mod(n\\,5)) -fps_mode vfr {X264}",
    "variable-rate.mkv": f"-vf select=not(mod(n\\,3))+not(mod(n\\,5)) -fps_mode vfr {X264}",
    "late.mkv": f"-output_ts_offset 1.25 {X264}",
    "early.mkv": f"-output_ts_offset -0.5 -avoid_negative_ts disabled {X264}",
    "one-frame.mp4": f"-frames:v 1 {X264}",
}
"""File name -> ffmpeg's options that make it."""

COLOURS: Mapping[str, tuple[str, str, str]] = {
    f"{space}-{levels}-{pixels}": (space, levels, pixels)
    for space in ("bt709", "smpte170m", "bt2020nc")
    for levels in ("tv", "pc")
    for pixels in ("yuv420p", "yuv444p", "yuv420p10le")
}
"""Name -> matrix, range and pixel format."""

ROTATIONS = (
    "-display_rotation 90", "-display_rotation 180", "-display_rotation 270",
    "-display_hflip", "-display_vflip", "-display_rotation 90 -display_hflip",
    "-display_rotation 270 -display_vflip", "-display_rotation 30",
)  # fmt: skip


def ffmpeg(command: str, *, cwd: Path) -> None:
    """Run the program; file names in `command` are relative to `cwd` and hold no spaces."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    line = [program, "-y", "-v", "error", *command.split()]
    subprocess.run(line, cwd=cwd, check=True, stdin=subprocess.DEVNULL)


def make(name: str, options: str, folder: Path, source: str = TWO_SECONDS) -> Path:
    """A clip called `name` of two seconds at 16 frames a second."""
    ffmpeg(f"{source} {options} {name}", cwd=folder)
    return folder / name


def shown(path: Path) -> np.ndarray:
    """What the program shows: uint8 (T, H, W, 3) RGB."""
    return frames_and_errors(path)[0]


def frames_and_errors(path: Path) -> tuple[np.ndarray, str]:
    """What the program shows, and what it complains of."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    line = f"-v error -i {path.name} -fps_mode passthrough -pix_fmt rgb24 -c:v ppm -f image2pipe -"
    run = subprocess.run(
        [program, *line.split()], cwd=path.parent, capture_output=True, stdin=subprocess.DEVNULL
    )
    frames, data = [], run.stdout
    while data:
        _, size, _, rest = data.split(b"\n", 3)
        width, height = map(int, size.split())
        frames.append(np.frombuffer(rest[: width * height * 3], np.uint8))
        frames[-1] = frames[-1].reshape(height, width, 3)
        data = rest[width * height * 3 :]
    return np.array(frames), run.stderr.decode(errors="replace")
