"""What `dfdbench eval` prints of the scores: means over prompts, n, and why values are absent."""

import json
from pathlib import Path

import pytest
from clips import write_manifest
from eval_calls import clip, evaluate, notes
from test_engine import toy_run

from dfdbench.evaluate import engine
from dfdbench.evaluate.score_table import MOST_METHODS, as_lines
from dfdbench.evaluate.store import Store


@pytest.mark.fault("A10")
def test_eval_prints_the_means_over_prompts_with_n(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, count=3)  # prompt p0 has two clips, p1 has one
    code, lines = evaluate(manifest, "--out", tmp_path / "out")
    assert code == 0
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        table = store.table()
    of_metric = table[table["metric"] == "saturation_mean"]
    mean = of_metric.groupby("prompt_id")["value"].mean().mean()
    head = next(i for i, line in enumerate(lines) if line.startswith("mean (n clips)"))
    assert lines[head].split() == ["mean", "(n", "clips)", "dmd2"]
    assert lines[head + 1].split() == ["saturation_mean", f"{mean:.4g}", "(3)"]


@pytest.mark.fault("A10")
def test_the_scores_are_in_the_json_too(tmp_path: Path) -> None:
    summary = engine.score([write_manifest(tmp_path)], "clips", tmp_path / "o", families=["colour"])
    row = next(row for row in summary.scores if row["metric"] == "saturation_mean")
    assert (row["method"], row["prompts"], row["clips"]) == ("dmd2", 2, 4)
    assert json.loads(json.dumps(summary.scores)) == summary.scores


@pytest.mark.fault("A10")
def test_values_over_prompts_that_one_seed_cannot_give_are_named_with_the_reason(tmp_path) -> None:
    summary = engine.score([toy_run(tmp_path / "one", seeds=1)], "toy-t2v")
    (line,) = [note for note in summary.notes if "have one clip" in note]
    assert "method real has no hue_entropy" in line and "2 of 2 prompts have one clip" in line
    summary = engine.score([toy_run(tmp_path / "three", seeds=3)], "toy-t2v")
    assert not [note for note in summary.notes if "have one clip" in note]


@pytest.mark.fault("E.names")
def test_a_methods_name_cannot_break_the_table(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    clip(tmp_path / name / "a-0.mp4")
    code, lines = evaluate(tmp_path / name, "--out", tmp_path / "out")
    assert code == 0 and any(line.endswith(name) for line in lines)
    clip(tmp_path / "two\nlines" / "a-0.mp4")
    assert evaluate(tmp_path / "two\nlines", "--out", tmp_path / "no")[0] == 2


def test_more_methods_than_columns_are_counted() -> None:
    rows = [
        {"metric": "m", "method": f"a{i}", "mean": 0.5, "prompts": 1, "clips": 1}
        for i in range(MOST_METHODS + 2)
    ]
    lines = as_lines(rows)
    assert len(lines[0].split()) == 3 + MOST_METHODS and lines[-1].startswith("2 more methods")
    assert as_lines([]) == [] and notes([]) == ""
