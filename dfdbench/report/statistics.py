"""Intervals and tests over prompts and training seeds. Used by report, leaderboard and check.

The prompt is the unit, and training seeds are crossed with prompts: every seed's student sees
every prompt. Clips of one (prompt, training seed) are averaged first, so that 16 clips of one
prompt do not pass for 16 prompts.

Every mean has two 95 % intervals from the same bootstrap: percentile (low, high), which reports
show, and BCa (bca_low, bca_high; Efron 1987), which also corrects bias and skewness and is written
beside it. Both are widened alike to what few training seeds and few prompts call for.
"""

from collections.abc import Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dfdbench.utils.errors import UserError

RESAMPLES = 10_000
EXACT_UP_TO = 16  # prompts; 2^16 sign patterns are listed, above that they are drawn
SEED = 0


class Interval(NamedTuple):
    """A mean with its 95 % intervals, percentile and BCa; n prompts. The limits are NaN where n is
    1."""

    mean: float
    low: float
    high: float
    n: int
    bca_low: float = float("nan")
    bca_high: float = float("nan")


class Difference(NamedTuple):
    """Mean of a minus mean of b, its 95 % intervals (as in Interval), p-value and effect size.

    n: the paired prompts; of an unpaired difference, the prompts of the arm that has fewer.
    p: two-sided permutation, of signs over paired prompts, else of labels over all prompts (1.0
    where nothing differs). effect: Cohen's d, the mean over the standard deviation of the prompts'
    differences (d_z), unpaired over the pooled one of the prompts; NaN where that does not exist or
    is 0.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    effect: float
    bca_low: float = float("nan")
    bca_high: float = float("nan")


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The clusters that every interval is over: mean of `value` per prompt and training seed.

    frame: columns prompt_id, value and, optionally, training_seed (missing counts as one seed).

    Returns a row a prompt, a column a training seed, NaN where there is none.
    """
    for column in ("prompt_id", "value"):
        if column not in frame:
            raise UserError(f"statistics need a column '{column}'; found {list(frame.columns)}")
    seeds = frame["training_seed"] if "training_seed" in frame else pd.Series(-1, frame.index)
    # Arms that are not trained (teacher, real) have no training seed: one column for all.
    rows = pd.DataFrame(
        {
            "prompt_id": frame["prompt_id"].astype(str),
            "training_seed": pd.to_numeric(seeds).fillna(-1).astype(int),
            "value": pd.to_numeric(frame["value"]).astype(float),
        }
    ).dropna(subset=["value"])
    return rows.pivot_table(index="prompt_id", columns="training_seed", values="value")


def crossed_interval(
    frame: pd.DataFrame, resamples: int = RESAMPLES, level: float = 0.95, seed: int = SEED
) -> Interval:
    """Mean over prompts and training seeds with a crossed bootstrap interval.

    frame: columns prompt_id, value and, optionally, training_seed; any number of clips a cell.

    Raises:
        UserError: no finite value in `frame`.
    """
    return interval_of_cells(cells(frame).to_numpy(), resamples, level, seed)


def interval_of_cells(
    values_PS: np.ndarray, resamples: int = RESAMPLES, level: float = 0.95, seed: int = SEED
) -> Interval:
    """Crossed bootstrap (Owen 2007) of the mean of a (prompts, training seeds) table.

    Prompts and training seeds are resampled independently. The distances of percentiles (and of
    BCa's) from the mean are then scaled to the spread that an analysis of variance finds and to
    Student's t with its degrees of freedom. Plain percentiles are too narrow for few seeds (three
    values never reach beyond their range) and too wide where noise within cells dominates (it is
    resampled twice); for one seed and many prompts the factor tends to 1 and they come out
    unchanged.

    Raises:
        UserError: no finite value in `values_PS`.
    """
    mean = _mean(values_PS)
    prompts = len(values_PS)
    if prompts == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    draws = _draws(values_PS, resamples, np.random.default_rng(seed))
    influence = [_influence(values_PS)]
    low, high, bca_low, bca_high = _limits(mean, draws, influence, [values_PS], level)
    return Interval(mean, low, high, prompts, bca_low, bca_high)


def _mean(values_PS: np.ndarray) -> float:
    """Mean over the cells that there are."""
    there = np.isfinite(values_PS)
    if not there.any():
        raise UserError("no finite value to average; score the videos first")
    return float(np.where(there, values_PS, 0.0).sum() / there.sum())


def _draws(values_PS: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of tables whose prompts and training seeds are resampled independently."""
    prompts, seeds = values_PS.shape
    there = np.isfinite(values_PS)
    weights_p = rng.multinomial(prompts, np.full(prompts, 1 / prompts), resamples).astype(float)
    weights_s = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(float)
    total = ((weights_p @ np.where(there, values_PS, 0.0)) * weights_s).sum(1)
    count = ((weights_p @ there) * weights_s).sum(1)
    return total[count > 0] / count[count > 0]


def _influence(values_PS: np.ndarray) -> np.ndarray:
    """Jackknife over prompts: by how much the mean exceeds the mean without each, times P − 1."""
    there = np.isfinite(values_PS)
    sums, counts = np.where(there, values_PS, 0.0).sum(1), there.sum(1)
    rest = (sums.sum() - sums) / np.maximum(counts.sum() - counts, 1)
    return (len(rest) - 1) * (rest.mean() - rest)


def bca_limits(
    estimate: float, draws: np.ndarray, influences: Sequence[np.ndarray], level: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected and accelerated percentiles of bootstrap `draws` of `estimate` (Efron 1987).

    influences: jackknife influence values of each independent sample that the estimate is made of,
    (n − 1) (mean of the leave-one-out estimates − leave-one-out estimate), shape (n,).
    """
    below = ((draws < estimate).mean() + (draws <= estimate).mean()) / 2
    # Draws on one side only would put the limits at infinity.
    edge = 0.5 / len(draws)
    bias = stats.norm.ppf(np.clip(below, edge, 1 - edge))
    cubes = sum(float((u**3).sum()) / len(u) ** 3 for u in influences)
    squares = sum(float((u**2).sum()) / len(u) ** 2 for u in influences)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    shifted = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(draws, stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def _limits(
    mean: float,
    draws: np.ndarray,
    influences: Sequence[np.ndarray],
    tables: Sequence[np.ndarray],
    level: float,
) -> tuple[float, float, float, float]:
    """Percentile and BCa limits, widened for the independent `tables` behind the draws."""
    factor = _widening([_complete(table) for table in tables], float(draws.std()), level)
    plain = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    limits = (*plain, *bca_limits(mean, draws, influences, level))
    low, high, bca_low, bca_high = (float(mean + factor * (limit - mean)) for limit in limits)
    return low, high, bca_low, bca_high


def _complete(values_PS: np.ndarray) -> np.ndarray:
    """Fill missing cells with prompt mean + seed mean − mean."""
    if np.isfinite(values_PS).all():
        return values_PS
    table = pd.DataFrame(values_PS)
    mean = float(np.nanmean(values_PS))
    rows = table.mean(axis=1).fillna(mean).to_numpy()
    columns = table.mean(axis=0).fillna(mean).to_numpy()
    return np.where(np.isfinite(values_PS), values_PS, rows[:, None] + columns - mean)


def _widening(tables: Sequence[np.ndarray], spread: float, level: float) -> float:
    """What the distances of percentiles are multiplied by, for one mean or a difference of two.

    Two-way analysis of variance of each table: Var(mean) = (MS_prompt + MS_seed − MS_rest) / (P S);
    the variances add up. Degrees of freedom by Satterthwaite.
    """
    variance, parts = 0.0, list[tuple[float, int]]()
    for table in tables:
        own, own_parts = _variance(table)
        variance += own
        parts += own_parts
    if variance <= 0 or spread <= 0:
        return 1.0
    freedom = variance**2 / sum(square**2 / df for square, df in parts)
    freedom = max(freedom, min(df for _, df in parts))
    quantile = (1 + level) / 2
    student = float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))
    return student * float(np.sqrt(variance)) / spread


def _variance(values_PS: np.ndarray) -> tuple[float, list[tuple[float, int]]]:
    """Variance of a table's mean, and its parts with their degrees of freedom.

    Also for S = 1, where MS_seed and MS_rest do not exist.
    """
    prompts, seeds = values_PS.shape
    size = values_PS.size
    mean = values_PS.mean()
    by_prompt, by_seed = values_PS.mean(1), values_PS.mean(0)
    square_p = seeds * ((by_prompt - mean) ** 2).sum() / (prompts - 1)
    parts = [(square_p / size, prompts - 1)]
    variance = square_p / size
    if seeds > 1:
        rest = values_PS - by_prompt[:, None] - by_seed + mean
        square_s = prompts * ((by_seed - mean) ** 2).sum() / (seeds - 1)
        square_e = (rest**2).sum() / ((prompts - 1) * (seeds - 1))
        # Never below the larger part: with few seeds the estimated rest can exceed both.
        variance = max(square_p + square_s - square_e, square_p, square_s) / size
        parts += [(square_s / size, seeds - 1), (square_e / size, (prompts - 1) * (seeds - 1))]
    return float(variance), parts


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """a − b over the prompts and training seeds that both have.

    a, b: frames as for `crossed_interval`. Where one of them has a single column (teacher, real,
    or one training run) it is paired with every training seed of the other.

    Raises:
        UserError: no prompt (and training seed) in common.
    """
    left, right = cells(a), cells(b)
    prompts = left.index.intersection(right.index)
    left, right = left.loc[prompts], right.loc[prompts]
    seeds = left.columns.intersection(right.columns)
    if len(seeds):
        table = left[seeds].to_numpy() - right[seeds].to_numpy()
    elif left.shape[1] == 1 or right.shape[1] == 1:
        table = left.to_numpy() - right.to_numpy()
    else:
        raise UserError(
            f"nothing to pair: training seeds {list(left.columns)} against {list(right.columns)}; "
            "train both arms with the same seeds"
        )
    table = table[np.isfinite(table).any(1)]
    if not len(table):
        raise UserError("nothing to pair: the two arms have no prompt in common")
    mean, low, high, n, *bca = interval_of_cells(table, resamples, seed=seed)
    by_prompt = np.nanmean(table, axis=1)
    deviation = float(by_prompt.std(ddof=1)) if n > 1 else 0.0
    effect = float(by_prompt.mean() / deviation) if deviation > 0 else float("nan")
    return Difference(mean, low, high, sign_flip(by_prompt, resamples, seed), n, effect, *bca)


def unpaired_difference(
    a: pd.DataFrame, b: pd.DataFrame, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """a − b for arms with different prompts, such as a folder of reference clips.

    Two independent crossed bootstraps; p by exchanging the arms' labels between prompts. Far wider
    than a paired difference, because what prompts differ in does not cancel.

    a, b: frames as for `crossed_interval`.

    Raises:
        UserError: no finite value in one of them.
    """
    tables = [cells(frame).to_numpy() for frame in (a, b)]
    means = [_mean(table) for table in tables]
    left, right = (np.nanmean(table, axis=1) for table in tables)
    mean, n = means[0] - means[1], min(len(left), len(right))
    rng = np.random.default_rng(seed)
    p = _exchange_labels(left, right, resamples, rng)
    if n == 1:
        return Difference(mean, float("nan"), float("nan"), p, 1, float("nan"))
    draws = [_draws(table, resamples, rng) for table in tables]
    kept = min(map(len, draws))  # a draw that holds missing cells only is left out
    influences = [_influence(tables[0]), -_influence(tables[1])]
    limits = _limits(mean, draws[0][:kept] - draws[1][:kept], influences, tables, 0.95)
    low, high, *bca = limits
    squares = sum(((x - x.mean()) ** 2).sum() for x in (left, right))
    deviation = float(np.sqrt(squares / (len(left) + len(right) - 2)))
    effect = float((left.mean() - right.mean()) / deviation) if deviation > 0 else float("nan")
    return Difference(mean, low, high, p, n, effect, *bca)


def _exchange_labels(
    left: np.ndarray, right: np.ndarray, resamples: int, rng: np.random.Generator
) -> float:
    """Two-sided Monte-Carlo permutation p-value that two sets of prompts have one mean."""
    both = np.concatenate([left, right])
    both = both - both.mean()  # then one group's sum decides, whatever the sizes
    drawn = rng.permuted(np.tile(both, (resamples, 1)), axis=1)[:, : len(left)].sum(1)
    limit = abs(both[: len(left)].sum()) - 1e-9 * np.abs(both).sum()
    return float(((np.abs(drawn) >= limit).sum() + 1) / (resamples + 1))


def sign_flip(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided p-value that the mean of `differences` (n,) is 0, by flipping their signs.

    Exact over all 2ⁿ patterns up to n = 16; above, Monte Carlo with (1 + hits) / (1 + draws). It
    speaks about prompts only: with few training seeds read the interval, which counts them.
    """
    d = np.asarray(differences, dtype=float)
    n = len(d)
    if n <= EXACT_UP_TO:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, n))
        extra = 1
    # A tie with the observed sum counts as a hit, whatever its rounding.
    limit = abs(d.sum()) - 1e-9 * np.abs(d).sum()
    hits = int((np.abs(signs @ d) >= limit).sum())
    return (hits + extra) / (len(signs) + extra)


def smallest_p(n: int, paired: bool = True) -> float:
    """The smallest p that n prompts (paired, or n in each of two arms) allow."""
    return 2 / (2**n if paired else comb(2 * n, n))


def holm(pvalues: Sequence[float] | Mapping[str, float]) -> list[float]:
    """Holm's adjusted p-values in the given order (Holm 1979): step-down, at most 1."""
    values = pvalues.values() if isinstance(pvalues, Mapping) else pvalues
    p = np.array(list(values), dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
