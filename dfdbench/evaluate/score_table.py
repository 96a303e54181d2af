"""The scores that `dfdbench eval` prints: means of the main metrics, with n, and what has none.

Used by engine.py. The mean is the report's: over each prompt's clips, then over prompts. Intervals
and differences are the report's too.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from dfdbench.evaluate.metrics import MetricFamily, get_metric
from dfdbench.evaluate.primaries import primaries
from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import clean
from dfdbench.utils.manifest import listed

MAIN = 2  # metrics of a family at each level
MOST_ROWS, MOST_METHODS, HEADLINE = 24, 5, 5
NEEDS = "each needs"


def main_metrics(families: Iterable[MetricFamily]) -> list[str]:
    """The first scores of every family: of clips, of prompts, of whole sets."""
    names = list[str]()
    for family in families:
        for level in ("video", "prompt", "pooled"):
            names += [m.name for m in family.at(level) if m.kind == "score"][:MAIN]
    return names[:MOST_ROWS]


def score_rows(store: Store, suite: str, families: Sequence[MetricFamily]) -> list[dict[str, Any]]:
    """One row a metric and method that has it: metric, method, mean, prompts and clips."""
    table, rows = store.table(suite), list[dict[str, Any]]()
    pooled = store.pooled(suite)
    for metric in main_metrics(families):
        for method, values in table[table["metric"] == metric].groupby("method"):
            by_prompt = values.groupby("prompt_id")["value"].mean()
            rows.append(_row(metric, method, by_prompt.mean(), len(by_prompt), values["n"].sum()))
        for method, values in pooled[pooled["metric"] == metric].groupby("method"):
            rows.append(_row(metric, method, values["value"].mean(), None, values["n"].sum()))
    return rows


def _row(metric: str, method: object, mean: Any, prompts: int | None, clips: Any) -> dict[str, Any]:
    numbers = {"mean": float(mean), "prompts": prompts, "clips": int(clips)}
    return {"metric": metric, "method": str(method)} | numbers


def headline(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of five metrics: those of the primaries, then the first of each other family."""
    present = list(dict.fromkeys(row["metric"] for row in rows))
    chosen = list(primaries(present))
    for spare in (False, True):  # a second one of a family only where there are too few
        for metric in present:
            families = {get_metric(name).family for name in chosen}
            if metric not in chosen and (spare or get_metric(metric).family not in families):
                chosen.append(metric)
    return [row for row in rows if row["metric"] in chosen[:HEADLINE]]


def in_short(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The headline rows as a table, and how many more there are."""
    kept = headline(rows)
    more = len({row["metric"] for row in rows}) - len({row["metric"] for row in kept})
    return as_lines(kept) + [f"and {more} more: eval --table, or dfdbench report"] * bool(more)


def as_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as a table for people: a column a method, "mean (n clips)" in each cell."""
    if not rows:
        return []
    methods = list(dict.fromkeys(sorted(row["method"] for row in rows)))
    kept = methods[:MOST_METHODS]
    cells = [["mean (n clips)", *(clean(method) for method in kept)]]
    for metric in dict.fromkeys(row["metric"] for row in rows):
        own = {row["method"]: row for row in rows if row["metric"] == metric}
        cells.append([metric])
        for method in kept:
            row = own.get(method)
            cells[-1].append(f"{row['mean']:.4g} ({row['clips']})" if row else "–")
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in cells
    ]
    if methods[MOST_METHODS:]:
        lines.append(f"{len(methods) - MOST_METHODS} more methods; dfdbench report shows them all")
    return lines


def without_groups(store: Store, suite: str, families: Sequence[MetricFamily]) -> list[str]:
    """A line for each method that lacks values over a prompt's clips for want of more of them."""
    table, lines = store.table(suite), list[str]()
    groups = table[table["level"] == "prompt"]
    for method, clips in store.samples(suite).groupby("method"):
        has = set(groups[groups["method"] == method]["metric"])
        counts: pd.Series[int] = clips.groupby("prompt_id").size()
        lines += [f"method {method} has {line}" for line in too_few(families, has, counts)]
    return lines


def too_few(
    families: Iterable[MetricFamily], has: Collection[str], counts: "pd.Series[int]"
) -> Iterator[str]:
    """What is not in `has` for want of clips, and why: a line for each number that families need.

    counts: clips of each prompt.
    """
    grouping = [family for family in families if family.group]
    for least in sorted({family.least for family in grouping}):
        names = [m.name for f in grouping if f.least == least for m in f.at("prompt")
                 if m.kind == "score" and m.name not in has]  # fmt: skip
        few = int((counts < least).sum())
        if names and few:
            yield (
                f"no {listed(names)}: {NEEDS} {least} clips of a prompt, and {few} of "
                f"{len(counts)} prompts have fewer"
            )
