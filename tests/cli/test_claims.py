"""What README says of the toy, against the committed results and against data that show less."""

import json
from pathlib import Path

import pytest

from dfdbench.cli.claims import CLAIMS, unshown, unshown_signs

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.fault("A16")
@pytest.mark.parametrize(("model", "folder"), [("toy-t2v", "toy"), ("toy-i2v", "toy-i2v")])
def test_the_committed_results_show_every_claim(model, folder):
    deltas = json.loads((RESULTS / folder / "deltas.json").read_text())
    assert all(claim.metric in deltas[claim.pair] for claim in CLAIMS[model])
    assert unshown(model, RESULTS / folder / "deltas.json") == []


def written(path: Path, low: float | None, high: float | None, mean: float = 0.01) -> Path:
    row = {"mean": mean, "low": low, "high": high, "p": 0.5}
    rows = {claim.pair: {c.metric: row for c in CLAIMS["toy-t2v"] if c.pair == claim.pair}
            for claim in CLAIMS["toy-t2v"]}  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.fault("A16")
def test_an_interval_around_0_or_on_the_other_side_or_none_is_said(tmp_path):
    lines = unshown("toy-t2v", written(tmp_path / "deltas.json", -0.01, 0.03))
    assert len(lines) == len(CLAIMS["toy-t2v"])
    assert lines[0] == (
        "not shown here: README has hue_entropy of dmd2 lower than of teacher; these data give "
        "+0.010 [-0.010, +0.030]; take more --training-seeds"
    )
    assert len(unshown("toy-t2v", written(tmp_path / "deltas.json", None, None))) == len(lines)
    above = unshown("toy-t2v", written(tmp_path / "deltas.json", 0.001, 0.03))
    assert len(above) == sum(claim.sign < 0 for claim in CLAIMS["toy-t2v"])


@pytest.mark.fault("A16")
def test_arms_and_models_without_a_claim_say_nothing(tmp_path):
    (tmp_path / "deltas.json").write_text('{"mine - dmd2": {"hue_entropy": {"mean": 1, "low": 0, '
                                          '"high": 2}}}')  # fmt: skip
    assert unshown("toy-t2v", tmp_path / "deltas.json") == []
    assert unshown("a folder", written(tmp_path / "deltas.json", -1, 1)) == []


@pytest.mark.fault("A16")
def test_a_check_says_it_by_the_sign():
    key = "dfd - dmd2_control saturation_mean"
    assert unshown_signs("toy-t2v", {key: -0.01}) == []
    (line,) = unshown_signs("toy-t2v", {key: 0.002})
    assert "saturation_mean of dfd lower than of dmd2_control; these data give +0.002" in line
