"""The released clips give the known colour values, and a deviation is shown as one."""

import json
from pathlib import Path

import pandas as pd
import pytest
from clips import released_videos

from dfdbench.evaluate import engine as scoring
from dfdbench.evaluate.comparison import Reference, compare, write_comparison
from dfdbench.evaluate.metrics import colour
from dfdbench.evaluate.store import Store
from dfdbench.generate.suites import get_suite
from dfdbench.utils.video import read_video

REFERENCE = {
    "title": "known values",
    "source": "made up",
    "tolerance": 0.01,
    "subsets": {"all": {}, "one": {"only_prompts": ["p"]}, "rest": {"without_prompts": ["p"]}},
    "values": [
        {"subset": "all", "metric": "m", "method": "dfd", "value": 0.3},
        {"subset": "one", "metric": "m", "method": "dfd", "value": 0.111},
        {"subset": "rest", "metric": "m", "method": "dfd", "value": 0.389},
        {"subset": "all", "metric": "m", "method": "teacher", "value": 0.5},
        {"subset": "all", "metric": "big", "method": "dfd", "value": 50.4},
    ],
}


def test_rows_compare_the_mean_over_the_clips_of_a_subset() -> None:
    table = pd.DataFrame(
        [("m", "p", 0.1), ("m", "q", 0.3), ("m", "r", 0.5), ("big", "p", 50.0)],
        columns=["metric", "prompt_id", "value"],
    ).assign(method="dfd")
    rows = compare(table, Reference.model_validate(REFERENCE))
    assert [(r["subset"], r["clips"], r["within"]) for r in rows] == [
        ("all", 3, True),
        ("one", 1, False),
        ("rest", 2, False),
        ("all", 1, True),
    ]
    assert rows[1]["difference"] == pytest.approx(-0.011)
    assert rows[2]["difference"] == pytest.approx(0.011)
    assert rows[3]["tolerance"] == pytest.approx(0.504)


def test_clips_without_reference_write_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "scores.sqlite").close()
    assert write_comparison(tmp_path / "scores.sqlite", get_suite("released-clips"), tmp_path) == []


def test_one_released_clip_has_the_saturation_of_an_independent_formula() -> None:
    frames = read_video(released_videos() / "diversity" / "dmd_1.mp4", "even16")
    values = colour.compute(frames)
    pixels = frames.frames.reshape(-1, 3).astype(float)
    high, low = pixels.max(1), pixels.min(1)
    expected = ((high - low) / high.clip(min=1)).mean()
    assert values["saturation_mean"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_all_released_clips_give_the_known_values(tmp_path: Path) -> None:
    manifest = released_videos() / "manifest.jsonl"
    summary = scoring.score([manifest], "released-clips", tmp_path)
    assert summary.exit_code == 0 and summary.scored == 40
    result = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert (result["within_tolerance"], result["of"]) == (14, 14)
    assert str(tmp_path) not in (tmp_path / "comparison.md").read_text(encoding="utf-8")
