"""Entropies, Gini–Simpson indices and mode counts against closed forms and simulations."""

from itertools import combinations

import numpy as np
import pytest
from scipy.special import comb
from scipy.stats import entropy

from dfdbench.evaluate.metrics.modes import (
    MIN_CLIPS,
    OPEN,
    RAREFIED,
    cells,
    diversity_metrics,
    diversity_values,
    gini_simpson,
    miller_madow,
    normalised_entropy,
    rarefied_cells,
)
from dfdbench.toy import world


def labels_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: rows[:, i] for i, name in enumerate(OPEN)}


def uniform(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.integers(classes, size=count) for name, classes in OPEN.items()}


def test_miller_madow_is_the_plain_entropy_plus_its_correction() -> None:
    counts = np.array([5, 0, 3, 1])
    assert miller_madow(counts) == pytest.approx(entropy([5, 3, 1]) + 2 / 18)


def test_entropy_of_one_class_is_zero() -> None:
    assert normalised_entropy(np.full(16, 4), 6) == 0


@pytest.mark.parametrize("classes", [3, 6, 8])
def test_correction_removes_most_of_the_bias_at_64_clips(classes: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.integers(classes, size=(2000, 64))
    corrected = np.mean([normalised_entropy(row, classes) for row in draws])
    plain = np.mean([entropy(np.bincount(row)) / np.log(classes) for row in draws])
    assert abs(corrected - 1) < 0.2 * abs(plain - 1)


def test_gini_simpson_is_the_share_of_unlike_pairs() -> None:
    labels = np.array([0, 0, 3, 1, 0, 5, 3])
    pairs = [a != b for a, b in combinations(labels.tolist(), 2)]
    assert gini_simpson(labels, 6) == pytest.approx(np.mean(pairs) * 6 / 5)
    assert gini_simpson(np.zeros(9, int), 6) == 0


@pytest.mark.parametrize("n", [2, 6, 16])
@pytest.mark.parametrize("p", [np.full(6, 1 / 6), np.array([0.7, 0.1, 0.1, 0.1, 0, 0])])
def test_gini_simpson_is_unbiased_at_any_n(n: int, p: np.ndarray) -> None:
    rng = np.random.default_rng(n)
    draws = rng.choice(6, size=(20_000, n), p=p)
    truth = (1 - (p**2).sum()) * 6 / 5
    values = np.array([gini_simpson(row, 6) for row in draws])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / len(values) ** 0.5)


def test_rarefaction_equals_binomial_coefficients() -> None:
    counts = np.array([4, 1, 0, 7])
    for total in (12, 20):
        for n in (1, 5, 9, 12):
            expected = sum(1 - comb(total - k, n) / comb(total, n) for k in counts)
            assert rarefied_cells(n, counts, total) == pytest.approx(expected)
    with pytest.raises(ValueError):
        rarefied_cells(13, counts)


def test_rarefied_modes_are_the_mean_over_subsets() -> None:
    rng = np.random.default_rng(5)
    labels = uniform(40, rng)
    modes, total = cells(labels), 64  # 24 of 64 clips are not whole
    own = np.concatenate([modes, np.full(total - len(modes), -1)])
    counted = [
        len(np.unique(drawn[drawn >= 0]))
        for drawn in (rng.permutation(own)[:RAREFIED] for _ in range(4000))
    ]
    value = diversity_values(labels, total)["modes"]
    assert value.n == total and value.value == pytest.approx(np.mean(counted), abs=0.1)


def test_broken_clips_lower_the_modes_and_leave_the_gini() -> None:
    rng = np.random.default_rng(6)
    labels = uniform(48, rng)
    whole, half = diversity_values(labels, 48), diversity_values(labels, 96)
    assert half["modes"].value < 0.7 * whole["modes"].value
    assert half["open_gini"] == whole["open_gini"]
    assert diversity_values({k: v[:0] for k, v in labels.items()}, 64)["modes"].value == 0


def test_uniform_clips_have_indices_near_one() -> None:
    rng = np.random.default_rng(2)
    groups = [diversity_values(uniform(64, rng), 64) for _ in range(300)]
    for name in ("hue_gini", "direction_gini", "pan_gini", "size_gini", "open_gini"):
        assert np.mean([g[name].value for g in groups]) == pytest.approx(1, abs=0.01), name
    expected = 144 * (1 - (143 / 144) ** RAREFIED)
    assert np.mean([g["modes"].value for g in groups]) == pytest.approx(expected, abs=0.2)


def test_attributes_are_not_mixed_up_and_the_mean_is_over_the_open_ones() -> None:
    rows = np.array([[k % 6, 3, 2, 1] for k in range(12)])
    values = diversity_values(labels_of(rows), 12)
    assert values["hue_gini"].value > 0.95
    assert all(values[f"{n}_gini"].value == 0 for n in ("direction", "pan", "size"))
    assert values["open_gini"].value == pytest.approx(values["hue_gini"].value / 4)
    less = diversity_values({"pan": rows[:, 2], "size": rows[:, 3] * (rows[:, 0] % 2)}, 12)
    assert less["open_gini"].value == pytest.approx(less["size_gini"].value / 2)
    assert "hue_gini" not in less


def test_cells_tell_all_combinations_apart() -> None:
    grid = np.stack(np.meshgrid(*(np.arange(k) for k in (6, 8, 3)), indexing="ij"), -1)
    rows = grid.reshape(-1, 3)
    labels = {"hue": rows[:, 0], "direction": rows[:, 1], "pan": rows[:, 2]}
    assert sorted(cells(labels)) == list(range(144))
    assert len(np.unique(cells(labels | {"size": rows[:, 0] % 2}))) == 144, "size makes no mode"
    assert set(cells({"size": np.array([0, 1])})) == {0}


def test_few_clips_are_missing_not_zero() -> None:
    rng = np.random.default_rng(1)
    values = diversity_values(uniform(MIN_CLIPS - 1, rng), 64)
    assert set(values) == {"modes"}
    assert set(diversity_values(uniform(MIN_CLIPS, rng), RAREFIED - 1)) == {
        f"{name}_{kind}" for name in OPEN for kind in ("gini", "entropy")
    } | {"open_gini"}


def test_every_value_is_declared_once() -> None:
    names = [metric.name for metric in diversity_metrics("whole clips", "_x")]
    values = diversity_values(uniform(64, np.random.default_rng(0)), 64, "_x")
    assert len(names) == len(set(names)) and set(values) == set(names)


def test_classes_are_those_of_the_world() -> None:
    sizes = {"hue": len(world.HUES), "direction": world.DIRECTIONS, "pan": len(world.PANS)}
    assert sizes | {"size": len(world.SIZES)} == OPEN
