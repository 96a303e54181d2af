"""Which clips an input names: a run folder, a manifest (JSONL or CSV), or a folder of videos.

Used by scoring. Manifest columns: path (relative to the manifest; required), prompt_id, prompt,
seed, method, image (the picture that the clip continues, relative too); others are ignored. A
folder's files are named as VBench does, `{prompt}-{i}.mp4`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, model_validator

from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Open, read_csv, read_jsonl

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
LISTINGS = ("samples.jsonl", "manifest.jsonl", "manifest.csv")


class Row(Open):
    """One line of a manifest; an empty cell is as good as none."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    path: str
    prompt_id: str | None = None
    prompt: str | None = None
    seed: int | None = None
    method: str | None = None
    image: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty_cells(cls, row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        return {column: cell for column, cell in row.items() if cell not in (None, "")}


class Sample(NamedTuple):
    """One clip of an input; `seed` is None where it is not known, `image` where it has none."""

    path: Path
    prompt_id: str
    prompt: str | None
    seed: int | None
    method: str
    image: Path | None = None


class Collection(NamedTuple):
    """The clips of one input. store: where their scores go by default. is_run: a run folder."""

    samples: list[Sample]
    store: Path
    is_run: bool


def names_of(
    inputs: Sequence[str | Path], method_name: str | Sequence[str] | None
) -> list[str | None]:
    """The method name given for each input: none, one for all, or one for each.

    Raises:
        UserError: another number of names than of inputs.
    """
    if method_name is None or isinstance(method_name, str):
        return [method_name] * len(inputs)
    names: list[str | None] = list(method_name)
    if len(names) <= 1:
        return (names or [None]) * len(inputs)
    if len(names) != len(inputs):
        raise UserError(
            f"--arm: {len(names)} names for {len(inputs)} inputs; give one, or one for each"
        )
    return list(names)


def collect(source: str | Path, suite: str, method_name: str | None = None) -> Collection:
    """The clips that `source` names for `suite`.

    Args:
        source: run folder, manifest file, or folder of videos (with or without a manifest in it).
        suite: picks RUN/videos/<suite>/ of a run.
        method_name: the method of clips for which no manifest names one.

    Raises:
        UserError: nothing there, a manifest line that cannot be used, or a clip named twice.
    """
    source = Path(source)
    if (source / "run.json").is_file():
        listing = source / "videos" / suite / "samples.jsonl"
        if not listing.is_file():
            raise UserError(f"{source}: no videos of suite {suite}; run dfdbench generate first")
        return Collection(unique(listing, _manifest(listing, None)), source / "scores.sqlite", True)
    if source.is_dir():
        listing = next((source / n for n in LISTINGS if (source / n).is_file()), source)
    elif source.is_file():
        listing = source
    else:
        raise UserError(f"{source}: no such run, manifest or folder; check the path")
    read = _folder if listing.is_dir() else _manifest
    samples = read(listing, method_name)
    if not samples:
        raise UserError(
            f"{listing}: names no videos; expected {', '.join(VIDEO_SUFFIXES)} or a manifest"
        )
    name = (source if source.is_dir() else source.parent).resolve().name
    if listing == source and source.is_file() and source.name not in LISTINGS:
        name = source.stem
    return Collection(unique(listing, samples), Path(f"scores-{name}") / "scores.sqlite", False)


def _folder(folder: Path, method_name: str | None) -> list[Sample]:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in VIDEO_SUFFIXES)
    method = method_name or folder.resolve().name
    samples = []
    for file in files:
        match = re.fullmatch(r"(.+)-(\d+)", file.stem)
        prompt, seed = (match[1], int(match[2])) if match else (file.stem, None)
        samples.append(Sample(file, prompt, prompt, seed, method))
    return samples


def _manifest(path: Path, method_name: str | None) -> list[Sample]:
    remedy = f"correct that line of the manifest (columns: {', '.join(Row.model_fields)})"
    if path.suffix.lower() == ".csv":
        rows = read_csv(path, Row, remedy)
    else:
        rows = read_jsonl(path, Row, remedy, "a manifest, JSONL or CSV")
    return [_sample(path, line, row, method_name) for line, row in rows]


def _sample(manifest: Path, line: int, row: Row, method_name: str | None) -> Sample:
    method = row.method or method_name
    if not method:
        raise UserError(f"{manifest}:{line}: no 'method'; add the column or pass --arm")
    path = manifest.parent / row.path
    prompt_id = row.prompt_id or row.prompt or path.stem
    image = manifest.parent / row.image if row.image else None
    return Sample(path, prompt_id, row.prompt, row.seed, method, image)


def unique(source: object, samples: list[Sample]) -> list[Sample]:
    """`samples`, if no clip is named twice and no two have one method, prompt and seed.

    Raises:
        UserError: there are such clips; the message begins with `source`.
    """
    seen: set[object] = set()
    for s in samples:
        item = s.path if s.seed is None else (s.method, s.prompt_id, s.seed)
        if item in seen or s.path in seen:
            raise UserError(
                f"{source}: {s.path.name} is the second clip of method {s.method}, "
                f"prompt {s.prompt_id}, seed {s.seed}; remove one"
            )
        seen |= {item, s.path}
    return samples
