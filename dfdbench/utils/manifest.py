"""Which clips an input names: a run folder, a manifest (JSONL or CSV), or a folder of videos.

Used by scoring and `data encode`. Manifest columns: path (relative to the manifest; required),
prompt_id, prompt, seed, method, image (the picture that the clip continues, relative too),
generated_from (the text that it was made from, if that is not prompt), blocks (frames of the first
block and of those after it, as 9+12, of a causal student's clip); others are ignored. A folder's
files are named as VBench does, `{prompt}-{i}.mp4`. What cannot be used is refused by name, and the
rest is read.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.reading import Name, Open, Text, read_csv, read_jsonl, validate

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".m2v", ".ts",
    ".m2ts", ".mts", ".wmv", ".flv", ".ogv", ".3gp", ".mxf", ".y4m",
)  # fmt: skip
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", ".aria2")
LISTINGS = ("samples.jsonl", "manifest.jsonl", "manifest.csv")
LARGEST_SEED = 2**63 - 1  # what a score store can hold
CUTS = (100, 180)  # characters that Self-Forcing and VBench keep of a prompt in a file's name
MOST_NAMED = 5  # examples in a line
MOST_LINES = 10  # of a kind that are printed


def _whole(value: Any) -> Any:
    """A whole number as JSON, CSV and tables with gaps in them (3.0) write it."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,40}(\.0+)?", value.strip()):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bool):
        raise ValueError("not a whole number")
    return value


def _number_as_name(value: Any) -> Any:
    return str(value) if type(value) is int else value


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True), BeforeValidator(_whole)]
Label = Annotated[Name, BeforeValidator(_number_as_name)]  # such as prompt_id 7
File = Annotated[Text, Field(max_length=4096)]


BLOCKS = r"^[1-9][0-9]{0,6}\+[1-9][0-9]{0,6}$"


class Row(Open):
    """One line of a manifest; an empty cell is as good as none."""

    path: File
    prompt_id: Label | None = None
    prompt: Text | None = None
    seed: Seed | None = None
    method: Label | None = None
    image: File | None = None
    generated_from: Text | None = None
    blocks: Annotated[str, Field(pattern=BLOCKS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty_cells(cls, row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        return {column: cell for column, cell in row.items() if cell not in (None, "")}


class Sample(NamedTuple):
    """One clip of an input; `seed` is None where it is not known, `image` where it has none.

    generated_from: the text that it was made from, where the manifest names another than `prompt`.
    blocks: "9+12" where a causal student made it in a block of 9 frames and blocks of 12 after it.
    """

    path: Path
    prompt_id: str
    prompt: str | None
    seed: int | None
    method: str
    image: Path | None = None
    generated_from: str | None = None
    blocks: str = ""


class Refused(NamedTuple):
    """What an input names and cannot be scored: a file, or a place such as manifest.jsonl:3."""

    path: Path
    reason: str


class Collection(NamedTuple):
    """The clips of one input.

    store: where their scores go by default. is_run: a run folder. by_name: prompts and seeds come
    from the files' names. refused: what cannot be scored. notes: lines for a person.
    """

    samples: list[Sample]
    store: Path
    is_run: bool
    by_name: bool = False
    refused: Sequence[Refused] = ()
    notes: Sequence[str] = ()


def names_of(
    inputs: Sequence[str | Path], method_name: str | Sequence[str] | None
) -> list[str | None]:
    """The method name given for each input: none, one for all, or one for each.

    Raises:
        UserError: another number of names than of inputs, a name for a run, which has its own, or
            two folders of one name without names of their own.
    """
    given = [method_name] if isinstance(method_name, str) else list(method_name or [])
    names: list[str | None] = [validate(Name, name, "--arm", "give one line") for name in given]
    if len(names) > 1 and len(names) != len(inputs):
        raise UserError(
            f"--arm: {len(names)} names for {len(inputs)} inputs; give one, or one for each"
        )
    runs = [_is_run(Path(source)) for source in inputs]
    if names and (all(runs) or (len(names) > 1 and any(runs))):
        run = inputs[runs.index(True)]
        raise UserError(f"--arm: {run} is a run, whose clips have its name; leave the name out")
    if not names:
        _check_folder_names([Path(source) for source in inputs])
    return names if len(names) > 1 else (names or [None]) * len(inputs)


def _check_folder_names(inputs: Sequence[Path]) -> None:
    """Refuse folders of videos that would be one method for no other reason than their names."""
    by_name = defaultdict[str, list[Path]](list)
    for source in inputs:
        if source.is_dir() and _listing(source) == source and not _is_run(source):
            by_name[source.resolve().name].append(source)
    for name, folders in by_name.items():
        if len({folder.resolve() for folder in folders}) > 1:
            both = " and ".join(map(str, folders[:2]))
            raise UserError(f"{both} would both be method {name}; name each input with --arm")


def _is_run(source: Path) -> bool:
    return (source / "run.json").is_file()


def _listing(folder: Path) -> Path:
    """The manifest in a folder, or the folder itself."""
    return next((folder / n for n in LISTINGS if (folder / n).is_file()), folder)


def is_clip_name(path: Path) -> bool:
    """Whether a file is called like a clip; hidden ones are left by systems and killed writers."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def collect(source: str | Path, suite: str, method_name: str | None = None) -> Collection:
    """The clips that `source` names for `suite`.

    Args:
        source: run folder, manifest file, or folder of videos (with or without a manifest in it).
        suite: picks RUN/videos/<suite>/ of a run.
        method_name: the method of clips for which no manifest names one.

    Raises:
        UserError: nothing there, nothing that can be used, or a clip named twice.
    """
    source = Path(source)
    if _is_run(source):
        listing = source / "videos" / suite / "samples.jsonl"
        if not listing.is_file():
            raise UserError(f"{source}: no videos of suite {suite}; run dfdbench generate first")
        collected = _manifest(listing, None)
        return _checked(listing, collected._replace(store=source / "scores.sqlite", is_run=True))
    if not source.exists():
        raise UserError(f"{source}: no such run, manifest or folder; check the path")
    listing = _listing(source) if source.is_dir() else source
    name = validate(Name, default_name(source), source, "rename it")
    if listing.is_dir():
        collected = _folder(listing, method_name or name)
    else:
        collected = _manifest(listing, method_name)
    store = Path(f"scores-{name}") / "scores.sqlite"
    return _checked(listing, collected._replace(store=store))


def default_name(source: Path) -> str:
    """What an input is called: a folder, or the folder of a manifest with one of the usual names.

    A manifest of another name goes by that.
    """
    named = source.is_file() and source.name not in LISTINGS
    return source.stem if named else (source if source.is_dir() else source.parent).resolve().name


def _checked(listing: Path, collected: Collection) -> Collection:
    """`collected` without what is no regular file, if anything is left and no clip named twice."""
    samples, refused = list[Sample](), list(collected.refused)
    for sample in collected.samples:
        fault = next(
            (
                f"{file}: no regular file; name a {what}"
                for what, file in (("video", sample.path), ("picture", sample.image))
                if file and os.path.exists(file) and not os.path.isfile(file)
            ),
            None,
        )
        if fault:
            refused.append(Refused(sample.path, fault))
        else:
            samples.append(sample)
    if not samples:
        if refused:
            more = f" (and {len(refused) - 1} more)" if refused[1:] else ""
            raise UserError(refused[0].reason + more)
        below = f", but there are in {collected.notes[0]}" if collected.notes else ""
        expected = f"{', '.join(VIDEO_SUFFIXES)} or a manifest"
        raise UserError(f"{listing}: names no videos{below}; expected {expected}")
    return collected._replace(samples=unique(listing, samples), refused=refused)


def _folder(folder: Path, method: str) -> Collection:
    """The videos of a folder by VBench's names; others that look like one are refused."""
    samples, refused, notes = list[Sample](), list[Refused](), list[str]()
    for file in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if file.suffix.lower() in UNFINISHED and is_clip_name(file.with_suffix("")):
            refused.append(Refused(file, f"{file}: an unfinished copy; end it or delete it"))
        elif is_clip_name(file):
            try:
                samples.append(_named(file, method))
            except UserError as error:
                refused.append(Refused(file, str(error)))
        elif file.is_dir() and (count := _clips_below(file)):
            notes.append(f"{file.name}/ ({count}), an input of its own")
    if notes and samples:
        notes = [f"clips of {folder} itself are scored, not those in {listed(notes)}"]
    return Collection(samples, folder, False, True, refused, notes)


def _named(file: Path, method: str) -> Sample:
    """A file of a folder: `{prompt}-{i}`, or a prompt without a seed."""
    match = re.fullmatch(r"(.+?)(-?)-([0-9]+)", file.stem, re.DOTALL)
    prompt, seed = (match[1] + match[2], match[3]) if match else (file.stem, None)
    where, remedy = file, "rename it or name it in a manifest"
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: its name is not in UTF-8; {remedy}") from None
    if match and match[2] and len(prompt) not in CUTS:
        raise UserError(f"{where}: seed: ends in {seed} or in -{seed}; {remedy}")
    number = validate(Seed, seed, f"{where}: seed", remedy) if seed else None
    return Sample(file, prompt, prompt, number, method)


def _clips_below(folder: Path) -> int:
    """Clips in a folder and in those inside it."""
    return sum(is_clip_name(Path(name)) for _, _, names in os.walk(folder) for name in names)


def doubts(samples: Sequence[Sample]) -> list[str]:
    """Lines about files' names whose number may belong to the prompt, or whose prompt may be cut.

    samples: of a folder, whose prompts no list confirms.
    """
    seeds = defaultdict[str, list[Sample]](list)
    for sample in samples:
        if sample.seed is not None:
            seeds[sample.prompt_id].append(sample)
    odd, lines = list[str](), list[str]()
    for clips in seeds.values():
        numbers = sorted(clip.seed or 0 for clip in clips)
        if numbers[0] > 1 or numbers[-1] - numbers[0] >= len(numbers):
            odd += [clip.path.name for clip in clips]
    if odd:
        lines.append(
            f"{len(odd)} names end in a number that may belong to the prompt and counts as a seed "
            f"({listed(odd)}); if it does, give --prompts or a manifest"
        )
    cut = [prompt for prompt in {s.prompt_id: None for s in samples} if len(prompt) in CUTS]
    if cut:
        lines.append(
            f"{len(cut)} prompts may be cut in the files' names ({listed(cut, 1)}); "
            "give the whole ones with --prompts or a manifest"
        )
    return lines


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def capped(lines: Sequence[str], where: object) -> list[str]:
    """The first MOST_LINES lines for a person, and how many more there are and where."""
    more = len(lines) - MOST_LINES
    cut = [clean(line) for line in lines[:MOST_LINES]]
    return [*cut, f"{more} more, {len(lines)} in all; see {where}"] if more > 0 else cut


def _manifest(path: Path, method_name: str | None) -> Collection:
    remedy = f"correct that line of the manifest (columns: {', '.join(Row.model_fields)})"
    samples, refused = list[Sample](), list[Refused]()

    def refuse(line: int, error: UserError) -> None:
        refused.append(Refused(path.with_name(f"{path.name}:{line}"), str(error)))

    if path.suffix.lower() == ".csv":
        rows = read_csv(path, Row, remedy, refuse)
    else:
        rows = read_jsonl(path, Row, remedy, "a manifest, JSONL or CSV", refuse)
    for line, row in rows:
        try:
            samples.append(_sample(path, line, row, method_name))
        except UserError as error:
            refuse(line, error)
    return Collection(samples, path, False, False, refused)


def _sample(manifest: Path, line: int, row: Row, method_name: str | None) -> Sample:
    method = row.method or method_name
    if not method:
        raise UserError(f"{manifest}:{line}: no 'method'; add the column or pass --arm")
    path = manifest.parent / row.path
    prompt_id = row.prompt_id or row.prompt or path.stem
    image = manifest.parent / row.image if row.image else None
    return Sample(
        path, prompt_id, row.prompt, row.seed, method, image, row.generated_from, row.blocks or ""
    )


def unique(source: object, samples: list[Sample]) -> list[Sample]:
    """`samples`, if no clip is named twice and no two have one method, prompt and seed.

    Raises:
        UserError: there are such clips; the message begins with `source`.
    """
    seen: set[object] = set()
    for s in samples:
        path = os.path.abspath(s.path)
        item = path if s.seed is None else (s.method, s.prompt_id, s.seed)
        if item in seen or path in seen:
            raise UserError(
                f"{source}: {s.path.name} is the second clip of method "
                f"{s.method}, prompt {s.prompt_id}, seed {s.seed}; remove one"
            )
        seen |= {item, path}
    return samples
