"""Proof of leaderboards: every number again from its evidence, or from the paper's tables.

Used by cli.py for `leaderboard verify`. Faults are found, not raised: one line each, which begins
with the file.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.leaderboard.beside import read_recipe, strays
from dfdbench.report.leaderboard.entries import (
    Measured,
    Printed,
    Published,
    Score,
    as_entry,
    digest,
    entry_paths,
    evidence_file,
    measure,
    raw_entry,
    read_entry,
    read_evidence,
    text_faults,
)
from dfdbench.report.leaderboard.render import rendered
from dfdbench.report.leaderboard.sources import name_faults, published_entries
from dfdbench.utils.errors import UserError

TOLERANCE = 1e-7  # numbers are written with nine digits


class Verdict(NamedTuple):
    """What was checked and what is wrong."""

    boards: int
    measured: int
    published: int
    faults: list[str]

    def line(self) -> str:
        """The summary for people."""
        return (
            f"{self.measured} measured and {self.published} published entries on {self.boards} "
            f"boards: {len(self.faults) or 'no'} fault{'' if len(self.faults) == 1 else 's'}"
        )


def verify(folder: Path) -> Verdict:
    """Check every entry below `folder`, its evidence, and what is rendered from them.

    Raises:
        UserError: there is no entry.
    """
    paths = entry_paths(folder)
    if not paths:
        raise UserError(f"{folder}: no entries; make one with `dfdbench leaderboard add`")
    faults, kinds = list[str](), list[str]()
    suites: dict[str, tuple[Any, str]] = {}
    for path in paths:
        place = path.relative_to(folder).as_posix()
        try:
            raw = raw_entry(path)
            kinds.append(str(raw.get("kind")))
            faults += [f"{place}: {fault}" for fault in entry_faults(folder, path, raw)]
            if raw.get("kind") == "measured":
                first, other = suites.setdefault(path.parent.name, (raw.get("suite"), place))
                if first != raw.get("suite"):
                    faults.append(f"{place}: of another suite than {other}; use another board")
        except UserError as error:
            faults.append(f"{place}: {str(error).removeprefix(f'{path}: ')}")
        except (ValueError, RecursionError) as error:  # from digest: a field of others holds NaN
            faults.append(f"{place}: malformed ({error}); add the entry again")
    faults += _clips_of_two_methods(folder, paths) if not faults else []
    faults += _stray_evidence(folder, paths)
    faults += strays(folder, {(path.parent.name, path.stem) for path in paths})
    if not faults:
        faults = _rendered_faults(folder)
    boards = len({path.parent for path in paths})
    return Verdict(boards, kinds.count("measured"), kinds.count("published"), faults)


def entry_faults(folder: Path, path: Path, raw: dict[str, Any]) -> Iterator[str]:
    """What is wrong with an entry alone; raises UserError where it cannot be read."""
    entry = as_entry(raw, path)
    if (path.parent.name, path.stem) != (entry.board, entry.id):
        yield f"says that it is {entry.board}/{entry.id}"
    if digest(raw) != entry.sha256:
        yield "its sha256 is not that of its content"
    yield from text_faults(raw)
    if isinstance(entry, Published):
        yield from _published_faults(entry)
    else:
        yield from name_faults(entry.name, entry.method)
        yield from _provenance_faults(entry)
        yield from _evidence_faults(folder, entry)
        read_recipe(folder, entry)  # raises where it is not the recipe of a run


def _published_faults(entry: Published) -> Iterator[str]:
    rows = {row["id"]: row for row in published_entries(entry.board)}
    if entry.id not in rows:
        yield "no such row in the paper's tables (dfdbench/published.csv)"
        return
    known = Published.model_validate(rows[entry.id] | {"sha256": entry.sha256})
    for key in ("name", "method", "source"):
        if getattr(entry, key) != getattr(known, key):
            yield f"{key} is {getattr(entry, key)}, published.csv has {getattr(known, key)}"
    for name in {**known.metrics, **entry.metrics}:
        value, expected = (e.metrics.get(name) for e in (entry, known))
        if value != expected:
            yield f"{name} is {_value(value)}, published.csv has {_value(expected)}"


def _value(number: Printed | None) -> str:
    return "missing" if number is None else f"{number.as_printed} ({number.value})"


def _provenance_faults(entry: Measured) -> Iterator[str]:
    facts = entry.provenance
    covered = {name for family in facts.families.values() for name in family.metrics}
    if apart := covered ^ set(entry.metrics):
        yield f"provenance covers other metrics: {', '.join(sorted(apart))}"
    methods = {str(method) for run in facts.runs if (method := getattr(run, "method", None))}
    if entry.method == "real" and (methods - {"real"} or facts.training_seeds):
        yield f"called real clips, its runs are of {', '.join(sorted(methods)) or 'a method'}"
    seeds = sorted(r.training_seed for r in facts.runs if r.training_seed is not None)
    if seeds != facts.training_seeds:
        yield f"training seeds {facts.training_seeds}, its runs have {seeds}"


def _evidence_faults(folder: Path, entry: Measured) -> Iterator[str]:
    file = evidence_file(entry.board, entry.id)
    if entry.evidence.file != file:
        yield f"evidence is {entry.evidence.file}, expected {file}"
        return
    cells = read_evidence(folder / file)
    if hashlib.sha256((folder / file).read_bytes()).hexdigest() != entry.evidence.sha256:
        yield f"{file} is not the evidence that it was made from (sha256)"
    arms = {cell.arm for cell in cells}
    if arms != {entry.method}:
        yield f"method is {entry.method}, its evidence is of {', '.join(sorted(arms))}"
    facts = entry.provenance
    seeds = sorted({c.training_seed for c in cells if c.training_seed is not None})
    if seeds != facts.training_seeds:
        yield f"training seeds {facts.training_seeds}, its evidence has {seeds}"
    prompts = len({c.prompt for c in cells})
    if prompts != facts.prompts:
        yield f"{facts.prompts} prompts, its evidence has {prompts}"
    again = measure(cells)
    if apart := set(again) ^ set(entry.metrics):
        yield f"metrics without evidence, or left out of it: {', '.join(sorted(apart))}"
    for metric in sorted(set(again) & set(entry.metrics)):
        yield from _metric_faults(metric, entry.metrics[metric], again[metric])


def _metric_faults(metric: str, score: Score, expected: dict[str, Any]) -> Iterator[str]:
    for key, value in expected.items():
        if not _equal(getattr(score, key), value):
            yield f"{key} of {metric} is {getattr(score, key)}, its evidence gives {value}"
    ours = all_metrics()[metric]
    if not 1 <= score.version <= ours.version:
        yield f"version of {metric} is {score.version}, this dfdbench has {ours.version}"
    elif score.version == ours.version and score.direction != ours.direction:
        yield f"direction of {metric} is {score.direction}, it is {ours.direction}"


def _equal(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)


def _clips_of_two_methods(folder: Path, paths: list[Path]) -> Iterator[str]:
    """Entries of a board with the very clips of another method, such as a teacher's as real."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    for path in paths:
        entry, place = read_entry(path), path.relative_to(folder).as_posix()
        if isinstance(entry, Measured):
            key = entry.board, entry.provenance.videos.digest
            method, other = first.setdefault(key, (entry.method, place))
            if method != entry.method:
                yield f"{place}: its clips are those of {other}, whose method is {method}"


def _stray_evidence(folder: Path, paths: list[Path]) -> Iterator[str]:
    """Evidence of no entry: someone removed or renamed one."""
    known = {evidence_file(path.parent.name, path.stem) for path in paths}
    for path in sorted((folder / "evidence").rglob("*.csv")):
        place = path.relative_to(folder).as_posix()
        if place not in known and not path.name.startswith("."):
            yield f"{place}: evidence of no entry; remove it or add the entry again"


def _rendered_faults(folder: Path) -> list[str]:
    faults = []
    for name, text in rendered(folder).items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            faults.append(
                f"{name}: not what the entries render to; run dfdbench leaderboard render"
            )
    return faults
