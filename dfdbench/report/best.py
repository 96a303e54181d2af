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
from dfdbench.report.statistics import (
    cells,
    interval_of_cells,
    paired_difference,
    unpaired_difference,
)
from dfdbench.utils.errors import UserError

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
    if set(a["prompt_id"]).isdisjoint(b["prompt_id"]):
        return False
    try:
        if goal is not None and not _is_nearer(a, b, goal):
            return False
        difference = paired_difference(a, b)
    except UserError:  # no training seed in common
        try:
            difference = unpaired_difference(a, b)
        except UserError:
            return False
    if goal is not None:
        return difference.low > 0 or difference.high < 0
    return difference.high < 0 if direction == "lower" else difference.low > 0


def _is_nearer(a: pd.DataFrame, b: pd.DataFrame, goal: pd.DataFrame) -> bool:
    """Whether the interval of |b − r| − |a − r|, r the mean of `goal`, lies above 0.

    Over the prompts of all three; linear about the means, whose signs are taken as they are.
    """
    left, right, aim = cells(a), cells(b), cells(goal).mean(axis=1)
    prompts = left.index.intersection(right.index).intersection(aim.index)
    seeds = left.columns.intersection(right.columns)
    if not len(prompts):
        return False
    left, right, aim = left.loc[prompts], right.loc[prompts], aim.loc[prompts]
    if len(seeds):
        left, right = left[seeds], right[seeds]
    elif 1 not in (left.shape[1], right.shape[1]):
        left, right = (frame.mean(axis=1).to_frame() for frame in (left, right))
    off_a, off_b = (frame.to_numpy() - aim.to_numpy()[:, None] for frame in (left, right))
    signs = (float(np.sign(np.nanmean(off))) for off in (off_a, off_b))
    sign_a, sign_b = signs
    gain = sign_b * off_b - sign_a * off_a
    gain = gain[np.isfinite(gain).any(1)]
    return bool(len(gain)) and interval_of_cells(gain).low > 0
