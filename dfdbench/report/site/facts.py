"""What an entry's row and page tell beside its scores. Used by render.py.

Nothing is guessed: what neither the entry nor the recipe beside it holds is a dash.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dfdbench.report.leaderboard.beside import flat
from dfdbench.report.leaderboard.entries import Entry, Measured, Published
from dfdbench.report.leaderboard.render import is_measured_reference, source_of
from dfdbench.report.pairs import CONTROL, usual_pairs
from dfdbench.utils.table import escape_latex, one_line

NONE = "—"
ARXIV = re.compile(r"arXiv[ :]*(\d{4}\.\d{4,5})")
SEEDS_APART = ("seed", "arm")
"""Keys that a recipe's comparison leaves out: runs differ in them anyway."""


def paper_link(entry: Entry) -> str:
    """The address of the paper that an entry names, empty without one."""
    found = ARXIV.search(source_of(entry)) if isinstance(entry, Published) else None
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def suite_of(entry: Measured) -> str:
    """The suite of an entry, with its version if it has one."""
    version = entry.suite.version
    return f"{entry.suite.name} v{version}" if version else entry.suite.name


def date_of(entry: Entry) -> str:
    """The day on which a measured entry was made; a published one has none."""
    return entry.provenance.created[:10] if isinstance(entry, Measured) else ""


def models_of(entry: Measured) -> str:
    """The models that an entry's runs name."""
    names = {str(getattr(run, "model", "")) for run in entry.provenance.runs} - {""}
    return ", ".join(sorted(names))


def facts_of(entry: Measured, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Model, student steps, updates and hours: `text` for people and `value` to sort by."""
    runs = entry.provenance.runs
    trained = [run for run in runs if run.student_updates_total]
    updates = sorted({run.student_updates_total or 0 for run in trained})
    steps = (recipe or {}).get("student", {}).get("steps") if trained else None
    hours, text = _hours(trained)
    most = max(updates, default=None)
    return {
        "model": {"text": models_of(entry) or NONE, "value": models_of(entry) or None},
        "steps": {"text": str(steps or NONE), "value": steps},
        "updates": {"text": ", ".join(map(str, updates)) or NONE, "value": most},
        "hours": {"text": text, "value": hours},
    }  # fmt: skip


def _hours(runs: Sequence[Any]) -> tuple[float | None, str]:
    """GPU-hours of one training, the mean over runs; of runs on a CPU none, but their time."""
    timed = [run for run in runs if run.wall_seconds_total]
    devices = {str(getattr(run, "device", "")).partition(":")[0] for run in timed}
    if not timed:
        return None, NONE
    seconds = sum(run.wall_seconds_total for run in timed) / len(timed)
    if devices == {"cpu"}:
        return 0.0, f"0 (CPU, {seconds / 60:.1f} min)"
    processes = [getattr(run, "processes", None) for run in timed]
    if devices != {"cuda"} or not all(isinstance(n, int) and n > 0 for n in processes):
        return None, NONE
    each = [run.wall_seconds_total * n / 3600 for run, n in zip(timed, processes, strict=True)]
    hours = sum(each) / len(each)
    return hours, f"{hours:.2f}" if hours < 10 else f"{hours:.0f}"


def kind_of(entry: Entry) -> str:
    """reference, student or published."""
    if isinstance(entry, Published):
        return "published"
    return "reference" if is_measured_reference(entry) else "student"


def control_of(entry: Measured, others: Sequence[Measured], init: str = "") -> Measured | None:
    """The entry that an entry is to be compared with: its control, else what it began from.

    init: the recipe that its recipe begins from, such as toy/dmd2.
    """
    methods = [other.method for other in others]
    rivals = [b for a, b in usual_pairs(methods, ()) if a == entry.method]
    parent = init.rpartition("/")[2]
    rivals += [f"{parent}{CONTROL}", parent] if parent else []
    for rival in rivals:
        for other in others:
            if other.method == rival and other.id != entry.id:
                return other
    return None


def recipe_changes(
    own: Mapping[str, Any], other: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """(key, value of the control, own value) of all keys in which two recipes differ."""
    mine, theirs = flat(own), flat(other or {})
    keys = [k for k in {**theirs, **mine} if k not in SEEDS_APART]
    return [
        (key, theirs.get(key, NONE), mine.get(key, NONE))
        for key in keys
        if mine.get(key) != theirs.get(key)
    ]


def commands_of(entry: Measured) -> list[str]:
    """The commands that score the clips again and make the entry; RUNS stands for the sources."""
    families = ",".join(entry.provenance.families)
    score = ["--suite", entry.suite.name, "--metrics", families]
    add = ["--board", entry.board, "--name", one_line(entry.name)]
    return [
        f"dfdbench eval RUNS {shlex.join(score)}",
        f"dfdbench leaderboard submit RUNS {shlex.join(add)}",
    ]


def bibtex_of(entry: Entry) -> str:
    """A citation of an entry: of a published one its paper."""
    if isinstance(entry, Published):
        found = ARXIV.search(source_of(entry))
        number = found[1] if found else ""
        fields = {
            "note": escape_latex(source_of(entry)),
            **({"eprint": number, "archivePrefix": "arXiv"} if number else {}),
        }
        key = f"arxiv{number.replace('.', '')}" if number else entry.id
    else:
        fields = {
            "title": f"{escape_latex(one_line(entry.name))} on {escape_latex(entry.board)}",
            "author": "{dfdbench contributors}",
            "year": entry.provenance.created[:4],
            "note": f"dfdbench leaderboard entry, SHA-256 {entry.sha256}",
        }
        key = f"dfdbench-{entry.board}-{entry.id}"
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
    return f"@misc{{{key},\n" + ",\n".join(lines) + "\n}"
