"""Intervals and tests over prompts and training seeds. Used by report and check.

The prompt is the unit, and training seeds are crossed with prompts: every seed's student sees
every prompt. Clips of one (prompt, training seed) are averaged first, so that 16 clips of one
prompt do not pass for 16 prompts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from dfdbench.errors import UserError

RESAMPLES = 10_000
EXACT_UP_TO = 16  # prompts; 2^16 sign patterns are listed, above that they are drawn
SEED = 0


class Interval(NamedTuple):
    """A mean with its 95 % interval; n prompts. low and high are NaN where n is 1."""

    mean: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Mean of a − b over n paired prompts, its 95 % interval, p-value and effect size.

    p: two-sided sign-flip permutation over prompts (1.0 where nothing differs). effect: Cohen's
    d_z, mean over standard deviation of the prompts' differences; NaN where n is 1 or they are
    all equal.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    effect: float


def cells(frame: pd.DataFrame) -> np.ndarray:
    """Mean of `value` per prompt and training seed: float64 (P, S), NaN where there is none.

    frame: columns prompt_id, value and, optionally, training_seed (missing counts as one seed).
    """
    return _pivot(frame).to_numpy(dtype=float)


def _pivot(frame: pd.DataFrame) -> pd.DataFrame:
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
    return interval_of_cells(cells(frame), resamples, level, seed)


def interval_of_cells(
    values_PS: np.ndarray, resamples: int = RESAMPLES, level: float = 0.95, seed: int = SEED
) -> Interval:
    """Crossed bootstrap (Owen 2007) of the mean of a (prompts, training seeds) table.

    Prompts and training seeds are resampled independently. The percentile distances from the mean
    are then scaled to the spread that an analysis of variance finds and to Student's t with its
    degrees of freedom. Plain percentiles are too narrow for few seeds (three values never reach
    beyond their range) and too wide where noise within cells dominates (it is resampled twice);
    for one seed and many prompts the factor tends to 1 and they come out unchanged.
    """
    if not np.isfinite(values_PS).any():
        raise UserError("no finite value to average; score the videos first")
    prompts, seeds = values_PS.shape
    there = np.isfinite(values_PS)
    filled = np.where(there, values_PS, 0.0)
    mean = filled.sum() / there.sum()
    if prompts == 1:
        return Interval(float(mean), float("nan"), float("nan"), 1)
    rng = np.random.default_rng(seed)
    weights_p = rng.multinomial(prompts, np.full(prompts, 1 / prompts), resamples).astype(float)
    weights_s = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(float)
    total = ((weights_p @ filled) * weights_s).sum(1)
    count = ((weights_p @ there) * weights_s).sum(1)
    draws = total[count > 0] / count[count > 0]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    factor = _widening(_complete(values_PS), float(draws.std()), level)
    return Interval(
        float(mean),
        float(mean - factor * (mean - low)),
        float(mean + factor * (high - mean)),
        prompts,
    )


def _complete(values_PS: np.ndarray) -> np.ndarray:
    """Fill missing cells with prompt mean + seed mean − mean."""
    if np.isfinite(values_PS).all():
        return values_PS
    table = pd.DataFrame(values_PS)
    mean = float(np.nanmean(values_PS))
    rows = table.mean(axis=1).fillna(mean).to_numpy()
    columns = table.mean(axis=0).fillna(mean).to_numpy()
    return np.where(np.isfinite(values_PS), values_PS, rows[:, None] + columns - mean)


def _widening(values_PS: np.ndarray, spread: float, level: float) -> float:
    """What the percentile distances are multiplied by.

    Two-way analysis of variance: Var(mean) = (MS_prompt + MS_seed − MS_rest) / (P S), degrees of
    freedom by Satterthwaite, both also for S = 1, where MS_seed and MS_rest do not exist.
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
    if variance <= 0 or spread <= 0:
        return 1.0
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    freedom = max(freedom, min(df for _, df in parts))
    quantile = (1 + level) / 2
    student = float(stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile))
    return student * float(np.sqrt(variance)) / spread


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, resamples: int = RESAMPLES, seed: int = SEED
) -> Difference:
    """a − b over the prompts and training seeds that both have.

    a, b: frames as for `crossed_interval`. Where one of them has a single column (teacher, real,
    or one training run) it is paired with every training seed of the other.

    Raises:
        UserError: no prompt (and training seed) in common.
    """
    left, right = _pivot(a), _pivot(b)
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
    mean, low, high, n = interval_of_cells(table, resamples, seed=seed)
    by_prompt = np.nanmean(table, axis=1)
    deviation = float(by_prompt.std(ddof=1)) if n > 1 else 0.0
    effect = float(by_prompt.mean() / deviation) if deviation > 0 else float("nan")
    return Difference(mean, low, high, sign_flip(by_prompt, resamples, seed), n, effect)


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


def holm(pvalues: Sequence[float] | Mapping[str, float]) -> list[float]:
    """Holm's adjusted p-values in the given order (Holm 1979): step-down, at most 1."""
    values = pvalues.values() if isinstance(pvalues, Mapping) else pvalues
    p = np.array(list(values), dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
