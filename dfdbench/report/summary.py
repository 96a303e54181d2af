"""From scores to numbers: an interval per arm and metric, and paired differences between arms.

The statistics are those of statistics.py; this file decides what is compared with what. Used by
page.py (summary.json, deltas.json) and tables.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import reference_arm
from dfdbench.report.collect import NO_TRAINING_SEED, Collected
from dfdbench.report.pairs import usual_pairs
from dfdbench.report.sets import RowSet, clips_of, row_sets, same_clips
from dfdbench.report.statistics import (
    Interval,
    crossed_interval,
    holm,
    paired_difference,
    unpaired_difference,
)
from dfdbench.utils.errors import UserError, unknown_name

Summary = dict[str, dict[str, Interval]]
"""arm → metric → Interval."""


@dataclass(frozen=True)
class Delta:
    """Difference `a` − `b` of one metric, with the fields of statistics.Difference.

    p_holm: p corrected for all metrics of this comparison. gain_towards_reference: |b − r| minus
    |a − r| of the means over their common prompts, r the reference arm; positive where a is closer;
    None without a reference or a common prompt.
    paired: over the prompts of both arms; False where they have none in common.
    alike: False for values over a prompt's clips, of which the two arms have other numbers.
    """

    a: str
    b: str
    metric: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    n: int
    effect: float
    gain_towards_reference: float | None
    bca_low: float = math.nan
    bca_high: float = math.nan
    paired: bool = True
    alike: bool = True


def reported_metrics(values: pd.DataFrame) -> list[str]:
    """The score metrics of `values`, in the registry's order."""
    present = set(values["metric"])
    return [m.name for m in all_metrics().values() if m.kind == "score" and m.name in present]


def scores_of(values: pd.DataFrame, arm: str, metric: str) -> pd.DataFrame:
    """The rows of one arm and metric, as dfdbench.report.statistics takes them."""
    chosen = values[(values["arm"] == arm) & (values["metric"] == metric)]
    return chosen.dropna(subset=["value"])


def within_range(metric: str, interval: Interval) -> Interval:
    """The interval cut to the values that the metric can take: no share below 0."""
    low, high = all_metrics()[metric].range
    return interval._replace(
        low=max(interval.low, low),
        high=min(interval.high, high),
        bca_low=max(interval.bca_low, low),
        bca_high=min(interval.bca_high, high),
    )


def summarise(collected: Collected, rows: Mapping[str, RowSet] | None = None) -> Summary:
    """Mean and 95 % interval of every reported metric in every arm; missing stays missing.

    rows: `row_sets` of `collected`, if they are there already.
    """
    rows = row_sets(collected) if rows is None else rows
    metrics = reported_metrics(collected.values)
    summary: Summary = {}
    for arm in collected.arms:
        frames = {m: scores_of(rows[m].values, arm, m) for m in metrics if m in rows}
        summary[arm] = {
            m: within_range(m, crossed_interval(f)) for m, f in frames.items() if len(f)
        }
    return summary


def compare(
    collected: Collected, summary: Summary, against: Sequence[tuple[str, str]] = ()
) -> list[Delta]:
    """Differences for each pair of `usual_pairs` and `against` (first minus second).

    Paired over prompts, of clips with the seeds that both have; unpaired where the two arms have no
    prompt in common, as with a folder of other clips. Holm's
    correction is over the metrics of one comparison.

    Raises:
        UserError: `against` names an arm that is not there.
    """
    for arm in chain.from_iterable(against):
        if arm not in collected.arms:
            raise unknown_name("arm", arm, collected.arms)
    deltas, clips = list[Delta](), clips_of(collected)
    reference = reference_arm(collected.arms, collected.references)
    usual = usual_pairs(collected.arms, collected.runs)
    for a, b in dict.fromkeys((*usual, *against)):
        rows, alike = [], _same_counts(collected, a, b)
        for metric in (m for m in summary.get(a, {}) if m in summary.get(b, {})):
            own = collected.values[collected.values["metric"] == metric]
            left, right = (scores_of(same_clips(own, clips, a, b), arm, metric) for arm in (a, b))
            paired = not set(left["prompt_id"]).isdisjoint(right["prompt_id"])
            try:
                difference = (paired_difference if paired else unpaired_difference)(left, right)
                rows.append((metric, difference, paired))
            except UserError as error:  # different prompts or training seeds: the rest still counts
                collected.skipped.append(f"{a} - {b}, {metric}: {error}")
        # One prompt allows no test, so it must not cost the others' p either.
        tested = [metric for metric, difference, _ in rows if difference.n > 1]
        corrected = holm([difference.p for _, difference, _ in rows if difference.n > 1])
        p_holm = dict(zip(tested, corrected, strict=True))
        for metric, d, paired in rows:
            gain = None
            if reference and reference not in (a, b):
                gain = _gain(collected.values, (a, b, reference), metric)
            fields = d._asdict() | {"gain_towards_reference": gain}
            fields |= {"p": d.p, "p_holm": p_holm[metric]} if d.n > 1 else UNTESTED
            of_clips = all_metrics()[metric].level == "video"
            deltas.append(Delta(a, b, metric, **fields, paired=paired, alike=alike or of_clips))
    return deltas


def _same_counts(collected: Collected, *arms: str) -> bool:
    """Whether the arms have as many clips of each prompt that all of them have."""
    if collected.clips.empty:
        return True
    counts = [
        own.groupby(["training_seed", "prompt_id"]).size().groupby("prompt_id").max()
        for arm in arms
        for own in (collected.clips[collected.clips["arm"] == arm],)
    ]
    both = pd.concat(counts, axis=1, join="inner")
    return bool((both.nunique(axis=1) == 1).all())


def _gain(values: pd.DataFrame, arms: Sequence[str], metric: str) -> float | None:
    """|b − r| − |a − r| of the means over the prompts that all of (a, b, r) have."""
    means = [
        scores_of(values, arm, metric).groupby("prompt_id")["value"].mean().rename(i)
        for i, arm in enumerate(arms)
    ]
    shared = pd.concat(means, axis=1, join="inner").mean()
    if shared.isna().any():
        return None
    return float(abs(shared[1] - shared[2]) - abs(shared[0] - shared[2]))


UNTESTED = {"p": math.nan, "p_holm": math.nan}

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


def summary_json(collected: Collected, summary: Summary) -> dict[str, Any]:
    """summary.json: arm → metric → the fields of Interval; beside the metrics stand, as plain
    numbers, the COST and the training seeds of each arm."""
    cost = training_cost(collected)
    result: dict[str, Any] = {}
    for arm, metrics in summary.items():
        seeds = sorted({run.training_seed for run in collected.runs if run.arm == arm})
        result[arm] = {metric: _plain(interval) for metric, interval in metrics.items()}
        result[arm].update(cost.get(arm, {}))
        result[arm]["training_seeds"] = [seed for seed in seeds if seed != NO_TRAINING_SEED]
    return result


def deltas_json(deltas: Sequence[Delta]) -> dict[str, dict[str, Any]]:
    """deltas.json: "a - b" → metric → the fields of Delta but a, b and metric."""
    result: dict[str, dict[str, Any]] = {}
    for delta in deltas:
        hidden = ("a", "b", "metric", *(["alike"] if delta.alike else []))
        row = {k: _finite(v) for k, v in asdict(delta).items() if k not in hidden}
        result.setdefault(f"{delta.a} - {delta.b}", {})[delta.metric] = row
    return result


def _plain(interval: Interval) -> dict[str, float | None]:
    return {key: _finite(value) for key, value in interval._asdict().items()}


def _finite(value: float | None) -> float | None:
    """JSON has no NaN: what cannot be computed (an interval of one prompt) is null."""
    return value if value is not None and math.isfinite(value) else None
