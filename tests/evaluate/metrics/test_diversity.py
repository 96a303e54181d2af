"""Closed forms, invariants and independent references for dfdbench.evaluate.metrics.diversity."""

import numpy as np
import pytest
import torch
from scipy import linalg

from dfdbench.evaluate.metrics import diversity


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_equal_clips_have_no_diversity_and_one_effective_clip(rng):
    clip = rng.normal(size=(1, 16, 32))
    same = np.repeat(clip, 8, 0)
    assert diversity.pairwise_diversity(same.mean(1)) == pytest.approx(0, abs=1e-12)
    assert diversity.per_frame_diversity(same) == pytest.approx(0, abs=1e-12)
    assert diversity.vendi(same.mean(1)) == pytest.approx(1, abs=1e-9)


def test_orthonormal_features_are_as_diverse_as_can_be():
    features = np.eye(8, 32)
    assert diversity.pairwise_diversity(features) == pytest.approx(1, abs=1e-12)
    assert diversity.vendi(features) == pytest.approx(8, abs=1e-9)


def test_opposite_clips_go_beyond_one():
    assert diversity.pairwise_diversity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(2)


def test_eq_26_by_its_sum_over_pairs(rng):
    x = rng.normal(size=(5, 7)) + 1
    total = sum(
        x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        for i in range(5)
        for j in range(i + 1, 5)
    )
    assert diversity.pairwise_diversity(x) == pytest.approx(1 - 2 / (5 * 4) * total, abs=1e-12)


def test_length_of_a_vector_and_order_of_clips_change_nothing(rng):
    x = rng.normal(size=(6, 9)) + 0.5
    scaled = (x * rng.uniform(0.1, 9, (6, 1)))[rng.permutation(6)]
    for measure in (diversity.pairwise_diversity, diversity.vendi):
        assert measure(scaled) == pytest.approx(measure(x), abs=1e-10)


def test_per_frame_and_pooled_differ_where_frames_are_the_same_in_another_order():
    """Two clips with the same two frames swapped: one pooled vector, different frames."""
    a, b = np.eye(2)
    clips = np.array([[a, b], [b, a]])
    assert diversity.pairwise_diversity(clips.mean(1)) == pytest.approx(0, abs=1e-12)
    assert diversity.per_frame_diversity(clips) == pytest.approx(1)


def test_vendi_of_two_clips_in_closed_form():
    angle = 0.7  # cosine kernel [[1, c], [c, 1]] / 2 has eigenvalues (1 ± c) / 2
    c = np.cos(angle)
    features = np.array([[1.0, 0], [c, np.sin(angle)]])
    eigenvalues = np.array([(1 + c) / 2, (1 - c) / 2])
    expected = np.exp(-(eigenvalues * np.log(eigenvalues)).sum())
    assert diversity.vendi(features) == pytest.approx(expected, abs=1e-10)


def test_manifold_equals_the_prdc_package(rng):
    prdc = pytest.importorskip("prdc", reason="pip install prdc")
    real, generated = rng.normal(size=(60, 6)), 0.8 * rng.normal(size=(50, 6)) + 0.4
    expected = prdc.compute_prdc(real, generated, nearest_k=3)
    found = diversity.manifold(real, generated, 3)._asdict()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found["precision"] != found["recall"]  # so that swapped arguments would show


def test_precision_and_recall_equal_torch_fidelitys(rng):
    metric_prc = pytest.importorskip(
        "torch_fidelity.metric_prc", reason="pip install torch-fidelity"
    )
    real, generated = rng.normal(size=(60, 6)), 0.8 * rng.normal(size=(50, 6)) + 0.4
    # torch-fidelity 0.4: generated first, real second
    sets = torch.from_numpy(generated), torch.from_numpy(real)
    found = diversity.manifold(real, generated, 3)
    for expected in (
        metric_prc.calculate_precision_recall_full(*sets, neighborhood=3),
        metric_prc.calculate_precision_recall_part(*sets, neighborhood=3, batch_size=7),
    ):
        assert (found.precision, found.recall) == pytest.approx(expected, abs=1e-6)
    assert found.precision != found.recall


def test_balls_are_open_as_in_prdc_and_closed_in_torch_fidelity(rng):
    """The one difference of the two packages: clips on the very edge of a ball."""
    real = np.repeat(rng.normal(size=(2, 6)), 4, 0)  # three neighbours at distance 0
    assert diversity.manifold(real, real, 3) == (0, 0, 0, 0)
    prdc = pytest.importorskip("prdc", reason="pip install prdc")
    assert set(prdc.compute_prdc(real, real, nearest_k=3).values()) == {0}
    metric_prc = pytest.importorskip(
        "torch_fidelity.metric_prc", reason="pip install torch-fidelity"
    )
    closed = metric_prc.calculate_precision_recall_full(*[torch.from_numpy(real)] * 2, 3)
    assert closed == (1, 1)


def test_manifold_of_itself_and_of_something_far_away(rng):
    real = rng.normal(size=(40, 4))
    itself = diversity.manifold(real, real)
    assert itself.precision == itself.recall == itself.coverage == 1
    assert diversity.manifold(real, real + 100) == (0, 0, 0, 0)


def test_collapse_costs_recall_and_coverage_not_precision(rng):
    real = rng.normal(size=(200, 3))
    collapsed = 0.05 * rng.normal(size=(200, 3))
    found = diversity.manifold(real, collapsed)
    assert found.precision > 0.9 and found.recall < 0.1 and found.coverage < 0.2


def test_frechet_distance_by_the_matrix_root_and_by_closed_forms(rng):
    a = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5))
    b = rng.normal(size=(70, 5)) @ rng.normal(size=(5, 5)) + 1
    s, t = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(s @ t).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * root)
    assert diversity.frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)
    assert diversity.frechet_distance(a, a + 2) == pytest.approx(5 * 4, abs=1e-9)
    # Scaled by c about its mean: tr Σ (1 − c)²
    scaled = a.mean(0) + 3 * (a - a.mean(0))
    assert diversity.frechet_distance(a, scaled) == pytest.approx(4 * np.trace(s), abs=1e-8)


@pytest.mark.parametrize("clips", [200, 12])
def test_frechet_distance_equals_torch_fidelitys(rng, clips):
    metric_fid = pytest.importorskip(
        "torch_fidelity.metric_fid", reason="pip install torch-fidelity"
    )
    mix = rng.normal(size=(16, 16)) / 4
    a, b = rng.normal(size=(clips, 16)) @ mix, rng.normal(size=(clips + 9, 16)) + 0.5
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    (value,) = expected.values()
    assert diversity.frechet_distance(a, b) == pytest.approx(value, abs=1e-6)
    assert value > 1


def test_frechet_distance_exists_for_fewer_clips_than_dimensions(rng):
    a = rng.normal(size=(10, 64))
    assert diversity.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert diversity.frechet_distance(a, a[:, ::-1]) > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity.pairwise_diversity(np.ones((1, 4))), "need 2"),
        (lambda: diversity.per_frame_diversity(np.ones((4, 4))), "axes"),
        (lambda: diversity.manifold(np.ones((3, 2)), np.ones((9, 2))), "need 4"),
        (lambda: diversity.frechet_distance(np.ones((1, 2)), np.ones((9, 2))), "need 2"),
    ],
)
def test_too_few_clips_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
