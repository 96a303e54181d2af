"""Intervals and tests over training seeds equal closed forms and scipy's; Holm the textbook's."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dfdbench.report.statistics import (
    NO_TRAINING_SEED,
    complete,
    difference_of,
    holm,
    interval_of,
    paired_table,
    sign_test,
    t_test,
    table_of,
    unpaired_difference,
)
from dfdbench.utils.errors import UserError


def table(values_PS, seeds=None) -> pd.DataFrame:
    values = np.asarray(values_PS, float)
    names = [f"p{i}" for i in range(len(values))]
    return pd.DataFrame(values, names, range(values.shape[1]) if seeds is None else seeds)


def untrained(values_P) -> pd.DataFrame:
    return table(np.asarray(values_P, float)[:, None], [NO_TRAINING_SEED])


def test_the_t_interval_and_p_are_the_closed_form() -> None:
    # Mean 2, standard deviation 1, n 4: t = 4, and t of 3 degrees of freedom at .975 is 3.18245.
    values = 2 + np.array([-1.0, -1.0, 1.0, 1.0]) * math.sqrt(3) / 2
    low, high, p = t_test(values)
    assert (low, high) == pytest.approx((2 - 3.18245 / 2, 2 + 3.18245 / 2), abs=1e-5)
    # Student's distribution with 3 degrees of freedom has this closed form.
    tail = 0.5 - (math.atan(4 / 3**0.5) + (4 / 3**0.5) / (1 + 16 / 3)) / math.pi
    assert p == pytest.approx(2 * tail)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_no_p(n: int) -> None:
    assert all(map(math.isnan, t_test(np.arange(n) + 5.0)))


def test_without_spread_the_interval_has_no_width() -> None:
    assert t_test(np.full(5, 0.25)) == (0.25, 0.25, 0.0)
    assert t_test(np.zeros(3)) == (0.0, 0.0, 1.0)  # nothing differs
    assert t_test(np.array([0.3 - 0.2, 0.1, 0.4 - 0.3])).p == 0.0  # but for rounding


@pytest.mark.parametrize(("above", "below"), [(6, 0), (7, 0), (5, 1), (3, 4), (0, 9)])
def test_the_sign_test_is_the_binomial_one_and_zeros_do_not_count(above: int, below: int) -> None:
    values = np.array([1.0] * above + [-2.0] * below + [0.0, 0.0])
    n, k = above + below, max(above, below)
    expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n)
    assert sign_test(values) == pytest.approx(expected)


def test_the_sign_test_of_fewer_than_six_signs_says_nothing() -> None:
    assert math.isnan(sign_test(np.ones(5)))
    assert math.isnan(sign_test(np.array([1.0] * 5 + [0.0] * 3)))  # five signs only
    assert sign_test(np.ones(6)) == pytest.approx(2 / 64)


def test_an_arm_s_mean_is_over_seeds_and_prompts_are_fixed() -> None:
    values = np.random.default_rng(0).normal(size=(12, 5))
    interval = interval_of(table(values), clips=60)
    by_seed = values.mean(axis=0)
    expected = stats.t.interval(0.95, 4, by_seed.mean(), stats.sem(by_seed))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.median == pytest.approx(np.median(by_seed))
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert (interval.seeds, interval.prompts, interval.clips) == (5, 12, 60)
    assert list(interval.by_seed.values()) == pytest.approx(list(by_seed))
    # However much prompts differ, the interval is that of the seeds.
    apart = interval_of(table(values + 100 * np.arange(12)[:, None]), clips=60)
    assert apart.high - apart.low == pytest.approx(interval.high - interval.low)


def test_an_untrained_arm_has_a_mean_only() -> None:
    interval = interval_of(untrained([0.2, 0.4]))
    assert interval.mean == pytest.approx(0.3) and interval.seeds == 0
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_only_prompts_that_every_seed_has_count() -> None:
    values = table([[1, 2, np.nan], [3, 4, 5], [5, 6, 10]])
    assert complete(values).index.tolist() == ["p1", "p2"]
    interval = interval_of(values)
    assert interval.mean == pytest.approx((3 + 4 + 5 + 5 + 6 + 10) / 6) and interval.prompts == 2


def test_a_seed_without_any_value_does_not_cost_the_others_theirs() -> None:
    interval = interval_of(table([[1, np.nan, 3], [3, np.nan, 5]]))
    assert interval.seeds == 2 and interval.prompts == 2 and interval.mean == pytest.approx(3)


def test_without_a_common_prompt_there_is_no_value() -> None:
    assert interval_of(table([[1, np.nan], [np.nan, 2]])) is None


def test_cells_become_a_row_a_prompt_and_a_column_a_seed() -> None:
    cells = pd.DataFrame(
        {"prompt": ["b", "a", "a"], "training_seed": [0, 1, 0], "value": [3, 2, 1]}
    )
    assert table_of(cells).fillna(-1).to_numpy().tolist() == [[1, 2], [3, -1]]


def test_a_paired_difference_is_scipy_s_paired_t_test_over_seeds() -> None:
    rng = np.random.default_rng(1)
    hard = 5 * rng.normal(size=(12, 1)) + rng.normal(size=(1, 7))  # what both arms share
    a, b = hard + 0.3 + 0.1 * rng.normal(size=(2, 12, 7))
    d = difference_of(paired_table(table(a), table(b)))
    expected = stats.ttest_rel(a.mean(axis=0), b.mean(axis=0))
    assert d.p == pytest.approx(expected.pvalue)
    assert (d.low, d.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert d.mean == pytest.approx((a - b).mean()) and (d.seeds, d.prompts) == (7, 12)
    signs = int((a.mean(axis=0) > b.mean(axis=0)).sum())
    assert d.p_sign == pytest.approx(stats.binomtest(signs, 7).pvalue)
    turned = difference_of(paired_table(table(b), table(a)))
    assert turned.mean == pytest.approx(-d.mean) and turned.p == pytest.approx(d.p)


def test_pairs_follow_the_seed_and_the_prompt_not_the_order() -> None:
    base = np.random.default_rng(2).normal(size=(8, 3))
    left = table(base + 1)
    right = table(base[:, ::-1], [2, 1, 0]).iloc[::-1]
    d = difference_of(paired_table(left, right))
    assert d.low == pytest.approx(1) and d.high == pytest.approx(1)


def test_an_untrained_arm_is_paired_with_every_seed_of_a_trained_one() -> None:
    student = np.random.default_rng(3).normal(size=(8, 4))
    teacher = np.arange(8.0)
    d = difference_of(paired_table(table(student), untrained(teacher), untrained=True))
    expected = stats.ttest_1samp(student.mean(axis=0) - teacher.mean(), 0)
    assert d.seeds == 4 and d.p == pytest.approx(expected.pvalue)
    back = difference_of(paired_table(untrained(teacher), table(student), untrained=True))
    assert back.mean == pytest.approx(-d.mean) and back.by_seed.keys() == d.by_seed.keys()


def test_clips_of_one_student_of_unknown_seed_are_one_seed() -> None:
    student = np.random.default_rng(4).normal(size=(8, 4))
    d = difference_of(paired_table(table(student), untrained(np.zeros(8))))
    assert d.seeds == 0 and math.isnan(d.p) and d.mean == pytest.approx(student.mean())


def test_a_difference_is_over_the_prompts_that_both_have_at_every_paired_seed() -> None:
    a = table([[1, 2, 3], [np.nan, 5, 6], [7, 8, 9]])
    b = table([[0, 0, 0], [0, 0, 0], [0, 0, np.nan], [9, 9, 9]])
    d = difference_of(paired_table(a, b))
    assert d.prompts == 1 and d.mean == pytest.approx(2) and d.seeds == 3
    fewer = difference_of(paired_table(a, b[[0, 1]]))  # seed 2 is not paired, so p2 counts again
    assert fewer.prompts == 2 and fewer.mean == pytest.approx((1 + 2 + 7 + 8) / 4)


def test_arms_that_cannot_be_paired_are_refused() -> None:
    ones = np.ones((3, 2))
    with pytest.raises(UserError, match="same seeds"):
        paired_table(table(ones), table(ones, [7, 8]))
    with pytest.raises(UserError, match="no prompt has a value in both"):
        paired_table(table([[1, np.nan], [np.nan, 1]]), table(np.ones((2, 2))))


def test_arms_of_other_prompts_have_a_difference_of_means_and_nothing_else() -> None:
    d = unpaired_difference(table([[1, 3]]), untrained([5.0, 6.0]))
    assert d.mean == pytest.approx(-3.5) and d.prompts == 1 and d.seeds == 0
    assert math.isnan(d.low) and math.isnan(d.p) and math.isnan(d.p_sign)
    with pytest.raises(UserError, match="nothing to compare"):
        unpaired_difference(table([[1, np.nan], [np.nan, 1]]), untrained([5.0]))


def test_holm_equals_the_worked_example_and_keeps_the_order() -> None:
    # Worked by hand: sorted .005 .01 .03 .04 times 4 3 2 1, running maximum
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
