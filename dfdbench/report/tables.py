"""The tables of a report: a row a metric, a column an arm, the best student of a row bold.

From summary.py's numbers to Table, which table.py writes in every format. Which student is bold
says best.py, which metrics come first primary.py. Used by page.py, paper.py and
leaderboard/render.py.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import looks, ordered
from dfdbench.report.best import Best
from dfdbench.report.digits import is_zero, number, signed
from dfdbench.report.primary import in_order
from dfdbench.report.sections import Section
from dfdbench.report.sets import of_size
from dfdbench.report.statistics import FEWEST_SEEDS, NO_TRAINING_SEED, NUMBERS, Interval
from dfdbench.report.summary import Delta, Summary
from dfdbench.utils.table import MISSING, Cell, Table, of_texts, to_csv

ARROWS = {"higher": "↑", "lower": "↓", "nearest_reference": "≈"}
N = "n"
"""Head of the row or column that says training seeds, prompts and clips."""
Size = tuple[int, int, int]
"""Training seeds, prompts, clips."""


def with_arrow(metric: str) -> str:
    """The metric's name and which way it is better: ↑, ↓ or ≈."""
    return f"{metric} {ARROWS[all_metrics()[metric].direction]}"


def cell(interval: Interval | None, best: bool = False, mark: str = "") -> Cell:
    """`mean [low, high], median (mark)`, or `mean (mark)` where too few training seeds allow no
    interval; an em dash where there is no value."""
    if interval is None:
        return MISSING
    mark = f"({mark})" if mark else ""
    if math.isnan(interval.low):
        return Cell(number(interval.mean), mark, best)
    size = max(abs(interval.low), abs(interval.high))
    mean, low, high, median = (number(x, size) for x in interval[:4])
    return Cell(mean, f"[{low}, {high}], median {median} {mark}".rstrip(), best)


def metric_rows(summary: Summary) -> list[str]:
    """The metrics that any arm has, in the order of tables."""
    return in_order({metric for metrics in summary.values() for metric in metrics})


def size_of(intervals: Mapping[str, Interval]) -> Size:
    """The training seeds, prompts and clips that an arm has; a metric may have fewer."""
    sizes = [(i.seeds, i.prompts, i.clips) for i in intervals.values()]
    seeds, prompts, clips = (max(part) for part in zip(*sizes, strict=True)) if sizes else (0, 0, 0)
    return seeds, prompts, clips


def fewer(interval: Interval | None, whole: Size) -> str:
    """What of a value's n is not that of its arm, such as `1290 clips`; else empty."""
    if interval is None:
        return ""
    own = (interval.seeds, interval.prompts, interval.clips)
    return of_size(*(n if n != of_arm else 0 for n, of_arm in zip(own, whole, strict=True)))


def main_table(
    summary: Summary,
    best: Best | None = None,
    references: Collection[str] = (),
    against: str | None = None,
) -> Table:
    """Mean, interval and median of every metric and arm; arms as in `summary`.

    The first row has the n of each arm; a cell of fewer training seeds, prompts or (whole) clips
    says its own.

    Args:
        best: metric → the arm that is bold.
        references: arms that are labelled so.
        against: the arm that pooled metrics are against.
    """
    best, labels = best or {}, looks([*summary, *([against] if against else [])], references)
    sizes = {arm: size_of(metrics) for arm, metrics in summary.items()}
    rows = [[Cell(N), *(Cell(of_size(*size)) for size in sizes.values())]]
    for metric in metric_rows(summary):
        pooled = all_metrics()[metric].level == "pooled"
        name = with_arrow(metric)
        name += f" (against {labels[against].label})" if pooled and against else ""
        cells = [
            cell(own, arm == best.get(metric), fewer(own, sizes[arm]))
            for arm, metrics in summary.items()
            for own in (metrics.get(metric),)
        ]
        rows.append([Cell(name), *cells])
    return Table(["metric", *(labels[arm].label for arm in summary)], rows)


def long_csv(summary: Summary, best: Best | None = None) -> str:
    """A row per arm and metric with full precision, for other programs."""
    head = ["arm", "metric", *NUMBERS, "best", "direction", "unit", "version"]
    rows = []
    for metric in metric_rows(summary):
        info = all_metrics()[metric]
        about = (info.direction, info.unit, info.version)
        rows += [
            (
                arm, metric, *numbers_of(metrics[metric]),
                int(arm == (best or {}).get(metric)), *about,
            )
            for arm, metrics in summary.items()
            if metric in metrics
        ]  # fmt: skip
    return to_csv(head, rows)


def numbers_of(interval: Interval) -> tuple[float | str, ...]:
    """NUMBERS of an interval; empty where it has no limits."""
    values = (getattr(interval, name) for name in NUMBERS)
    return tuple("" if math.isnan(x) else x for x in values)


def pooled_tables(frame: pd.DataFrame, references: Collection[str] = ()) -> list[Table]:
    """Values of whole sets of clips: a table per reference, a row a metric, a column an arm.

    Means over training seeds without interval, so none is bold. Where arms have other numbers of
    clips, on which such values depend, every cell says its own.

    frame: columns arm, training_seed, reference, metric, value and n (clips); one suite.
    """
    result = []
    for reference, rows in frame.groupby("reference", sort=True):
        arms = ordered(rows["arm"])
        labels = looks([*arms, str(reference)], references)
        counts = "; ".join(f"{labels[arm].label} {_size(rows, arm)}" for arm in arms)
        title = f"Pooled over prompts, against {labels[str(reference)].label}; n: {counts}."
        present = set(rows["metric"])
        body = [
            _pooled_row(rows[rows["metric"] == name], name, arms)
            for name in all_metrics()
            if name in present
        ]
        result.append(Table(["metric", *(labels[arm].label for arm in arms)], body, title))
    return result


def _size(rows: pd.DataFrame, arm: str) -> str:
    clips = rows[rows["arm"] == arm].groupby("training_seed")["n"].max()
    return of_size(len(set(clips.index) - {NO_TRAINING_SEED}), clips=int(clips.sum()))


def _pooled_row(rows: pd.DataFrame, metric: str, arms: Sequence[str]) -> list[Cell]:
    values, counts = rows.groupby("arm")["value"].mean(), rows.groupby("arm")["n"].max()
    unequal = counts.nunique() > 1
    cells = [
        Cell(number(values[arm]), f"({counts[arm]} clips)" if unequal else "")
        if arm in values
        else MISSING
        for arm in arms
    ]
    return [Cell(with_arrow(metric)), *cells]


DELTA_NOTE = (
    "Paired differences: of each training seed the mean over common prompts, then mean, 95 % t "
    "interval and median over training seeds. Tested are the primaries only, by paired t over "
    "training seeds, Holm-corrected over those of a comparison, with the exact sign test beside "
    "it; all else is description. “one seed” and “too few”: so many training seeds allow no "
    "interval, or no p below .05. “to reference” says whether the first arm's mean is closer to "
    "the reference's (the real clips', else the teacher's) than the second's; same where the "
    "figures shown do not differ. n: paired training seeds, common prompts, clips of each arm that "
    "have a value."
)
DELTA_HEAD = (
    "metric", "primary", "difference", "median", "p (t)", "p (Holm)", "p (sign)", "interval",
    "to reference", N,
)  # fmt: skip
FEW = "too few"


def delta_sections(deltas: Sequence[Delta], references: Collection[str] = ()) -> list[Section]:
    """A section per comparison, such as `DFD − DMD2 control`; DELTA_NOTE explains them."""
    labels = looks({arm for d in deltas for arm in (d.a, d.b)}, references)
    groups: dict[str, list[list[str]]] = {}
    for d in deltas:
        apart = "" if d.paired else " (their prompts differ)"
        title = f"{labels[d.a].label} − {labels[d.b].label}{apart}"
        groups.setdefault(title, []).append([d.metric, *delta_text(d)])
    return [Section(title, [of_texts(DELTA_HEAD, rows)], 3) for title, rows in groups.items()]


def delta_text(delta: Delta) -> list[str]:
    """What DELTA_HEAD names behind the metric, of one comparison."""
    known = not math.isnan(delta.low)
    size = max(abs(delta.low), abs(delta.high)) if known else delta.mean
    mean, low, high, median = (
        "" if math.isnan(x) else signed(x, size)
        for x in (delta.mean, delta.low, delta.high, delta.median)
    )
    clips = f"{delta.clips_a} / {delta.clips_b} clips"
    return [
        delta.primary or "",
        f"{mean} [{low}, {high}]" if known else mean,
        median,
        *_p_texts(delta),
        _verdict(delta, size),
        _towards(delta.gain_towards_reference, delta.mean, size),
        f"{of_size(delta.seeds, delta.prompts)}, {clips}".removeprefix(", "),
    ]


def _p_texts(delta: Delta) -> list[str]:
    """p of the t test, corrected, and of the sign test; empty for what is no primary."""
    if not delta.primary:
        return ["", "", ""]
    if math.isnan(delta.p):
        few = delta.paired and delta.alike and delta.seeds == FEWEST_SEEDS - 1
        return [FEW if few else "—"] * 3
    sign = FEW if math.isnan(delta.p_sign) else f"{delta.p_sign:.4f}"
    return [f"{delta.p:.4f}", f"{delta.p_holm:.4f}", sign]


def _towards(moved: float | None, mean: float, size: float) -> str:
    if moved is None:
        return "—"
    if any(is_zero(value, size) for value in (moved, mean)):
        return "same"
    return "closer" if moved > 0 else "farther"


def _verdict(delta: Delta, size: float) -> str:
    if not delta.paired:
        return "other prompts"
    if not delta.alike:
        return "other numbers of clips"
    if math.isnan(delta.low):
        return "one seed" if delta.seeds < FEWEST_SEEDS - 1 else FEW
    if is_zero(delta.mean, size):
        return "same"
    return "includes 0" if delta.low <= 0 <= delta.high else "excludes 0"
