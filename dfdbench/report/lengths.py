"""The figure of how students change as they are trained on: headline metrics against updates.

A study that trains in stages (each arm continuing the one before) shows whether a student has
settled, and how many updates a second method needs. Used by page.py.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dfdbench.report.collect import RunRecord
from dfdbench.report.figures import DOTS, drawn_looks, new_figure, styled
from dfdbench.report.primary import headline
from dfdbench.report.summary import Summary

FEWEST = 3  # lengths of training below which there is no curve
TOTAL = "student_updates_total"


def updates_of(runs: Sequence[RunRecord]) -> dict[str, float]:
    """Arm → mean over its runs of the student updates that it had, with those before its own."""
    of_arm: dict[str, list[float]] = {}
    for run in runs:
        if (total := run.info.get(TOTAL)) is not None:
            of_arm.setdefault(run.arm, []).append(float(total))
    return {arm: float(np.mean(totals)) for arm, totals in of_arm.items()}


def _parents(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Arm → the arm that it continues."""
    return {run.arm: run.parent for run in runs if run.parent}


def longest_line(runs: Sequence[RunRecord]) -> int:
    """Arms on the longest line from one that starts at the teacher through those that continue."""
    parents = _parents(runs)
    longest = 0
    for arm in {run.arm for run in runs}:
        line = [arm]
        while (parent := parents.get(line[-1])) and parent not in line:
            line.append(parent)
        longest = max(longest, len(line))
    return longest


def last_of(parents: Mapping[str, str], arms: Collection[str]) -> dict[str, str]:
    """Arm → the last arm of its line: on while exactly one arm continues, else itself.

    parents: arm → the arm that it continues.
    """
    following = {arm: [own for own in arms if parents.get(own) == arm] for arm in arms}
    found = {}
    for arm in arms:
        line = [arm]
        while len(next_ones := following[line[-1]]) == 1 and next_ones[0] not in line:
            line += next_ones
        found[arm] = line[-1]
    return found


@styled
def against_updates(
    summary: Summary, runs: Sequence[RunRecord], references: Collection[str] = ()
) -> Figure | None:
    """A panel a headline metric: each arm at its updates, a line from the arm it continues.

    None where no line has FEWEST arms. Arms without training are level lines. Arms of one line
    have one look, and one place in the legend, as long as they are of one method.
    """
    updates = updates_of(runs)
    panels = headline({metric for arm in updates for metric in summary.get(arm, {})})
    if longest_line(runs) < FEWEST or not panels:
        return None
    parents, method = _parents(runs), {run.arm: run.info.get("method") for run in runs}
    same = {arm: own for arm, own in parents.items() if method[arm] == method.get(own)}
    last = last_of(same, list(updates))
    drawn = [arm for arm in summary if last.get(arm, arm) == arm]
    look = drawn_looks({arm: summary[arm] for arm in drawn}, references)
    figure, axes = new_figure(3.4 * len(panels), 3.1, 1, len(panels))
    for axis, metric in zip(axes[0], panels, strict=True):
        for arm, metrics in summary.items():
            interval, style = metrics.get(metric), look[last.get(arm, arm)]
            if interval is None:
                continue
            if arm not in updates:
                axis.axhline(interval.mean, color=style.colour, lw=1, ls=":", label=style.label)
                continue
            x, seeds = updates[arm], list(interval.by_seed.values())
            axis.plot([x] * len(seeds), seeds, "o", ms=3.5, color=style.colour, alpha=0.5, mew=0)
            axis.plot(x, interval.median, "D", ms=5, mfc="none", mec="#222222", mew=0.8)
            label = style.label if last[arm] == arm else None
            axis.plot(x, interval.mean, style.marker, color=style.colour, ms=6, label=label)
            before = summary.get(parents.get(arm, ""), {}).get(metric)
            if before is not None and parents[arm] in updates:
                ends = [updates[parents[arm]], x], [before.mean, interval.mean]
                axis.plot(*ends, color=style.colour, lw=1.2)
        axis.set_xlabel("student updates")
        axis.set_title(metric, fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.set_label(
        f"Headline metrics against student updates: {DOTS}, filled signs their means, a line from "
        "the arm that each continues."
    )
    return figure
