"""vbench.json and vbench.md: VBench's score of every dimension and its totals, beside the store.

Used by follow_ups.py for a suite with a VBench protocol. A dimension that could not be
scored is missing, never 0; one that lacks clips and a total that lacks dimensions say of how many
they are. The stand-ins for VBench's networks have their own columns, and how the clips depart from
VBench's protocol is written beside the scores.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dfdbench.evaluate.match import STANDS_FOR
from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.metrics.vbench.official import COUNTED, NATIVE, VERSION, official
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench import protocol
from dfdbench.evaluate.vbench.export import dimensions_of
from dfdbench.evaluate.vbench.totals import COLUMNS, PROTOCOLS, dimension_scores, totals
from dfdbench.generate.suites.base import STAND_INS, Suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.table import Cell, Table, escape_prose, markdown

HEAD = (
    "Scores by VBench's definitions; an empty cell was not measured. n/N after a measure: it has "
    "n of the N clips that the suite asks for. n/N after a total: it lacks dimensions and is the "
    "mean of n of N. Neither can be compared with a whole one."
)

OFFICIAL = {official(name): name for name in NATIVE} | {
    f"{official(name)}_frames": f"{name}_frames" for name in COUNTED
}
"""Columns of the official package's values -> those of ours."""


def summarise(store: Path, suite: Suite) -> dict[str, Any]:
    """Method -> scores by dimension, the official package's, stand-ins, totals and protocol.

    A dimension has score, videos and prompts that count, and found of expected clips (None where
    the suite has no prompts; under a static filter, found clips are those that were judged).
    """
    prompts = dimensions_of(suite.entries())
    stand_ins = _stand_ins(suite)
    with Store.reading(store) as opened:
        values = opened.values(suite.name, [*COLUMNS, *OFFICIAL, *stand_ins])
        facts = {
            str(method): protocol.measure(opened, suite, own)
            for method, own in values.groupby("method")
        }
    scores = dimension_scores(values, prompts, suite.static_filter)
    official_scores = _official(values, prompts, suite)
    result: dict[str, Any] = {}
    for method, own in values.groupby("method"):
        dimensions = {}
        for row in scores[scores["method"] == method].to_dict("records"):
            part = protocol.part(own, suite, row["dimension"])
            dimensions[row["dimension"]] = {
                "score": row["score"] if math.isfinite(row["score"]) else None,
                "videos": row["videos"],
                "prompts": row["prompts"],
                "found": part.found,
                "expected": part.expected,
            }
        means = totals({name: d["score"] for name, d in dimensions.items()}, suite.protocol)
        result[str(method)] = {
            "dimensions": dimensions,
            "official": official_scores.get(str(method), {}),
            "stand_ins": _means(own, suite, stand_ins),
            "totals": {name: total._asdict() for name, total in means.items()},
            "protocol": facts[str(method)],
        }
    return result


def _official(
    values: pd.DataFrame, prompts: Mapping[str, Any] | None, suite: Suite
) -> dict[str, dict[str, Any]]:
    """Method -> official_<dimension> -> score and videos; in no total."""
    renamed = values.drop(columns=[name for name in OFFICIAL.values() if name in values])
    scores = dimension_scores(renamed.rename(columns=OFFICIAL), prompts, suite.static_filter)
    by_method: dict[str, dict[str, Any]] = {}
    for row in scores[scores["dimension"].isin(NATIVE)].to_dict("records"):
        entry = {"score": row["score"], "videos": row["videos"]}
        by_method.setdefault(str(row["method"]), {})[official(row["dimension"])] = entry
    return by_method


def _stand_ins(suite: Suite) -> dict[str, str]:
    """Metrics of the suite's stand-ins -> the dimension in whose place they stand."""
    families = [get_family(name) for name in STAND_INS if name in suite.metrics]
    names = [metric.name for family in families for metric in family.at("video")]
    return {name: STANDS_FOR[name] for name in names if name in STANDS_FOR}


def _means(values: pd.DataFrame, suite: Suite, stand_ins: Mapping[str, str]) -> dict[str, Any]:
    """Stand-in -> its dimension, its mean over the clips that ask for that, and their number."""
    means = {}
    for name, dimension in stand_ins.items():
        rows, found, expected = protocol.part(values, suite, dimension, name)
        if len(rows):
            means[name] = {
                "dimension": dimension,
                "mean": float(rows[name].mean()),
                "videos": len(rows),
                "found": found,
                "expected": expected,
            }
    return means


def write_summary(
    folder: Path, suite: Suite, methods: Mapping[str, Any], skipped: Sequence[str] = ()
) -> list[Path]:
    """Write both files of what `summarise` found into `folder`; returns them.

    skipped: a line for each family that could not be computed, with the remedy.
    """
    paths = [folder / "vbench.json", folder / "vbench.md"]
    content = {
        "suite": suite.name,
        "version": suite.version,
        "protocol": suite.protocol,
        "conditions": suite.conditions,
        "info_sha256": suite.info_sha256,
        "notes": list(suite.notes),
        "skipped": list(skipped),
        "methods": methods,
    }
    write_json(paths[0], content)
    write_text(paths[1], _markdown(suite, methods, skipped))
    return paths


def is_partial(methods: Mapping[str, Any]) -> bool:
    """Whether one of what `summarise` found lacks a total, or a dimension or clips in one."""
    return not methods or any(
        total["value"] is None or total["found"] < total["expected"]
        for method in methods.values()
        for total in method["totals"].values()
    ) or any(
        _part(dimension) for method in methods.values()
        for dimension in method["dimensions"].values()
    )  # fmt: skip


def warnings(methods: Mapping[str, Any]) -> list[str]:
    """A line for each departure of a method from VBench's protocol."""
    return [
        f"{name}: {line}"
        for name, method in methods.items()
        for line in protocol.warnings(method["protocol"])
    ]


def _markdown(suite: Suite, methods: Mapping[str, Any], skipped: Sequence[str]) -> str:
    def rows(part: str, value: str, names: Iterable[str]) -> dict[str, list[str]]:
        """Name -> a cell a method, of those that a method has."""
        cells = {n: [_cell(m[part].get(n), value) for m in methods.values()] for n in names}
        return {name: row for name, row in cells.items() if any(row)}

    def entries(part: str) -> dict[str, Any]:
        return {name: entry for m in methods.values() for name, entry in m[part].items()}

    dimensions = dict.fromkeys((*PROTOCOLS[suite.protocol].dimensions, *DIMENSIONS))
    named_totals = {
        f"**{name}**": [_total(m["totals"][name], m["dimensions"]) for m in methods.values()]
        for name in ("quality", "semantic", "i2v", "total", "average")
        if any(name in m["totals"] for m in methods.values())
    }
    stand_ins = {
        f"{name} (for {entries('stand_ins')[name]['dimension']})": row
        for name, row in rows("stand_ins", "mean", entries("stand_ins")).items()
    }
    of_suite = [f"Conditions: {suite.conditions}."] * bool(suite.conditions)
    of_suite += [f"Prompts: info file, sha256 {suite.info_sha256}."] * bool(suite.info_sha256)
    lines = [f"# VBench, suite {suite.name} v{suite.version}", ""]
    lines += [*_items([*of_suite, *suite.notes]), HEAD, ""]
    lines += _table(methods, rows("dimensions", "score", dimensions) | named_totals)
    if official_rows := rows("official", "score", entries("official")):
        lines += ["", "## Official", "", f"By vbench {VERSION} itself; in no total above.", ""]
        lines += _table(methods, official_rows)
    if stand_ins:
        lines += ["", "## Stand-ins", ""]
        lines += ["Other measures of the same thing, not VBench's and not on its scale.", ""]
        lines += _table(methods, stand_ins)
    facts = protocol.rows({name: m["protocol"] for name, m in methods.items()})
    lines += ["", "## Protocol", "", *_table(methods, dict(facts))]
    if departures := warnings(methods):
        lines += ["", *_items(departures)[:-1]]
    if skipped:
        lines += ["", "## Not scored", "", *_items(skipped)[:-1]]
    return "\n".join(lines) + "\n"


def _items(lines: Sequence[str]) -> list[str]:
    return [*(f"- {escape_prose(line)}" for line in lines), ""] if lines else []


def _table(methods: Mapping[str, Any], rows: Mapping[str, Sequence[str]]) -> list[str]:
    cells = [
        [Cell(name.strip("*"), best=name.startswith("*")), *map(Cell, row)]
        for name, row in rows.items()
    ]
    return markdown(Table(["", *methods], cells)).rstrip("\n").split("\n")


def _part(entry: Mapping[str, Any]) -> str:
    """`37/360` where a dimension or a stand-in lacks clips, else empty."""
    found, expected = entry.get("found"), entry.get("expected")
    return f"{found}/{expected}" if expected is not None and found < expected else ""


def _cell(entry: Mapping[str, Any] | None, value: str) -> str:
    if entry is None or entry[value] is None:
        return ""
    part = _part(entry)
    return f"{entry[value]:.4f}" + (f" ({part})" if part else "")


def _total(total: Mapping[str, Any], dimensions: Mapping[str, Any]) -> str:
    part = "" if total["found"] == total["expected"] else f"{total['found']}/{total['expected']}"
    if total["value"] is None:
        return f"({part})"
    if any(map(_part, dimensions.values())):
        part = f"{part}, of part of the clips".lstrip(", ")
    return f"{total['value']:.4f}" + (f" ({part})" if part else "")
