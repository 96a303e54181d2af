"""Intervals cover what they say, tests equal enumeration, Holm equals the textbook."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dfdbench.report.statistics import (
    bca_limits,
    crossed_interval,
    holm,
    interval_of_cells,
    paired_difference,
    sign_flip,
    unpaired_difference,
)
from dfdbench.utils.errors import UserError

KINDS = (("low", "high"), ("bca_low", "bca_high"))


def coverage(draw, truth: float, runs: int = 500) -> dict[str, float]:
    """Share of `runs` calls of draw(rng, run) whose percentile and BCa intervals hold `truth`."""
    rng = np.random.default_rng(runs)
    hits = dict.fromkeys(("low", "bca_low"), 0)
    for run in range(runs):
        interval = draw(rng, run)
        for low, high in KINDS:
            hits[low] += getattr(interval, low) <= truth <= getattr(interval, high)
    return {name: count / runs for name, count in hits.items()}


def between(shares: dict[str, float]) -> bool:
    return all(0.90 <= share <= 0.99 for share in shares.values())


def long_form(values_PS: np.ndarray, clips: int = 1) -> pd.DataFrame:
    rows = [
        {"prompt_id": f"p{p}", "training_seed": s, "value": values_PS[p, s]}
        for p, s in np.ndindex(values_PS.shape)
        for _ in range(clips)
    ]
    return pd.DataFrame(rows)


def table(rng: np.random.Generator, shape: tuple[int, int], sd: tuple[float, ...]) -> np.ndarray:
    """Prompt effect + training seed effect + rest, all of mean 0 with these deviations."""
    prompts, seeds = shape
    return (
        sd[0] * rng.normal(size=(prompts, 1))
        + sd[1] * rng.normal(size=(1, seeds))
        + sd[2] * rng.normal(size=shape)
    )


@pytest.mark.parametrize(
    ("shape", "sd"),
    [
        ((12, 1), (1.0, 0.0, 0.5)),
        ((12, 3), (1.0, 0.5, 1.0)),
        ((12, 3), (0.1, 1.0, 0.2)),
        ((12, 3), (0.3, 0.3, 1.0)),
        ((70, 3), (1.0, 0.1, 1.0)),
        ((8, 5), (1.0, 0.3, 0.3)),
    ],
)
def test_95_percent_intervals_cover_the_truth_in_90_to_99_percent(
    shape: tuple[int, int], sd: tuple[float, ...]
) -> None:
    shares = coverage(
        lambda rng, run: interval_of_cells(table(rng, shape, sd), resamples=300, seed=run), 0.0
    )
    assert between(shares), shares


def test_skewed_values_are_covered_too() -> None:
    shares = coverage(
        lambda rng, run: interval_of_cells(rng.beta(8, 2, (12, 1)), resamples=300, seed=run), 0.8
    )
    assert between(shares), shares


@pytest.mark.parametrize("shape", [(12, 1), (12, 3), (70, 1)])
def test_paired_differences_cover_the_truth_and_are_narrower_than_unpaired_ones(
    shape: tuple[int, int],
) -> None:
    # Prompts differ far more than the arms do: pairing must cancel that. One training seed cannot
    # show how much training scatters, so there it does not.
    sd = (0.5, 0.2 if shape[1] > 1 else 0.0, 0.5)

    def pair(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
        prompts = 3 * rng.normal(size=(shape[0], 1))
        arms = (prompts + table(rng, shape, sd) for _ in range(2))
        left, right = (long_form(arm) for arm in arms)
        return left.assign(value=left["value"] + 0.7), right

    def paired(rng: np.random.Generator, run: int):
        return paired_difference(*pair(rng), resamples=300, seed=run)

    shares = coverage(paired, 0.7, runs=250)
    assert between(shares), shares
    rng = np.random.default_rng(0)
    left, right = pair(rng)
    narrow = paired_difference(left, right)
    wide = unpaired_difference(left, right)
    assert narrow.mean == pytest.approx(wide.mean)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_unpaired_differences_cover_the_truth_whatever_the_sizes() -> None:
    def draw(rng: np.random.Generator, run: int):
        a = long_form(1.5 + table(rng, (10, 3), (1.0, 0.3, 0.5)))
        b = long_form(2.0 * rng.gamma(1.0, 1.0, (40, 1)))  # skewed, mean 2
        return unpaired_difference(a, b.assign(prompt_id="b" + b["prompt_id"]), 300, seed=run)

    shares = coverage(draw, -0.5, runs=300)
    assert between(shares), shares


@pytest.mark.parametrize("samples", [1, 2])
def test_bca_limits_equal_scipy_s_on_scipy_s_draws(samples: int) -> None:
    rng = np.random.default_rng(samples)
    data = tuple(rng.gamma(0.7, 1.0, 15 + 10 * i) for i in range(samples))

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        means = [part.mean(axis) for part in parts]
        return means[0] - sum(means[1:])

    by_scipy = stats.bootstrap(
        data, statistic, n_resamples=2000, method="BCa", vectorized=True,
        random_state=np.random.default_rng(3),
    )  # fmt: skip
    # Of a mean, the jackknife influence of a value is its distance from the mean.
    influences = [sign * (part - part.mean()) for sign, part in zip((1, -1), data, strict=False)]
    found = bca_limits(float(statistic(*data)), by_scipy.bootstrap_distribution, influences)
    assert found == pytest.approx(tuple(by_scipy.confidence_interval), rel=1e-9)


def test_bca_of_one_seed_and_many_prompts_is_scipy_s_and_follows_the_long_tail() -> None:
    values = np.random.default_rng(1).exponential(1.0, (150, 1))
    interval = interval_of_cells(values)
    expected = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=9999, method="BCa", random_state=0
    ).confidence_interval
    width = expected.high - expected.low
    assert interval.bca_low == pytest.approx(expected.low, abs=0.03 * width)
    assert interval.bca_high == pytest.approx(expected.high, abs=0.03 * width)
    assert interval.bca_low > interval.low and interval.bca_high > interval.high
    mirrored = interval_of_cells(-values)
    assert mirrored.bca_low == pytest.approx(-interval.bca_high, abs=1e-9)


def test_values_without_spread_have_intervals_without_width() -> None:
    flat = interval_of_cells(np.full((6, 2), 0.3))
    assert tuple(flat)[:3] == pytest.approx((0.3, 0.3, 0.3))
    assert (flat.bca_low, flat.bca_high) == pytest.approx((0.3, 0.3))


def test_unpaired_difference_is_a_minus_b_and_its_p_is_the_permutation_test_s() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.8, 1, (9, 1)), rng.normal(0, 1, (14, 1))
    result = unpaired_difference(long_form(a), long_form(b))
    assert result.mean == pytest.approx(a.mean() - b.mean()) and result.n == 9
    assert result.low < result.mean < result.high and result.effect > 0
    expected = stats.permutation_test(
        (a[:, 0], b[:, 0]), lambda x, y: x.mean() - y.mean(), n_resamples=5000, random_state=0
    )
    assert result.p == pytest.approx(expected.pvalue, abs=0.02)
    turned = unpaired_difference(long_form(b), long_form(a))
    assert turned.mean == pytest.approx(-result.mean) and turned.effect < 0
    apart = unpaired_difference(long_form(a + 50), long_form(b))
    assert apart.p == pytest.approx(1 / 10_001)
    assert unpaired_difference(long_form(a), long_form(a)).p == 1


def test_many_prompts_and_one_seed_give_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5, 2, (400, 1))
    interval = interval_of_cells(values)
    half = 1.96 * values.std() / 400**0.5
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_training_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    alike = table(rng, (12, 3), (1.0, 0.0, 0.1))
    apart = alike + np.array([[-1.0, 0.0, 1.0]])
    narrow, wide = interval_of_cells(alike), interval_of_cells(apart)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_more_clips_of_the_same_prompts_do_not_narrow_the_interval() -> None:
    values = table(np.random.default_rng(3), (12, 3), (1.0, 0.3, 0.3))
    assert crossed_interval(long_form(values)) == crossed_interval(long_form(values, clips=16))


def test_row_order_changes_nothing() -> None:
    frame = long_form(table(np.random.default_rng(4), (6, 2), (1, 1, 1)))
    shuffled = frame.sample(frac=1, random_state=0)
    assert crossed_interval(shuffled) == crossed_interval(frame)


def test_arms_without_training_seed_are_one_column() -> None:
    frame = long_form(np.arange(6.0)[:, None])
    without = frame.assign(training_seed=None)
    assert crossed_interval(without) == crossed_interval(frame.drop(columns="training_seed"))
    assert crossed_interval(without).n == 6


def test_missing_cells_keep_the_mean_inside_the_interval() -> None:
    values = table(np.random.default_rng(5), (10, 3), (1, 0.3, 0.3))
    values[0, 0] = values[4, 2] = np.nan
    interval = interval_of_cells(values)
    assert interval.mean == pytest.approx(np.nanmean(values))
    assert interval.low < interval.mean < interval.high


def test_one_prompt_has_no_interval_and_no_value_is_an_error() -> None:
    single = interval_of_cells(np.array([[1.0, 2.0]]))
    assert single.mean == 1.5 and np.isnan(single.low) and single.n == 1
    with pytest.raises(UserError, match="no finite value"):
        crossed_interval(pd.DataFrame({"prompt_id": ["a"], "value": [np.nan]}))


def test_difference_is_a_minus_b_on_common_prompts() -> None:
    rng = np.random.default_rng(6)
    base = table(rng, (12, 3), (5, 1, 0.05))
    better = long_form(base + 1)
    extra = pd.DataFrame({"prompt_id": ["other"], "training_seed": [0], "value": [99.0]})
    result = paired_difference(pd.concat([better, extra]), long_form(base))
    assert result.mean == pytest.approx(1) and result.n == 12
    assert result.low > 0.9 and result.high < 1.1 and result.p == pytest.approx(2 / 4096)
    assert paired_difference(long_form(base), better).mean == pytest.approx(-1)


def test_an_untrained_arm_is_paired_with_every_training_seed() -> None:
    rng = np.random.default_rng(7)
    student = table(rng, (8, 3), (1, 0.2, 0.1))
    teacher = student.mean(1, keepdims=True) + 0.5
    alone = long_form(teacher).assign(training_seed=None)
    result = paired_difference(long_form(student), alone)
    assert result.mean == pytest.approx(-0.5) and result.n == 8


def test_pairs_follow_the_seed_not_the_order() -> None:
    rng = np.random.default_rng(8)
    base = table(rng, (8, 3), (1, 5, 0.01))
    a, b = long_form(base + 1), long_form(base)
    b = b.sort_values("training_seed", ascending=False)
    result = paired_difference(a, b)
    assert result.low == pytest.approx(1) and result.high == pytest.approx(1)


def test_arms_that_cannot_be_paired_are_refused() -> None:
    a, b = long_form(np.ones((3, 2))), long_form(np.ones((3, 2)))
    with pytest.raises(UserError, match="same seeds"):
        paired_difference(a, b.assign(training_seed=b["training_seed"] + 7))
    with pytest.raises(UserError, match="no prompt in common"):
        paired_difference(a, b.assign(prompt_id="x" + b["prompt_id"]))


@pytest.mark.parametrize("n", [1, 4, 9])
def test_sign_flip_equals_enumeration_and_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.5, 1, n)
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in product((1, -1), repeat=n)
    ]
    expected = np.mean([value >= abs(d.sum()) - 1e-12 for value in sums])
    assert sign_flip(d) == pytest.approx(expected)
    if n > 1:
        by_scipy = stats.permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip(d) == pytest.approx(by_scipy.pvalue)


def test_sign_flip_by_monte_carlo_is_near_the_t_test() -> None:
    d = np.random.default_rng(0).normal(0.25, 1, 60)
    assert sign_flip(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.02)
    assert sign_flip(np.ones(40)) == pytest.approx(1 / 10_001)


def test_sign_flip_is_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(9)
    p = np.array([sign_flip(rng.normal(size=10)) for _ in range(400)])
    assert 0.02 < (p <= 0.05).mean() < 0.09
    assert sign_flip(np.zeros(5)) == 1


def test_holm_equals_the_worked_example_and_keeps_the_order() -> None:
    # Worked by hand: sorted .005 .01 .03 .04 times 4 3 2 1, running maximum
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm({"a": 0.6, "b": 0.5}) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
