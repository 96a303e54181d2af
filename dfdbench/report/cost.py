"""What students reach beside what they cost: equal updates, equal network passes, and the front.

Reads a report of a study such as toy/methods; used by benchmarks/methods_tables.py.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dfdbench.report.arms import looks
from dfdbench.report.digits import number
from dfdbench.report.earlier import Earlier, read_report
from dfdbench.report.figures import new_figure, styled
from dfdbench.report.primary import headline, primaries
from dfdbench.report.sets import row_sets
from dfdbench.report.statistics import NO_TRAINING_SEED, Interval
from dfdbench.report.summary import Summary, summarise
from dfdbench.report.tables import cell, with_arrow
from dfdbench.utils.errors import UserError
from dfdbench.utils.table import Cell, Table

TOLERANCE = 0.05  # of passes, within which two arms cost the same
LABEL = 7.0  # points


class Cost(NamedTuple):
    """Of an arm with all that it started from: student updates, forward passes of the network for
    each clip of a batch (`plan.update_passes`), and seconds of training, means over its runs."""

    updates: float
    passes: float
    seconds: float


def costs(report: Earlier) -> dict[str, Cost]:
    """Arm → cost, of the trained arms of a report.

    Raises:
        UserError: a run started from another that the report does not hold.
    """
    by_id = {info["id"]: info for info in report.runs.values() if info.get("recipe")}
    per_update: dict[str, float] = {}
    of_arm: dict[str, list[Cost]] = {}
    for info in by_id.values():
        chain = [info]
        while parent := chain[-1].get("parent"):
            if parent["id"] not in by_id:
                raise UserError(
                    f"{report.path}: {info['id']} started from {parent['id']}, which is not in the "
                    "report, so its cost is unknown; report both"
                )
            chain.append(by_id[parent["id"]])
        passes = sum(one["student_updates"] * _update_passes(one, per_update) for one in chain)
        total = info["student_updates_total"], passes, info["wall_seconds_total"]
        of_arm.setdefault(str(info["arm"]), []).append(Cost(*map(float, total)))
    return {arm: Cost(*np.mean(runs, axis=0).tolist()) for arm, runs in of_arm.items()}


def _update_passes(info: Mapping[str, Any], known: dict[str, float]) -> float:
    from dfdbench.distill.plan import setup_for, update_passes
    from dfdbench.distill.recipe import recipe_from_dict

    digest = str(info["recipe_digest"])
    if digest not in known:
        known[digest] = update_passes(setup_for(recipe_from_dict(dict(info["recipe"])))[1])
    return known[digest]


def summary_of(report: Earlier) -> Summary:
    """The means and intervals of a report, from its cells."""
    return summarise(report.cells, row_sets(report.cells))[0]


def cost_table(
    title: str, arms: Sequence[str], spent: Mapping[str, Cost], summary: Summary
) -> Table:
    """A row an arm: its cost, and its headline metrics with intervals."""
    metrics = headline({metric for arm in arms for metric in summary[arm]})
    head = ["arm", "updates", "passes", "seconds an update", *map(with_arrow, metrics), "n"]
    rows = []
    for arm in arms:
        cost, own = spent[arm], summary[arm]
        seeds = max((interval.seeds for interval in own.values()), default=0)
        texts = (
            arm, f"{cost.updates:.0f}", f"{cost.passes:.0f}", number(cost.seconds / cost.updates)
        )  # fmt: skip
        rows.append([*map(Cell, texts), *(cell(own.get(m)) for m in metrics), Cell(str(seeds))])
    return Table(head, rows, title)


def tables(path: Path, against: str) -> list[Table]:
    """Two tables of a report's arms: those of as many updates as `against`, and those of as many
    passes, within TOLERANCE.

    Raises:
        UserError: no such trained arm, or what `costs` raises.
    """
    report = read_report(path)
    spent, summary = costs(report), summary_of(report)
    if against not in spent:
        raise UserError(f"{path}: has no trained arm {against}; it has {', '.join(sorted(spent))}")
    goal = spent[against]
    arms = [arm for arm in summary if arm in spent]
    updates = [arm for arm in arms if spent[arm].updates == goal.updates]
    passes = [arm for arm in arms if abs(spent[arm].passes / goal.passes - 1) <= TOLERANCE]
    return [
        cost_table(f"{goal.updates:.0f} student updates", updates, spent, summary),
        cost_table(f"about {goal.passes:.0f} passes", passes, spent, summary),
    ]


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names whose point no other point reaches in both numbers and exceeds in one, by the first
    number. More is better in both."""
    best = [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: points[name])


@styled
def pareto(path: Path, arms: Collection[str] = ()) -> Figure:
    """Diversity against yield, and diversity against cost: each student's seeds, mean and front.

    Args:
        arms: those to show; all trained arms if empty.

    Raises:
        UserError: the report has no metric of diversity or yield, or what `costs` raises.
    """
    report = read_report(path)
    spent, summary = costs(report), summary_of(report)
    named = {primary: metric for metric, primary in primaries(set(report.cells["metric"])).items()}
    if missing := {"diversity", "yield"} - set(named):
        raise UserError(f"{path}: has no metric of {' and '.join(sorted(missing))} to draw")
    high, wide = named["diversity"], named["yield"]
    chosen = [
        arm for arm in summary
        if arm in spent and (not arms or arm in arms) and {high, wide} <= set(summary[arm])
    ]  # fmt: skip
    means = {arm: (summary[arm][wide].mean, summary[arm][high].mean) for arm in chosen}
    costly = {arm: (-spent[arm].passes / 1000, summary[arm][high].mean) for arm in chosen}
    figure, axes = new_figure(10, 4.4, 1, 2)
    for axis, points, sign in zip(axes[0], (means, costly), (1, -1), strict=True):
        for arm, look in looks(chosen).items():
            x, y = points[arm][0] * sign, points[arm][1]
            own = summary[arm][high].by_seed
            across = _by_seed(summary[arm][wide], own) if sign == 1 else [x] * len(own)
            axis.plot(across, list(own.values()), ".", ms=3, color=look.colour, alpha=0.5)
            axis.plot(x, y, look.marker, ms=6, color=look.colour)
            axis.annotate(
                look.label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=LABEL
            )
        line = np.array([points[arm] for arm in front(points)])
        axis.plot(line[:, 0] * sign, line[:, 1], color="#888888", lw=0.8, zorder=0)
        if teacher := summary.get("teacher", {}).get(high):
            axis.axhline(teacher.mean, color="#888888", lw=0.8, ls=":")
        axis.set_ylabel(with_arrow(high))
    axes[0, 0].set_xlabel(with_arrow(wide))
    axes[0, 1].set_xlabel("thousand forward passes a clip of the batch, all stages ↓")
    seeds = sorted({summary[arm][high].seeds for arm in chosen})
    figure.set_label(
        f"{high} against {wide} (left) and against the cost of training (right). Signs are means, "
        "dots training seeds, the grey line joins students that no other one beats in both, the "
        f"dotted one is the teacher; training seeds an arm: {', '.join(map(str, seeds))}."
    )
    return figure


def _by_seed(interval: Interval, seeds: Collection[int]) -> list[float]:
    return [interval.by_seed.get(seed, np.nan) for seed in seeds if seed != NO_TRAINING_SEED]
