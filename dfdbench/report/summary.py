"""From cells to numbers: an interval per arm and metric, and paired differences between arms.

The statistics are those of statistics.py; this file decides what is compared with what. `recompute`
does all of it from the cells alone, so that a page and its cells.csv cannot differ. Used by page.py
(summary.json, deltas.json), tables.py and figures.py.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, ordered, reference_arm
from dfdbench.report.collect import Collected
from dfdbench.report.pairs import usual_pairs
from dfdbench.report.primary import in_order, primaries
from dfdbench.report.sets import RowSet, counts_of, row_sets, same_counts
from dfdbench.report.statistics import (
    NO_TRAINING_SEED,
    Difference,
    Interval,
    complete,
    difference_of,
    holm,
    interval_of,
    paired_table,
    table_of,
    unpaired_difference,
)
from dfdbench.utils.errors import UserError, unknown_name

Summary = dict[str, dict[str, Interval]]
"""arm → metric → Interval."""
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Delta:
    """Difference `a` − `b` of one metric, with the fields of statistics.Difference.

    primary: which of the three primaries the metric is, None for one that is not tested; only
    primaries have p, p_holm and p_sign, NaN where too few seeds allow none. p_holm: p corrected for
    the primaries of this comparison. gain_towards_reference: |b − r| minus |a − r| of the means
    over their common prompts, r the reference arm; positive where a is closer; None without a
    reference or a common prompt. clips_a, clips_b: clips behind it, those that have a value.
    paired: over the prompts of both arms; False where they have none in common.
    alike: False for values over a prompt's clips, of which the two arms have other numbers.
    """

    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    median: float
    seeds: int
    prompts: int
    clips_a: int
    clips_b: int
    by_seed: Mapping[int, float]
    primary: str | None = None
    p: float = math.nan
    p_holm: float = math.nan
    p_sign: float = math.nan
    gain_towards_reference: float | None = None
    paired: bool = True
    alike: bool = True


class Results(NamedTuple):
    """All numbers of a report. skipped: a line for each that its cells do not allow."""

    rows: dict[str, RowSet]
    summary: Summary
    deltas: list[Delta]
    skipped: list[str]


def recompute(
    cells: pd.DataFrame, pairs: Pairs, references: Collection[str] = frozenset()
) -> Results:
    """Every number of a report from its cells (cells.read_cells).

    Args:
        pairs: arms to compare, first minus second.
        references: arms that are no students, beside real clips and teacher.
    """
    rows = row_sets(cells, frozenset(references))
    summary, lacking = summarise(cells, rows)
    deltas, skipped = compare(cells, pairs, references)
    return Results(rows, summary, deltas, [*lacking, *skipped])


def within_range(metric: str, interval: Interval) -> Interval:
    """The interval cut to the values that the metric can take: no share below 0."""
    low, high = all_metrics()[metric].range
    return interval._replace(low=max(interval.low, low), high=min(interval.high, high))


def summarise(cells: pd.DataFrame, rows: Mapping[str, RowSet]) -> tuple[Summary, list[str]]:
    """Mean and interval of every metric in every arm, and a line for each that has none.

    An arm whose training seeds have no prompt in common that all of them have a value of is
    missing: means over other prompts would be of other things.
    """
    summary: Summary = {arm: {} for arm in ordered(cells["arm"])}
    lacking = []
    for metric in in_order(rows.keys()):
        for arm, own in rows[metric].cells.groupby("arm"):
            table = table_of(own)
            interval = interval_of(table, clips_behind(own, complete(table)))
            if interval:
                summary[str(arm)][metric] = within_range(metric, interval)
            else:
                lacking.append(
                    f"{arm}, {metric}: no prompt has a value of each of its {table.shape[1]} "
                    "training seeds"
                )
    return summary, lacking


def clips_behind(cells: pd.DataFrame, table_PS: pd.DataFrame | None) -> int:
    """The clips of an arm that count in a table, of an arm without training seeds all; None: all
    its clips."""
    if table_PS is None:
        return int(cells["n"].sum())
    seeds = {*table_PS.columns, NO_TRAINING_SEED}
    counted = cells["prompt"].isin(table_PS.index)
    if seeds != {NO_TRAINING_SEED}:  # else the training seeds were averaged
        counted &= cells["training_seed"].isin(seeds)
    return int(cells.loc[counted, "n"].sum())


def pairs_of(collected: Collected, against: Pairs = ()) -> list[tuple[str, str]]:
    """The comparisons of a report: those of `usual_pairs`, then `against`.

    Raises:
        UserError: `against` names an arm that is not there.
    """
    for arm in chain.from_iterable(against):
        if arm not in collected.arms:
            raise unknown_name("arm", arm, collected.arms)
    return list(dict.fromkeys((*usual_pairs(collected.arms, collected.runs), *against)))


def compare(
    cells: pd.DataFrame, pairs: Pairs, references: Collection[str] = frozenset()
) -> tuple[list[Delta], list[str]]:
    """Differences for each pair (first minus second), and a line for each that cannot be.

    Paired over prompts and training seeds; of arms without a common prompt, as with a folder of
    other clips, only the means are compared. Holm's correction is over the primaries that a
    comparison tests.
    """
    own = {(str(a), str(m)): rows for (a, m), rows in cells.groupby(["arm", "metric"])}
    metrics, counts = in_order(set(cells["metric"])), counts_of(cells)
    primary, reference = primaries(metrics), reference_arm(ordered(cells["arm"]), references)
    deltas, skipped = list[Delta](), list[str]()
    for a, b in dict.fromkeys(pairs):
        untrained = any(is_reference(arm, references) for arm in (a, b))
        found = list[tuple[Delta, Difference]]()
        for metric in (m for m in metrics if (a, m) in own and (b, m) in own):
            left, right = (table_of(own[arm, metric]) for arm in (a, b))
            paired = not left.index.intersection(right.index).empty
            try:
                table = paired_table(left, right, untrained) if paired else None
                difference = (
                    unpaired_difference(left, right) if table is None else difference_of(table)
                )
            except UserError as error:  # other training seeds: the other metrics still count
                skipped.append(f"{a} - {b}, {metric}: {error}")
                continue
            clips_a, clips_b = (clips_behind(own[arm, metric], table) for arm in (a, b))
            gain = None
            if reference and reference not in (a, b) and (reference, metric) in own:
                gain = _gain(left, right, table_of(own[reference, metric]))
            fields = difference._asdict()
            del fields["p"], fields["p_sign"]
            delta = Delta(
                a, b, metric, **fields, clips_a=clips_a, clips_b=clips_b,
                primary=primary.get(metric), gain_towards_reference=gain, paired=paired,
                alike=same_counts(counts, metric, a, b),
            )  # fmt: skip
            found.append((delta, difference))
        deltas += _tested(found)
    return deltas, skipped


def _tested(found: Sequence[tuple[Delta, Difference]]) -> list[Delta]:
    """The differences of one comparison, its primaries with their p."""
    allowed = [d.primary and d.alike and math.isfinite(test.p) for d, test in found]
    corrected = iter(holm([test.p for (_, test), may in zip(found, allowed, strict=True) if may]))
    return [
        replace(delta, p=test.p, p_holm=next(corrected), p_sign=test.p_sign) if may else delta
        for (delta, test), may in zip(found, allowed, strict=True)
    ]


def _gain(*tables: pd.DataFrame) -> float | None:
    """|b − r| − |a − r| of the means of (a, b, r) over the prompts that all of them have."""
    by_prompt = [complete(table).mean(axis=1) for table in tables]
    a, b, r = pd.concat(by_prompt, axis=1, join="inner").mean()
    return None if math.isnan(r) else float(abs(b - r) - abs(a - r))


COST = ("student_updates", "student_updates_total", "wall_seconds", "wall_seconds_total")
"""Of a run itself, and with those of the run that it started from."""


def training_cost(collected: Collected) -> dict[str, dict[str, float]]:
    """Per trained arm: the mean over its runs of each of COST."""
    cost: dict[str, dict[str, float]] = {}
    for arm in collected.arms:
        trained = [
            r for r in collected.runs if r.arm == arm and r.training_seed != NO_TRAINING_SEED
        ]
        for key in COST:
            known = [run.info[key] for run in trained if key in run.info]
            if known:
                cost.setdefault(arm, {})[key] = sum(known) / len(known)
    return cost


def summary_json(summary: Summary, cost: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """summary.json: arm → metric → the fields of Interval; beside the metrics stand, as plain
    numbers, the COST and the training seeds of each arm."""
    result: dict[str, Any] = {}
    for arm, metrics in summary.items():
        seeds = {seed for interval in metrics.values() for seed in interval.by_seed}
        result[arm] = {metric: _plain(i._asdict()) for metric, i in metrics.items()}
        result[arm].update(cost.get(arm, {}))
        result[arm]["training_seeds"] = sorted(seeds - {NO_TRAINING_SEED})
    return result


def deltas_json(deltas: Sequence[Delta]) -> dict[str, dict[str, Any]]:
    """deltas.json: "a - b" → metric → the fields of Delta but a, b and metric."""
    result: dict[str, dict[str, Any]] = {}
    for delta in deltas:
        hidden = ("a", "b", "metric", *(["alike"] if delta.alike else []))
        row = _plain({k: v for k, v in asdict(delta).items() if k not in hidden})
        result.setdefault(f"{delta.a} - {delta.b}", {})[delta.metric] = row
    return result


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: no NaN (null is what cannot be computed), no key that is a number."""
    return {
        key: {str(seed): part for seed, part in value.items() if seed != NO_TRAINING_SEED}
        if isinstance(value, Mapping)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in fields.items()
    }
