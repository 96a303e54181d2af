"""The verdict on each claim of the papers follows from a report's deltas.json alone."""

import json
from pathlib import Path

import pytest

from dfdbench.cli.claims import CLAIMS, MARGIN, Claim, verdict_lines, verdicts

MORE = Claim("a has more", "a", "b", "open_gini", 1)
LESS = Claim("a has less", "a", "b", "open_gini", -1)
ALIKE = Claim("a is like b", "a", "b", "open_gini", 0)


def written(folder: Path, low: float | None, high: float | None, seeds: int = 7) -> Path:
    row = {"mean": 0.01, "low": low, "high": high, "seeds": seeds, "p": 0.5}
    (folder / "deltas.json").write_text(json.dumps({"a - b": {"open_gini": row}}))
    return folder / "deltas.json"


@pytest.mark.fault("A16")
@pytest.mark.parametrize(
    ("low", "high", "more", "less", "alike"),
    [
        (0.001, 0.2, "holds", "the opposite", "the opposite"),
        (-0.2, -0.001, "the opposite", "holds", "the opposite"),
        (-0.1, 0.2, "not shown", "not shown", "not shown"),
        (-MARGIN / 2, MARGIN / 2, "not shown", "not shown", "holds"),
        (MARGIN / 4, MARGIN / 2, "holds", "the opposite", "holds"),
    ],
)
def test_a_claim_holds_where_the_whole_interval_is_on_its_side(
    tmp_path, low, high, more, less, alike
):
    found = verdicts(written(tmp_path, low, high), (MORE, LESS, ALIKE))
    assert [v.word for v in found] == [more, less, alike]


@pytest.mark.fault("A16")
@pytest.mark.parametrize(("seeds", "word"), [(0, "one seed"), (1, "one seed"), (2, "too few")])
def test_too_few_training_seeds_decide_nothing_and_that_is_said(tmp_path, seeds, word):
    found = verdicts(written(tmp_path, None, None, seeds), (MORE, ALIKE))
    assert [v.word for v in found] == [word, word]
    lines = verdict_lines(found)
    assert "needs 3 training seeds" in lines[-1] and "--training-seeds" in lines[-1]
    assert lines[1].split("  ")[0] == "a has more" and lines[1].endswith(word)
    assert "+0.010" in lines[1] and "[" not in lines[1]


def test_lines_name_what_was_measured_with_its_interval(tmp_path):
    header, line = verdict_lines(verdicts(written(tmp_path, 0.005, 0.015), (MORE,)))
    assert "open_gini: a - b" in line and "+0.010 [+0.005, +0.015]" in line
    assert header.split() == ["claim", "measured", "effect", "seeds", "verdict"]


def test_arms_without_a_claim_say_nothing(tmp_path):
    assert verdicts(written(tmp_path, 0.1, 0.2)) == [] and verdict_lines([]) == []


def test_claims_are_about_metrics_that_exist_and_named_once():
    from dfdbench.evaluate.metrics import all_metrics

    assert {claim.metric for claim in CLAIMS} <= set(all_metrics())
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
