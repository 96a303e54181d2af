"""What `dfdbench eval` prints of the scores: means over prompts, n, and why values are absent."""

import json
import re
from pathlib import Path

import pytest
from clips import write_manifest
from eval_calls import clip, evaluate, notes
from test_engine import toy_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate import engine
from dfdbench.evaluate.metrics import all_metrics, get_metric
from dfdbench.evaluate.score_table import MOST_METHODS, as_lines, headline, in_short
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
    (line,) = [note for note in summary.notes if "each needs 8 clips" in note]
    assert "method real has no hue_gini" in line and "2 of 2 prompts have fewer" in line
    summary = engine.score([toy_run(tmp_path / "eight", seeds=8)], "toy-t2v")
    assert not [note for note in summary.notes if "each needs" in note]


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


def row(metric: str, method: str = "dfd") -> dict[str, object]:
    return {"metric": metric, "method": method, "mean": 0.5, "prompts": 1, "clips": 1}


def names(rows: list[dict[str, object]]) -> list[object]:
    return list(dict.fromkeys(row["metric"] for row in rows))


def test_five_metrics_come_first_the_primaries_among_them_and_no_family_twice_without_need() -> (
    None
):
    present = [m.name for m in all_metrics().values() if m.family in ("flicker", "colour", "camera")
               and m.kind == "score"]  # fmt: skip
    present += ["effnet_lite2_diversity", "brisque", "rife39_smoothness"]
    present = [name for name in present if name in all_metrics()]
    rows = [row(name, method) for name in present for method in ("dfd", "real")]
    kept = headline(rows)
    assert len(names(kept)) == 5 and len(kept) == 10
    assert {"saturation_mean", "effnet_lite2_diversity"} <= set(names(kept))
    families = [get_metric(name).family for name in names(kept)]
    assert len(set(families)) == 5
    assert names(headline(rows[:4])) == names(rows[:4]) and headline([]) == []
    lines = in_short(rows)
    assert len(lines) == 7 and lines[-1].startswith(f"and {len(present) - 5} more: eval --table")


def test_two_families_give_more_than_one_each() -> None:
    colour = [m.name for m in all_metrics().values() if m.family == "colour" and m.kind == "score"]
    assert len(names(headline([row(name) for name in [*colour, "seam_ratio"]]))) == 5


def test_eval_ends_with_five_metrics_and_what_has_none_and_why(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "one", seeds=1) / "videos" / "toy-t2v" / "samples.jsonl"
    result = CliRunner().invoke(
        app, ["eval", str(run), "--suite", "toy-t2v", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("mean (n clips)"))
    blank = lines.index("", head)
    assert lines[head - 1] == "" and len(lines[head + 1 : blank]) == 5
    assert lines[blank + 1 :]
    assert all("each needs" in line for line in lines[blank + 1 :])


def test_the_flag_prints_the_whole_table_that_the_json_has(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "eight", seeds=8) / "videos" / "toy-t2v" / "samples.jsonl"
    calls = ["eval", str(run), "--suite", "toy-t2v", "--out", str(tmp_path)]
    short, whole, summary = (
        CliRunner().invoke(app, [*calls, *more]).stdout for more in ([], ["--table"], ["--json"])
    )
    table = json.loads(summary)["table"]
    assert len(table) > 6 and "\n".join(table) in whole
    assert re.search(rf"and {len(table) - 6} more: eval --table", short)


def test_weights_that_are_not_here_end_the_output_with_how_to_get_them(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    manifest = write_manifest(tmp_path, count=2)
    _, lines = evaluate(manifest, "--out", tmp_path / "out", metrics="colour,dinov2_l")
    assert lines[-1].startswith("skipped: dinov2_l: ")
    assert lines[-1].endswith("get it with `dfdbench assets get dinov2_l`")
