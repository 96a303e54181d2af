"""Proof of leaderboards: every number again from its evidence, or from the paper's tables.

Used by cli.py for `leaderboard verify`. Faults are found, not raised: one line each, which begins
with the file.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.leaderboard.entries import (
    SCHEMA,
    Entry,
    digest,
    entry_paths,
    evidence_file,
    measure,
    read_entry,
    read_evidence,
)
from dfdbench.report.leaderboard.render import rendered
from dfdbench.report.leaderboard.sources import published_entries
from dfdbench.utils.errors import UserError

COMMON = ("schema", "board", "id", "name", "method", "kind", "metrics", "sha256")
NEEDED = {
    "measured": (*COMMON, "suite", "provenance", "evidence"),
    "published": (*COMMON, "source"),
}
PROVENANCE = (
    "dfdbench", "code_sha256", "created", "decoders", "families", "videos", "prompts",
)  # fmt: skip
MAY_BE_EMPTY = ("commit", "training_seeds", "runs")  # of a plain store, outside a checkout
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
            entry = read_entry(path)
            kinds.append(str(entry.get("kind")))
            faults += [f"{place}: {fault}" for fault in _entry_faults(folder, path, entry)]
            if entry.get("kind") == "measured":
                first, other = suites.setdefault(path.parent.name, (entry.get("suite"), place))
                if first != entry.get("suite"):
                    faults.append(f"{place}: of another suite than {other}; use another board")
        except UserError as error:
            faults.append(f"{place}: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            faults.append(f"{place}: malformed ({error!r}); add the entry again")
    faults += _stray_evidence(folder, paths)
    if not faults:
        faults = _rendered_faults(folder)
    boards = len({path.parent for path in paths})
    return Verdict(boards, kinds.count("measured"), kinds.count("published"), faults)


def _entry_faults(folder: Path, path: Path, entry: Entry) -> Iterator[str]:
    if entry.get("schema") != SCHEMA or entry.get("kind") not in NEEDED:
        yield (
            f"schema {entry.get('schema')}, kind {entry.get('kind')}: this dfdbench reads schema "
            f"{SCHEMA}, kinds {' and '.join(NEEDED)}"
        )
        return
    missing = [key for key in NEEDED[entry["kind"]] if not entry.get(key)]
    if missing:
        yield f"no {', no '.join(missing)}; an entry without is refused"
        return
    if (path.parent.name, path.stem) != (entry["board"], entry["id"]):
        yield f"says that it is {entry['board']}/{entry['id']}"
    if digest(entry) != entry["sha256"]:
        yield "its sha256 is not that of its content"
    for text in _texts(entry):
        if re.match(r"/|~|[A-Za-z]:\\", text):
            yield f"'{text}' is a path of one machine; name files relatively"
    if entry["kind"] == "published":
        yield from _published_faults(entry)
    else:
        yield from _provenance_faults(entry)
        yield from _evidence_faults(folder, entry)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _published_faults(entry: Entry) -> Iterator[str]:
    known = {e["id"]: e for e in published_entries(entry["board"])}.get(entry["id"])
    if known is None:
        yield "no such row in the paper's tables (dfdbench/published.csv)"
        return
    for key in ("name", "method", "source"):
        if entry[key] != known[key]:
            yield f"{key} is {entry[key]}, published.csv has {known[key]}"
    for name in {**known["metrics"], **entry["metrics"]}:
        found, expected = (e["metrics"].get(name) for e in (entry, known))
        if found != expected:
            yield f"{name} is {_value(found)}, published.csv has {_value(expected)}"


def _value(found: dict[str, Any] | None) -> str:
    return "missing" if found is None else f"{found.get('as_printed')} ({found.get('value')})"


def _provenance_faults(entry: Entry) -> Iterator[str]:
    facts = entry["provenance"]
    missing = [key for key in PROVENANCE if not facts.get(key)]
    missing += [key for key in MAY_BE_EMPTY if key not in facts]
    if missing:
        yield f"provenance without {', '.join(missing)}; an entry without is refused"
        return
    covered = {name for family in facts["families"].values() for name in family["metrics"]}
    if apart := covered ^ set(entry["metrics"]):
        yield f"provenance covers other metrics: {', '.join(sorted(apart))}"
    if not re.fullmatch(r"[0-9a-f]{64}", facts["videos"]["digest"]) or facts["videos"]["count"] < 1:
        yield "provenance names no videos"
    seeds = sorted(r["training_seed"] for r in facts["runs"] if r.get("training_seed") is not None)
    if seeds != facts["training_seeds"]:
        yield f"training seeds {facts['training_seeds']}, its runs have {seeds}"


def _evidence_faults(folder: Path, entry: Entry) -> Iterator[str]:
    file = evidence_file(entry["board"], entry["id"])
    if entry["evidence"].get("file") != file:
        yield f"evidence is {entry['evidence'].get('file')}, expected {file}"
        return
    cells = read_evidence(folder / file)
    if hashlib.sha256((folder / file).read_bytes()).hexdigest() != entry["evidence"].get("sha256"):
        yield f"{file} is not the evidence that it was made from (sha256)"
    arms = {cell.arm for cell in cells}
    if arms != {entry["method"]}:
        yield f"method is {entry['method']}, its evidence is of {', '.join(sorted(arms))}"
    facts = entry["provenance"]
    seeds = sorted({c.training_seed for c in cells if c.training_seed is not None})
    if seeds != facts.get("training_seeds"):
        yield f"training seeds {facts.get('training_seeds')}, its evidence has {seeds}"
    prompts = len({c.prompt for c in cells})
    if prompts != facts.get("prompts"):
        yield f"{facts.get('prompts')} prompts, its evidence has {prompts}"
    again = measure(cells)
    if apart := set(again) ^ set(entry["metrics"]):
        yield f"metrics without evidence, or left out of it: {', '.join(sorted(apart))}"
    for metric in sorted(set(again) & set(entry["metrics"])):
        yield from _metric_faults(metric, entry["metrics"][metric], again[metric])


def _metric_faults(metric: str, found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    for key, value in expected.items():
        if not _equal(found.get(key), value):
            yield f"{key} of {metric} is {found.get(key)}, its evidence gives {value}"
    known = all_metrics()[metric]
    version = found.get("version")
    if not isinstance(version, int) or not 1 <= version <= known.version:
        yield f"version of {metric} is {version}, this dfdbench has {known.version}"
    elif version == known.version and found.get("direction") != known.direction:
        yield f"direction of {metric} is {found.get('direction')}, it is {known.direction}"


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None or isinstance(a, bool | str):
        return a is b
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)


def _stray_evidence(folder: Path, paths: list[Path]) -> Iterator[str]:
    """Evidence of no entry: someone removed or renamed one."""
    known = {evidence_file(path.parent.name, path.stem) for path in paths}
    for path in sorted((folder / "evidence").rglob("*.csv")):
        place = path.relative_to(folder).as_posix()
        if place not in known:
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
