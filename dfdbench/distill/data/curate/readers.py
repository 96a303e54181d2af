"""What `shots` is given: videos and captions as people and other tools leave them.

An input is

    a video, or a folder of videos      caption in a .txt of the same name
    a table: .csv, .jsonl, .parquet,    a column of paths, relative to it or absolute, and one of
      .json (an array of objects)       captions
    data-juicer's exports (the same)    `videos` and `text`, in chunks with <__dj__video> in them
    NeMo-Curator's output folder        clips/UUID.mp4 and metas/v0/UUID.json (ClipWriterStage)
    a WebDataset .tar                   KEY.mp4 beside KEY.txt or KEY.json; unpacked for use

What cannot be used of an input is kept with the reason, by its line.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfdbench.distill.data.sources import find_sources
from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.files import atomic_path
from dfdbench.utils.manifest import VIDEO_SUFFIXES, is_clip_name
from dfdbench.utils.reading import (
    Open,
    Text,
    clean_text,
    read_csv,
    read_json,
    read_jsonl,
    read_text,
    validate,
)

PATHS = ("path", "video", "video_path", "file_name", "filename", "file", "clip")
CAPTIONS = ("caption", "prompt", "text")
REMEDY = f"correct that line (a path: {', '.join(PATHS)}; a caption: {', '.join(CAPTIONS)})"
VIDEO_TOKEN, END_OF_CHUNK = "<__dj__video>", "<|__dj__eoc|>"
TOKENS = re.compile(r"<__dj__\w+>|<\|__dj__\w+\|>")
TABLES = (".csv", ".jsonl", ".json", ".parquet")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".zip")


class Video(NamedTuple):
    """A video of an input, its caption if it has one, and why it cannot be used if so."""

    path: Path
    caption: str | None = None
    fault: str = ""


Found = Iterator[tuple[str, Video]]


class Juiced(Open):
    """A row of data-juicer's."""

    videos: list[Text]
    text: Text = ""


class Clip(Open):
    """metas/v0/UUID.json of NeMo-Curator; the windows of a clip have a caption a model."""

    span_uuid: Text
    clip_location: Text = ""
    windows: list[dict[str, Any]] = []  # noqa: RUF012


def find_videos(inputs: Sequence[Path], out: Path) -> dict[str, Video]:
    """Name -> video; a name is its input's and its place in it, and depends on no folder above.

    Args:
        out: folder of the curation, in which videos of tars are unpacked.

    Raises:
        UserError: an input has none, cannot be read, or two videos have one name.
    """
    videos: dict[str, Video] = {}
    for path in inputs:
        found = dict(_of_input(path, out))
        if not found:
            if path.is_file() and path.suffix.lower() in COMPRESSED:
                raise UserError(f"{path}: is compressed; unpack it first")
            expected = f"{', '.join(VIDEO_SUFFIXES)}, {', '.join(TABLES)} or .tar"
            raise UserError(f"{path}: no videos; expected {expected}")
        for given, video in found.items():
            name = clean(given)
            if not is_utf8(given, os.path.relpath(video.path, out)):
                fault = UserError(f"{video.path}: its name is not in UTF-8; rename it")
                video = video._replace(fault=video.fault or str(fault))
            if videos.setdefault(name, video).path != video.path:
                both = f"{video.path} and {videos[name].path}"
                raise UserError(f"{both} are both {name}; rename one folder")
    return videos


def is_utf8(*names: str) -> bool:
    """Whether names can be written as UTF-8, which the rows of the stages are."""
    try:
        return all(name.encode() is not None for name in names)
    except UnicodeEncodeError:
        return False


def is_there(path: Path) -> bool:
    """Whether a path that a table gives is a file; also False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _of_input(path: Path, out: Path) -> Found:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _nemo(path) if (path / "metas" / "v0").is_dir() else _folder(path)
    if path.is_file() and suffix in TABLES:
        return _table(path)
    if path.is_file() and suffix == ".tar":
        return _tar(path, out)
    return iter([(path.name, _beside(path))] if path.is_file() and is_clip_name(path) else [])


def _beside(path: Path) -> Video:
    """A video with the text of its name beside it."""
    text = path.with_suffix(".txt")
    try:
        return Video(path, _text(read_text(text, "a caption")) if text.is_file() else None)
    except UserError as error:
        return Video(path, fault=str(error))
    except ValueError as error:
        return Video(path, fault=f"{text}: {error}")


def _text(caption: str) -> str | None:
    return clean_text(" ".join(caption.split())) or None


def _folder(path: Path) -> Found:
    origin = path.resolve().name
    for file in sorted(path.rglob("*")):
        if is_clip_name(file):
            yield f"{origin}/{file.relative_to(path).as_posix()}", _beside(file)


def _table(path: Path) -> Found:
    faults: dict[str, Video] = {}

    def refuse(line: int, error: UserError) -> None:
        faults[f"{path.name}:{line}"] = Video(path, fault=str(error))

    for line, row in _rows(path, refuse):
        try:
            given = _juiced(path, line, row) if "videos" in row else [_plain(path, line, row)]
        except UserError as error:
            refuse(line, error)
            continue
        for video in given:
            place = Path(os.path.relpath(video.path, path.parent)).as_posix()
            yield f"{path.name}:{place}", video
    yield from faults.items()


def _rows(path: Path, refuse: Callable[[int, UserError], None]) -> Iterator[tuple[int, Any]]:
    kind = dict[str, Any]
    match path.suffix.lower():
        case ".csv":
            return read_csv(path, kind, REMEDY, refuse)
        case ".jsonl":
            return read_jsonl(path, kind, REMEDY, refuse=refuse)
        case ".json":
            return iter(enumerate(read_json(path, list[kind], REMEDY), start=1))
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise UserError(f"{path}: pyarrow is not here; pip install 'dfdbench[curate]'") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file ({error}); write it again") from None
    rows = table.to_dict("records")
    for row in rows:
        if isinstance(row.get("videos"), np.ndarray):
            row["videos"] = row["videos"].tolist()
    return iter(enumerate(rows, start=1))


def _plain(path: Path, line: int, row: dict[str, Any]) -> Video:
    where = f"{path}:{line}"
    names = {str(key).lower(): key for key in row}
    place = next((names[name] for name in PATHS if name in names), None)
    if place is None:
        raise UserError(f"{where}: no path; {REMEDY}")
    told = next((row[names[name]] for name in CAPTIONS if name in names), None)
    video = validate(Text, row[place], f"{where}: {place}", REMEDY)
    told = None if told is None or told != told else told  # a gap in Parquet is NaN
    caption = None if told is None else validate(Text, told, f"{where}: caption", REMEDY)
    return Video(path.parent / video, _text(caption or ""))


def _juiced(path: Path, line: int, row: Any) -> list[Video]:
    """The videos of a sample: each chunk's text belongs to as many as it has tokens."""
    where = f"{path}:{line}"
    sample = validate(Juiced, row, where, "correct that line")
    if not sample.videos:
        raise UserError(f"{where}: videos: names none; leave that line out")
    if VIDEO_TOKEN not in sample.text:
        caption = _text(TOKENS.sub(" ", sample.text))
        return [Video(path.parent / video, caption) for video in sample.videos]
    captions: list[str | None] = []
    for chunk in sample.text.split(END_OF_CHUNK):
        caption = _text(TOKENS.sub(" ", chunk))
        captions += [caption] * chunk.count(VIDEO_TOKEN)
    if len(captions) != len(sample.videos):
        raise UserError(
            f"{where}: text names {len(captions)} videos, there are {len(sample.videos)}; correct "
            "that line"
        )
    pairs = zip(sample.videos, captions, strict=True)
    return [Video(path.parent / video, caption) for video, caption in pairs]


def _nemo(path: Path) -> Found:
    """Clips that NeMo-Curator kept; those that it filtered lie in another folder of its."""
    origin = path.resolve().name
    for meta in sorted((path / "metas" / "v0").rglob("*.json")):
        name = f"{origin}/clips/{meta.stem}.mp4"
        try:
            clip = read_json(meta, Clip, "write it again")
        except UserError as error:
            yield name, Video(meta, fault=str(error))
            continue
        # flat as its code has it, or in folders as its documentation shows
        below = clip.clip_location.rpartition("clips/")[2] or f"{meta.stem}.mp4"
        places = [path / "clips" / f"{meta.stem}.mp4", path / "clips" / below]
        file = next((place for place in places if is_there(place)), None)
        if file:
            yield name, Video(file, _window_caption(clip))
        elif "filtered_clips/" not in clip.clip_location:
            yield name, Video(places[0], fault=f"{meta}: {places[0]} is not there; copy it too")


def _window_caption(clip: Clip) -> str | None:
    """The first caption of a clip, an enhanced one before the model's own."""
    for ending in ("_enhanced_caption", "_caption"):
        for window in clip.windows:
            for key, value in sorted(window.items()):
                if key.endswith(ending) and isinstance(value, str) and value.strip():
                    return _text(value)
    return None


def _tar(path: Path, out: Path) -> Found:
    for source in find_sources(path):
        key = hashlib.sha256(source.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        file = out / "videos" / path.stem / f"{key}{Path(source.name).suffix}"
        size = source.video.size if source.video else 0
        if not (file.is_file() and file.stat().st_size == size):
            with atomic_path(file) as temporary, source.video_file() as video:
                temporary.write_bytes(video.read_bytes())
        try:
            caption = _text(source.read_prompt()) if source.caption else None
            yield source.name, Video(file, caption)
        except UserError as error:
            yield source.name, Video(file, fault=str(error))
