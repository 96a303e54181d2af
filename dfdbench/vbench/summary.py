"""vbench.json and vbench.md: VBench's score of every dimension and its totals, beside the store.

Used by scoring after a suite with a VBench protocol. A dimension that could not be scored is
missing, never 0, and a total that lacks one says of how many it is.
"""

import math
from pathlib import Path
from typing import Any

from dfdbench.files import write_json, write_text
from dfdbench.scores import Store
from dfdbench.suites import Suite
from dfdbench.vbench.totals import COLUMNS, PROTOCOLS, dimension_scores, totals


def summarise(store: Path, suite: Suite) -> dict[str, Any]:
    """Method -> its scores by dimension (score, videos, prompts) and its totals."""
    with Store(store) as opened:
        values = opened.values(suite.name, COLUMNS)
    result: dict[str, Any] = {}
    for method, rows in dimension_scores(values).groupby("method"):
        scores = {
            row["dimension"]: {
                "score": row["score"] if math.isfinite(row["score"]) else None,
                "videos": row["videos"],
                "prompts": row["prompts"],
            }
            for row in rows.to_dict("records")
        }
        found = totals({name: entry["score"] for name, entry in scores.items()}, suite.protocol)
        result[str(method)] = {
            "dimensions": scores,
            "totals": {name: total._asdict() for name, total in found.items()},
        }
    return result


def write_summary(folder: Path, suite: Suite, methods: dict[str, Any]) -> list[Path]:
    """Write both files of what `summarise` found into `folder`; returns them."""
    paths = [folder / "vbench.json", folder / "vbench.md"]
    write_json(paths[0], {"suite": suite.name, "protocol": suite.protocol, "methods": methods})
    write_text(paths[1], _markdown(suite, methods))
    return paths


def is_partial(methods: dict[str, Any]) -> bool:
    """Whether one of what `summarise` found lacks a total, or a dimension in one."""
    return not methods or any(
        total["value"] is None or total["found"] < total["expected"]
        for method in methods.values()
        for total in method["totals"].values()
    )


def _markdown(suite: Suite, methods: dict[str, Any]) -> str:
    head = ["", *methods]
    lines = [
        f"# VBench, suite {suite.name} v{suite.version}",
        "",
        "Scores by VBench's definitions; an empty cell was not measured. n/N: the total lacks "
        "dimensions and is the mean of n of N; it cannot be compared with a whole one.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for name in (*PROTOCOLS[suite.protocol].dimensions, "i2v_subject", "i2v_background"):
        found = [m["dimensions"].get(name, {}).get("score") for m in methods.values()]
        if any(score is not None for score in found):
            lines.append(_row(name, ["" if score is None else f"{score:.4f}" for score in found]))
    for name in ("quality", "semantic", "i2v", "total", "average"):
        if any(name in m["totals"] for m in methods.values()):
            lines.append(_row(f"**{name}**", [_cell(m["totals"][name]) for m in methods.values()]))
    return "\n".join(lines) + "\n"


def _row(name: str, cells: list[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"


def _cell(total: dict[str, Any]) -> str:
    part = "" if total["found"] == total["expected"] else f"{total['found']}/{total['expected']}"
    if total["value"] is None:
        return f"({part})"
    return f"{total['value']:.4f}" + (f" ({part})" if part else "")
