"""Which student of a row is bold: the one that training seeds tell from the next best.

Used by page.py, vbench.py and leaderboard/render.py. Of the two best students of a row the first
is bold where the paired 95 % interval over training seeds of its lead excludes 0; of values that
should be near the reference, where the same holds for how much nearer it is. With fewer than three
training seeds in common nobody is bold, nor among ties, nor by a lead that shows as 0.
"""

from collections.abc import Collection, Mapping
from math import isnan

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, reference_arm
from dfdbench.report.digits import is_zero
from dfdbench.report.sets import RowSet
from dfdbench.report.statistics import complete, t_test, table_of

Best = Mapping[str, str]
"""metric → the arm that is bold; none where no one is."""


def best_in(rows: Mapping[str, RowSet], references: Collection[str] = ()) -> Best:
    """The best student of each row that has one."""
    found = {
        metric: best_arm(row.cells, all_metrics()[metric].direction, references)
        for metric, row in rows.items()
        if row.alike and metric in all_metrics()
    }
    return {metric: arm for metric, arm in found.items() if arm}


def best_arm(
    cells: pd.DataFrame,
    direction: str,
    references: Collection[str] = (),
    aim: str | None = None,
) -> str | None:
    """The student whose lead on the next best is beyond doubt, if there is one.

    Args:
        cells: of one metric: arm, prompt, training_seed, value.
        references: arms that are no students, beside real clips and teacher.
        aim: the one that nearness is to; None: `reference_arm`.
    """
    tables = {str(arm): table_of(own) for arm, own in cells.groupby("arm")}
    goal = None
    if direction == "nearest_reference":
        aim = aim or reference_arm(list(tables), references)
        if aim is None:
            return None
        goal = complete(tables[aim]).mean(axis=1)
    students = {arm: t for arm, t in tables.items() if not is_reference(arm, references)}
    means = {arm: float(badness(table, direction, goal).mean()) for arm, table in students.items()}
    ranked = sorted((arm for arm in students if not isnan(means[arm])), key=means.__getitem__)
    if len(ranked) < 2:
        return None
    first, second = (students[arm] for arm in ranked[:2])
    lead = lead_of(first, second, direction, goal)
    if t_test(lead.to_numpy()).low > 0 and not is_zero(
        float(lead.mean()), float(first.max().max())
    ):
        return ranked[0]
    return None


def lead_of(
    first: pd.DataFrame, second: pd.DataFrame, direction: str, goal: pd.Series | None = None
) -> pd.Series:
    """Of each common training seed by how much `first` is better than `second`, over the prompts
    that both have at every such seed; empty without a common seed or prompt.

    first, second: a row a prompt, a column a training seed. goal: as in `badness`.
    """
    first, second = (table.dropna(axis=1, how="all") for table in (first, second))
    shared = first.index.intersection(second.index), first.columns.intersection(second.columns)
    both = pd.concat([table.loc[shared] for table in (first, second)], axis=1).dropna()
    if both.empty:
        return pd.Series(dtype=float)
    apart = len(shared[1])
    worse, better = (
        badness(part, direction, goal) for part in (both.iloc[:, apart:], both.iloc[:, :apart])
    )
    return worse - better


def badness(table_PS: pd.DataFrame, direction: str, goal: pd.Series | None) -> pd.Series:
    """Of each training seed the mean over prompts, turned so that less is better.

    goal: what values of each prompt should be near; then the distance of the means.
    """
    whole = complete(table_PS)
    if goal is not None:
        whole = whole.loc[whole.index.intersection(goal.index)]
        return whole.sub(goal.loc[whole.index], axis=0).mean(axis=0).abs()
    by_seed = whole.mean(axis=0)
    return by_seed if direction == "lower" else -by_seed
