"""Which clips `data encode` is given, and how one becomes frames of the model's size and rate.

Inputs are folders (videos with a caption in a .txt of the same name, at any depth), manifests (CSV
or JSONL with path and prompt; see utils/manifest.py) and WebDataset tars (KEY.mp4 beside KEY.txt or
KEY.json with "caption"). Used by encode.py.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfdbench.distill.data.format import Member, members, read_member
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.files import sha256_file
from dfdbench.utils.manifest import LISTINGS, VIDEO_SUFFIXES, collect, is_clip_name
from dfdbench.utils.reading import BOM, Open, Text, parse_json, read_text, validate
from dfdbench.utils.reading import decode as decode_text
from dfdbench.utils.video import fit, read_video

SLOWEST = 0.99  # of the wanted rate; below it frames would be shown twice
STEADY = 0.2  # of a frame that a time may be off in a clip of one rate
CAPTION_REMEDY = 'write {"caption": "..."} beside the clip'


LEVELS = ("long", "medium", "short")  # of captions, as `data curate caption` writes them


class CaptionFile(Open):
    """KEY.json beside the clip of a WebDataset; others may have more in it."""

    caption: Text


class CaptionLevels(Open):
    """Captions at three lengths, in KEY.json as `data curate pack` writes it."""

    long: Text
    medium: Text
    short: Text


class LevelsFile(Open):
    """KEY.json beside a clip whose captions of all levels are wanted."""

    captions: CaptionLevels


@dataclass(frozen=True)
class Target:
    """The clips that a model is trained on: frames a clip, pixels, frames a second."""

    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Source:
    """A clip of an input.

    Attributes:
        name: its input's name and its place in it; without the folders above.
        file: the video, or the tar that `video` lies in.
        caption: file or member of the prompt, JSON or plain; `prompt` where a manifest gives it.
        levels: file or member of JSON that may have captions at several lengths.
        fault: why it cannot be used, where its manifest or folder says so.
    """

    name: str
    file: Path
    video: Member | None = None
    caption: Path | Member | None = None
    caption_is_json: bool = False
    levels: Path | Member | None = None
    prompt: str | None = None
    fault: str = ""

    def read_prompt(self) -> str:
        """The prompt, without spaces around it.

        Raises:
            UserError: there is none, or one that is no text.
        """
        if self.fault:
            raise UserError(f"{self.name}: {self.fault}")
        text = self.prompt or "" if self.caption is None else self._read(self.caption)
        if self.caption_is_json:
            given = parse_json(text, self.name, CAPTION_REMEDY)
            text = validate(CaptionFile, given, self.name, CAPTION_REMEDY).caption
        text = text.removeprefix(BOM).strip()
        if not text:
            raise UserError(f"{self.name}: no caption; put one beside it")
        return validate(Text, text, f"{self.name}: its caption", "write it anew")

    def read_levels(self) -> dict[str, str]:
        """Captions by level, of all LEVELS.

        Raises:
            UserError: it has none, or not of every level.
        """
        remedy = "write captions with dfdbench data curate, or leave out --caption-levels"
        if self.levels is None:
            raise UserError(f"{self.name}: no captions by level beside it; {remedy}")
        given = parse_json(self._read(self.levels), self.name, remedy)
        return validate(LevelsFile, given, self.name, remedy).captions.model_dump(include={*LEVELS})

    def _read(self, place: Path | Member) -> str:
        try:
            if isinstance(place, Member):
                return decode_text(read_member(self.file, place), f"{self.name}, its caption")
            return re.sub(r"\r\n?", "\n", read_text(place, "its caption"))
        except (OSError, UserError) as error:
            raise UserError(f"{self.name}: its caption cannot be read ({error})") from None

    @contextmanager
    def video_file(self) -> Iterator[Path]:
        """The video as a file of its own, for as long as the context lasts."""
        if self.video is None:
            yield self.file
            return
        with tempfile.NamedTemporaryFile(suffix=Path(self.name).suffix) as copy:
            copy.write(read_member(self.file, self.video))
            copy.flush()
            yield Path(copy.name)


class Decoded(NamedTuple):
    """Frames of one source, uint8 (T H W 3) of the target's size, its prompt, and facts of it."""

    frames: np.ndarray
    prompt: str
    facts: dict[str, Any]


def find_sources(path: Path) -> list[Source]:
    """The clips of one input, in an order that depends on names alone (a manifest's: its own).

    Raises:
        UserError: there are none.
    """
    listing = next((path / n for n in LISTINGS if (path / n).is_file()), path)
    if path.suffix == ".tar" and path.is_file():
        sources = _in_tar(path)
    elif listing.is_file():
        origin, given = path.resolve().name, collect(listing, "", "data")
        sources = [
            Source(f"{origin}/{sample.path.name}", sample.path, prompt=sample.prompt)
            for sample in given.samples
        ]
        sources += [Source(f"{origin}/{p.name}", p, fault=why) for p, why in given.refused]
    elif path.is_dir():
        sources = _in_folder(path)
    else:
        raise UserError(f"{path}: no such folder, manifest or tar; check the path")
    if not sources:
        raise UserError(f"{path}: no clips; expected {', '.join(VIDEO_SUFFIXES)}, each with a .txt")
    return [replace(source, name=clean(source.name)) for source in sources]  # they are written down


def _in_folder(path: Path) -> list[Source]:
    files = [f for f in sorted(path.rglob("*")) if is_clip_name(f)]
    origin = path.resolve().name
    return [
        Source(
            f"{origin}/{f.relative_to(path).as_posix()}",
            f,
            caption=f.with_suffix(".txt"),
            levels=f.with_suffix(".json") if f.with_suffix(".json").is_file() else None,
        )
        for f in files
    ]


def _in_tar(path: Path) -> list[Source]:
    sources = []
    for key, files in sorted(members(path).items()):
        video = next((e for e in files if f".{e}" in VIDEO_SUFFIXES), None)
        if video is not None:
            caption = files.get("txt") or files.get("json")
            name, is_json = f"{path.name}/{key}.{video}", "txt" not in files and "json" in files
            levels = files.get("json")
            sources.append(Source(name, path, files[video], caption, is_json, levels))
    return sources


def decode(source: Source, target: Target, levels: bool = False) -> Decoded:
    """The first frames of a clip at the target's rate and size.

    levels: its captions of all LEVELS go into its facts.

    Raises:
        UserError: no caption, no readable video, or one that is too short or too slow.
    """

    def choose(times: np.ndarray, fps: float) -> np.ndarray:
        return resample(times, fps, target)

    prompt = source.read_prompt()
    captions = {"captions": source.read_levels()} if levels else {}
    with source.video_file() as path:
        try:
            clip = read_video(path, choose)
        except UserError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise UserError(f"{source.name}: {reason}") from None
        digest = sha256_file(path)
    height, width = clip.frames.shape[1:3]
    facts = {
        "prompt": prompt,
        **captions,
        "source": source.name,
        "source_sha256": digest,
        "source_height": height,
        "source_width": width,
        "source_fps": round(clip.fps, 4),
        "decoder": clip.decoder,
    }
    return Decoded(fit(clip.frames, target.height, target.width), prompt, facts)


def resample(times: np.ndarray, fps: float, target: Target) -> np.ndarray:
    """Frame numbers, int (frames,): the one on screen at k / target.fps, k from 0.

    A quarter of a frame is allowed for, so that rates that are all but equal or a whole multiple
    never repeat or skip one.

    Args:
        times: of the clip's frames, seconds from the first, (T,). fps: their mean rate.

    Raises:
        UserError: the clip ends before, or has fewer frames a second than are wanted.
    """
    if fps < SLOWEST * target.fps:
        raise UserError(
            f"{fps:g} frames a second, {target.fps:g} are wanted; a lower --fps would take it"
        )
    # Steps of at least one frame: a source a little too slow shows each of its frames once.
    places = np.arange(target.frames) * max(fps / target.fps, 1.0) + 0.25  # in frames
    chosen, total = np.floor(places).astype(int), len(times)
    if np.abs(times * fps - np.arange(total)).max(initial=0) > STEADY:
        ends = np.append(times, times[-1] + 1 / fps)
        chosen = np.searchsorted(ends, places / fps, side="right") - 1
    if chosen[-1] >= total:
        raise UserError(
            f"too short: {total} frames at {fps:g} a second, {target.frames} at {target.fps:g} "
            "are wanted"
        )
    return chosen
