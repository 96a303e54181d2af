"""Intervals and tests over training seeds. Used by report and leaderboards.

A method is what its training makes, so the training seed is the unit and the prompts are fixed: of
each training seed the mean over the same prompts counts, once. From three training seeds on a mean
has a 95 % interval by Student's t, and a paired difference a t test (Student 1908) with the exact
sign test beside it. The t interval assumes that seeds scatter about normally; where some runs
collapse it covers too little (tests/report/test_design.py), so medians and single seeds are shown
too.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dfdbench.utils.errors import UserError

LEVEL, ALPHA = 0.95, 0.05
FEWEST_SEEDS = 3
"""Training seeds from which on there is an interval."""
NO_TRAINING_SEED = -1
"""Stands for the missing training seed of the teacher, of real clips and of plain folders."""
POOLED = ""
"""The prompt of a value that is pooled over prompts."""
NAN = float("nan")
ROUNDING = 1e-12
"""Relative; values that differ by less are the same."""


class Interval(NamedTuple):
    """An arm's mean and median over training seeds of the mean over prompts.

    low, high: limits of the 95 % t interval; NaN below FEWEST_SEEDS. seeds: training seeds, 0 of
    an arm without. prompts: those that every seed has, 0 of a pooled value. clips: behind the
    value, those that have one. by_seed: training seed → its mean over the prompts.
    """

    mean: float
    low: float
    high: float
    median: float
    seeds: int
    prompts: int
    clips: int
    by_seed: Mapping[int, float]


NUMBERS = Interval._fields[:7]
"""The fields of an Interval that tables have; by_seed is no number."""


class Difference(NamedTuple):
    """Mean and median over training seeds of a − b, its 95 % t interval, and p-values.

    p: paired t test; p_sign: exact sign test; both two-sided, NaN where n allows none (`t_test`,
    `sign_test`). seeds: the paired training seeds, 0 where neither arm has one. prompts: those that
    both arms have at every paired seed. by_seed: training seed → difference.
    """

    mean: float
    low: float
    high: float
    median: float
    p: float
    p_sign: float
    seeds: int
    prompts: int
    by_seed: Mapping[int, float]


class Test(NamedTuple):
    """Limits of a 95 % interval and a two-sided p."""

    low: float
    high: float
    p: float


def t_test(values_S: np.ndarray) -> Test:
    """Student's t interval of the mean of `values_S` (training seeds,) and p that it is 0.

    All NaN below FEWEST_SEEDS. Without any spread the interval has no width, and p is 1 at 0 and 0
    elsewhere, the limits of the formula.
    """
    values = np.asarray(values_S, float)
    if len(values) < FEWEST_SEEDS:
        return Test(NAN, NAN, NAN)
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        mean = float(values.mean())
        return Test(mean, mean, float(mean == 0))
    result = stats.ttest_1samp(values, 0.0)
    low, high = result.confidence_interval(LEVEL)
    return Test(float(low), float(high), float(result.pvalue))


def sign_test(values_S: np.ndarray) -> float:
    """Exact two-sided p that the median of `values_S` is 0, by the signs; zeros do not count.

    NaN where even n equal signs have p = 2 / 2ⁿ above ALPHA: below 6 of them.
    """
    above, below = int((values_S > 0).sum()), int((values_S < 0).sum())
    if 2 * 0.5 ** (above + below) > ALPHA:
        return NAN
    return float(stats.binomtest(above, above + below).pvalue)


def table_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells of one metric and arm as a row a prompt, a column a training seed, NaN where none is.

    cells: columns prompt, training_seed (NO_TRAINING_SEED where none), value.
    """
    return cells.pivot(index="prompt", columns="training_seed", values="value")


def complete(table_PS: pd.DataFrame) -> pd.DataFrame:
    """The table without seeds that have no value, then without prompts that lack a seed."""
    return table_PS.dropna(axis=1, how="all").dropna(axis=0)


def interval_of(table_PS: pd.DataFrame, clips: int = 0) -> Interval | None:
    """Mean over training seeds with its interval; None where no prompt has a value of every seed.

    Args:
        table_PS: as `table_of` gives it.
        clips: number of clips behind it.
    """
    whole = complete(table_PS)
    if whole.empty:
        return None
    by_seed = whole.mean(axis=0)
    low, high, _ = t_test(by_seed.to_numpy())
    return Interval(
        float(by_seed.mean()), low, high, float(by_seed.median()), _seeds(by_seed),
        _prompts(whole), clips, _plain(by_seed),
    )  # fmt: skip


def paired_table(left: pd.DataFrame, right: pd.DataFrame, untrained: bool = False) -> pd.DataFrame:
    """left − right, a row a prompt that both have, a column a training seed that both have.

    An arm without training seeds is paired with every one of the other arm if it is `untrained`
    (teacher, real clips); else it is one training of unknown seed, and the other arm's seeds are
    averaged to one column.

    Raises:
        UserError: no training seed or no prompt with values in common.
    """
    seeds = left.columns.intersection(right.columns)
    if len(seeds):
        left, right = left[seeds], right[seeds]
    elif not any(list(t.columns) == [NO_TRAINING_SEED] for t in (left, right)):
        raise UserError(
            f"nothing to pair: training seeds {list(left.columns)} against {list(right.columns)}; "
            "train both arms with the same seeds"
        )
    elif untrained:
        seeds = max(left.columns, right.columns, key=lambda columns: columns[0])
        left, right = (
            table if table.columns[0] != NO_TRAINING_SEED
            else pd.DataFrame({seed: table[NO_TRAINING_SEED] for seed in seeds})
            for table in (left, right)
        )  # fmt: skip
    else:
        left, right = (
            complete(table).mean(axis=1).to_frame(NO_TRAINING_SEED) for table in (left, right)
        )
    prompts = left.index.intersection(right.index)
    whole = complete(left.loc[prompts] - right.loc[prompts])
    if whole.empty:
        raise UserError(
            "nothing to pair: no prompt has a value in both arms at every common training seed"
        )
    return whole


def difference_of(table_PS: pd.DataFrame) -> Difference:
    """The difference of two arms from what `paired_table` gives."""
    by_seed = table_PS.mean(axis=0)
    values = by_seed.to_numpy()
    low, high, p = t_test(values)
    return Difference(
        float(values.mean()), low, high, float(np.median(values)), p, sign_test(values),
        _seeds(by_seed), _prompts(table_PS), _plain(by_seed),
    )  # fmt: skip


def unpaired_difference(left: pd.DataFrame, right: pd.DataFrame) -> Difference:
    """Difference of the means of arms without a common prompt: no interval and no test.

    What prompts differ in does not cancel there, and training seeds do not show it.

    Raises:
        UserError: an arm in which no prompt has a value of every training seed.
    """
    means = [complete(table).to_numpy() for table in (left, right)]
    if not all(table.size for table in means):
        raise UserError("nothing to compare: no prompt has a value of every training seed")
    mean = float(means[0].mean() - means[1].mean())
    return Difference(mean, NAN, NAN, mean, NAN, NAN, 0, min(map(len, means)), {})


def _prompts(table_PS: pd.DataFrame) -> int:
    return int((table_PS.index != POOLED).sum())


def _seeds(by_seed: pd.Series) -> int:
    return int((by_seed.index != NO_TRAINING_SEED).sum())


def _plain(by_seed: pd.Series) -> dict[int, float]:
    return dict(zip(map(int, by_seed.index), map(float, by_seed), strict=True))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the given order (Holm 1979): step-down, at most 1."""
    p = np.array(pvalues, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
