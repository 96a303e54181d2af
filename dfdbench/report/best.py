"""Which student of a row is bold: the one that its paired intervals tell from every other.

Used by page.py and leaderboard/render.py. A student is best where, over the prompts (and training
seeds) that two of them share, its difference from each other student is in its favour and the 95 %
interval excludes 0; of values that should be near the reference, where the same holds for how much
nearer it is. Nobody is best among ties, nor among students that the data cannot tell apart.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, reference_arm
from dfdbench.report.sets import RowSet
from dfdbench.report.statistics import cells, interval_of_cells

Best = Mapping[str, str]
"""metric → the arm that is bold; none where no one is."""


def best_in(rows: Mapping[str, RowSet], references: Collection[str] = ()) -> Best:
    """The best student of each row that has one."""
    found = {
        metric: best_arm(row.values, all_metrics()[metric].direction, references)
        for metric, row in rows.items()
        if row.alike and metric in all_metrics()
    }
    return {metric: arm for metric, arm in found.items() if arm}


def best_arm(
    values: pd.DataFrame,
    direction: str,
    references: Collection[str] = (),
    aim: str | None = None,
) -> str | None:
    """The student that is better than every other beyond doubt, if there is one.

    Args:
        values: rows of one metric: arm, prompt_id, training_seed, value.
        references: arms that are no students, beside real clips and teacher.
        aim: the one that nearness is to; None: `reference_arm`.
    """
    frames = {str(arm): own for arm, own in values.groupby("arm")}
    aim = aim or reference_arm(list(frames), references)
    students = {a: frame for a, frame in frames.items() if not is_reference(a, references)}
    near = direction == "nearest_reference"
    if len(students) < 2 or (near and aim is None):
        return None
    goal = frames[aim] if near and aim else None
    for arm, frame in students.items():
        rivals = [other for name, other in students.items() if name != arm]
        if all(_beats(frame, rival, direction, goal) for rival in rivals):
            return arm
    return None


def _beats(a: pd.DataFrame, b: pd.DataFrame, direction: str, goal: pd.DataFrame | None) -> bool:
    """Whether `a` is better than `b` and the data tell them apart."""
    left, right = cells(a), cells(b)
    prompts = left.index.intersection(right.index)
    aim = None if goal is None else cells(goal).mean(axis=1)
    if aim is not None:
        prompts = prompts.intersection(aim.index)
    left, right = left.loc[prompts], right.loc[prompts]
    seeds = left.columns.intersection(right.columns)
    if len(seeds):
        left, right = left[seeds], right[seeds]
    elif 1 not in (left.shape[1], right.shape[1]):  # no training seed in common
        left, right = (frame.mean(axis=1).to_frame() for frame in (left, right))
    if not len(prompts):
        return False
    if aim is None:
        gain = left.to_numpy() - right.to_numpy()
        return _is_above_0(-gain if direction == "lower" else gain)
    # How much nearer a is, |b - r| - |a - r|, linear about the means.
    offs = [frame.to_numpy() - aim.loc[prompts].to_numpy()[:, None] for frame in (left, right)]
    off_a, off_b = (np.sign(np.nanmean(off)) * off for off in offs)
    apart = offs[0] - offs[1]
    apart = apart if np.nanmean(apart) > 0 else -apart
    return _is_above_0(off_b - off_a) and _is_above_0(apart)


def _is_above_0(table_PS: np.ndarray) -> bool:
    """Whether the 95 % interval of the mean of (prompts, training seeds) lies above 0."""
    table_PS = table_PS[np.isfinite(table_PS).any(1)]
    if not len(table_PS) or np.nanmean(table_PS) <= 0:
        return False
    return interval_of_cells(table_PS).low > 0
