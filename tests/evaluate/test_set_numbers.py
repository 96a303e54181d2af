"""Numbers of `data describe`, by hand-made rows and features."""

import numpy as np
import pytest

from dfdbench.evaluate import set_numbers
from dfdbench.evaluate.set_numbers import against, duplicates, shared, some, spread
from dfdbench.evaluate.set_numbers import set_numbers as numbers_of
from dfdbench.evaluate.set_rows import Described

NONE = np.empty((0, 0), np.float32)


def row(name, bits=None, **facts):
    """A clip; `bits`: ones of each of its three hashes, from the lowest on."""
    hashes = [] if bits is None else [f"{2**count - 1:016x}" for count in bits]
    return Described(id=name, hashes=hashes, **facts)


def on_a_line(*places):
    return np.array([[place, 0] for place in places], np.float32)


def test_percentiles_are_of_the_values_that_are_there():
    assert spread([None, None]) is None
    value = spread([0.0, 1, None, 2, 3, 4])
    assert (value["n"], value["mean"], value["p0"], value["p50"], value["p100"]) == (5, 2, 0, 2, 4)
    assert value["p25"] == 1
    assert value["p95"] == pytest.approx(3.8)


def test_what_was_left_out_counts_nowhere_else():
    rows = [
        row("a", seconds=2.0, width=4, height=3, words={"long": 90, "short": 9}),
        row("b", seconds=3.0, width=4, height=3, motion=1.5),
        row("c", left_out="damaged"),
    ]
    value = numbers_of(rows, NONE)
    assert (value["clips"], value["left_out"], value["seconds_in_all"]) == (2, 1, 5)
    assert value["sizes"] == {"4x3": 2}
    assert {*value["quantities"]} == {"seconds", "motion"}
    assert value["quantities"]["motion"]["n"] == 1
    assert value["captions"]["clips"] == 1
    assert value["captions"]["words"]["long"]["p50"] == 90
    assert value["diversity"] == {"value": None, "n": 0}


def test_diversity_is_the_mean_cosine_distance_of_pairs():
    features = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    value = numbers_of([row("a"), row("b"), row("c")], features)["diversity"]
    assert value == {"value": pytest.approx(2 / 3), "n": 3}


def test_duplicates_are_near_at_all_three_hashes():
    rows = [
        row("a", (0, 0, 0)),
        row("near", (5, 5, 5)),
        row("far in the middle", (0, 6, 0)),
        row("no hashes"),
    ]
    assert duplicates(rows) == {"count": 1, "n": 3, "first": [("near", "a")]}
    # a duplicate is not what others are compared with: seven bits from the clip that stays
    chain = [row("a", (0, 0, 0)), row("b", (4, 4, 4)), row("c", (7, 7, 7))]
    assert duplicates(chain)["first"] == [("b", "a")]


def test_latents_are_duplicates_if_they_have_the_same_bits():
    rows = [row("a", sha256="1"), row("b", sha256="2"), row("c", sha256="1")]
    assert duplicates(rows) == {"count": 1, "n": 3, "first": [("c", "a")]}
    assert shared(rows, [row("z", sha256="2")]) == {"count": 1, "n": 3, "first": [("b", "z")]}


def test_shared_clips_are_those_of_the_other_set():
    rows = [row("a", (0, 0, 0)), row("b", (1, 1, 1)), row("c", (30, 30, 30))]
    assert shared(rows, [row("z", (2, 2, 2))])["first"] == [("a", "z"), ("b", "z")]
    assert shared(rows, []) == {"count": 0, "n": 3, "first": []}


def test_coverage_by_hand():
    """k = 3: radii of the first set are 3, 2, 2, 3 and 99; only the far clip's ball is reached."""
    own, other = on_a_line(0, 1, 2, 3, 100), on_a_line(10, 10.1, 10.2, 10.3)
    value = against([], own, [], other)["coverage"]
    assert (value["k"], value["n"], value["other_n"], value["why"]) == (3, 5, 4, None)
    assert value["covered"] == pytest.approx(1 / 5)
    assert value["density"] == pytest.approx(1 / 3)
    assert (value["covers"], value["other_density"]) == (0, 0)
    back = against([], other, [], own)["coverage"]
    assert (back["covered"], back["covers"]) == (0, pytest.approx(1 / 5))


def test_a_set_of_few_clips_has_no_coverage():
    value = against([], on_a_line(0, 1, 2), [], on_a_line(0, 1, 2, 3))["coverage"]
    assert value["covered"] is None
    assert value["why"] == "3 and 4 clips have features; a set needs 4"
    told = against([], on_a_line(*range(5)), [], on_a_line(*range(5)), "they differ")["coverage"]
    assert (told["why"], told["covered"]) == ("they differ", None)


def test_coverage_of_large_sets_is_of_clips_at_even_distances(monkeypatch):
    monkeypatch.setattr(set_numbers, "MOST", 5)
    assert some(on_a_line(*range(9)))[:, 0].tolist() == [0, 2, 4, 6, 8]
    assert len(some(on_a_line(*range(5)))) == 5
    value = against([], on_a_line(*range(9)), [], on_a_line(*range(4)))["coverage"]
    assert (value["n"], value["other_n"]) == (5, 4)
