"""Scores beside known values of the same clips: comparison.json and comparison.md.

Used by follow_ups.py for a suite that names a reference file (suites/released_clips.json), so that
anyone with those clips can see whether this installation measures what it should. Measured and
reference values never share a column.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from dfdbench.evaluate.metrics import get_family, get_metric
from dfdbench.evaluate.store import Store
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json, write_text
from dfdbench.utils.reading import Open, read_json
from dfdbench.utils.table import markdown, of_texts

RELATIVE_ABOVE = 2.0  # reference values above this are compared relative to themselves


class Subset(Open):
    """Which clips a value is of: those of some prompts only, or without some."""

    only_prompts: tuple[str, ...] | None = None
    without_prompts: tuple[str, ...] = ()


class Value(Open):
    """A known mean over the clips of a subset, of one metric and method."""

    subset: str
    metric: str
    method: str
    value: float


class Reference(Open):
    """A file of known values, such as suites/released_clips.json."""

    title: str
    source: str
    tolerance: float
    subsets: dict[str, Subset]
    values: list[Value]


def compare(table: pd.DataFrame, reference: Reference) -> list[dict[str, Any]]:
    """One row a reference value, with the measured mean over clips beside it.

    Args:
        table: `Store.table()`.

    Returns:
        Rows of subset, metric, method, measured, reference, difference (measured − reference, in
        the metric's unit), tolerance, within, clips. Values without a clip have no row.
    """
    rows = []
    for expected in reference.values:
        subset, value = reference.subsets[expected.subset], expected.value
        of_method = table["method"] == expected.method
        clips = table[(table["metric"] == expected.metric) & of_method]
        if subset.only_prompts is not None:
            clips = clips[clips["prompt_id"].isin(subset.only_prompts)]
        clips = clips[~clips["prompt_id"].isin(subset.without_prompts)]
        if clips.empty:
            continue
        measured = float(clips["value"].mean())
        tolerance = reference.tolerance * (value if value > RELATIVE_ABOVE else 1)
        rows.append(
            {
                "subset": expected.subset,
                "metric": expected.metric,
                "method": expected.method,
                "measured": round(measured, 6),
                "reference": value,
                "difference": round(measured - value, 6),
                "tolerance": tolerance,
                "within": abs(measured - value) <= tolerance,
                "clips": len(clips),
            }
        )
    return rows


def write_comparison(store: Path, suite: Suite, out: Path) -> list[Path]:
    """Compare the scores in `store` with the suite's reference; write two files into `out`.

    Returns the files written: none when no clip in the store has a reference value.
    """
    if suite.reference is None:
        raise UserError(f"suite {suite.name} has no reference values to compare with")
    reference = read_json(suite.reference, Reference, "put the suite's own file back")
    with Store.reading(store) as opened:
        rows = compare(opened.table(suite.name), reference)
        provenance = opened.provenance()
    if not rows:
        return []
    result = {
        "title": reference.title,
        "suite": f"{suite.name} v{suite.version}",
        "reference_source": reference.source,
        "tolerance": reference.tolerance,
        "within_tolerance": sum(row["within"] for row in rows),
        "of": len(rows),
        "decoder": provenance["decoder"],
        "policy": sorted({get_family(get_metric(row["metric"]).family).policy for row in rows}),
        "rows": rows,
    }
    paths = [out / "comparison.json", out / "comparison.md"]
    write_json(paths[0], result)
    write_text(paths[1], _markdown(result))
    return paths


def _number(value: float, reference: float) -> str:
    return f"{value:.1f}" if abs(reference) > RELATIVE_ABOVE else f"{value:.3f}"


def _markdown(result: dict[str, Any]) -> str:
    suite_name = result["suite"].split()[0]
    lines = [
        f"# {result['title']}",
        "",
        f"Suite {result['suite']}, frames {', '.join(result['policy'])}, decoder "
        f"{', '.join(result['decoder'])}. {result['within_tolerance']} of {result['of']} values "
        "lie within the tolerance.",
        "",
        f"Reference: {result['reference_source']}.",
        "",
        f"Tolerance: {result['tolerance']}, of the value itself where that is above "
        f"{RELATIVE_ABOVE:g}. Made by `dfdbench eval MANIFEST --suite {suite_name} --out DIR`.",
        "",
    ]
    head = ("clips", "metric", "method", "measured", "reference", "difference", "within")
    rows = [
        (
            f"{row['subset']} ({row['clips']})", row["metric"], row["method"],
            _number(row["measured"], row["reference"]), _number(row["reference"], row["reference"]),
            f"{row['difference']:+.4f}", "yes" if row["within"] else "NO",
        )
        for row in result["rows"]
    ]  # fmt: skip
    return "\n".join(lines) + "\n" + markdown(of_texts(head, rows))
