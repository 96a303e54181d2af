import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from score_runs import ENTROPY, PROMPTS, SATURATION, add_run

from dfdbench.evaluate.store import Store
from dfdbench.report import curves, figures
from dfdbench.report.collect import RunRecord, _mean_histograms, collect, find_sources
from dfdbench.report.page import report
from dfdbench.report.summary import compare, summarise, summary_json
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every arm, two training seeds each; treat as read-only."""
    folder = tmp_path_factory.mktemp("runs")
    for arm in SATURATION:
        for seed in (None,) if arm in ("real", "teacher") else (0, 1):
            add_run(folder / f"{arm}-{seed}", arm, seed)
    return folder


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return report([runs], tmp_path_factory.mktemp("report")).parent


def test_everything_is_written(page):
    names = {p.relative_to(page).as_posix() for p in page.rglob("*") if p.is_file()}
    drawn = ("seed-grid", "diversity-saturation", "saturation-histograms", "training-curves",
             "discrepancy")  # fmt: skip
    assert names == {
        "index.html", "report.md", "table.md", "table.csv", "table.tex", "summary.json",
        "deltas.json", "deltas.md", "runs.json", "pooled.json", "provenance.json",
        *(f"figures/{name}.{suffix}" for name in drawn for suffix in ("png", "svg")),
    }  # fmt: skip


def test_summary_means_are_those_of_the_store(page, runs):
    summary = json.loads((page / "summary.json").read_text())
    values = []
    for seed in (0, 1):
        with Store(runs / f"dfd-{seed}" / "scores.sqlite") as store:
            table = store.table()
        values += list(table[table["metric"] == "hue_entropy"]["value"])
    entropy = summary["dfd"]["hue_entropy"]
    assert entropy["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert entropy["bca_low"] < entropy["mean"] < entropy["bca_high"]
    assert entropy["low"] < entropy["mean"] < entropy["high"] and entropy["n"] == len(PROMPTS)
    assert summary["dfd"]["student_updates"] == 100.5 and summary["dfd"]["wall_seconds"] == 60
    assert summary["dfd"]["training_seeds"] == [0, 1]
    assert "student_updates" not in summary["real"] and summary["real"]["training_seeds"] == []
    assert list(summary) == ["real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"]


def test_every_run_s_record_lies_beside_the_numbers(page, runs):
    records = json.loads((page / "runs.json").read_text())
    for name, record in records.items():
        assert record == json.loads((runs / name / "run.json").read_text())
    assert {record["arm"] for record in records.values()} >= {"dmd2", "dfd", "real"}


def test_readings_are_no_scores(page):
    assert "oracle_hue" not in (page / "summary.json").read_text()
    metrics = {row["metric"] for row in csv.DictReader((page / "table.csv").open())}
    assert metrics == {"saturation_mean", "hue_entropy", "joint_coverage"}


def test_deltas_have_the_right_sign_pairs_and_correction(page):
    deltas = json.loads((page / "deltas.json").read_text())
    assert list(deltas) == ["dmd2 - teacher", "dfd - dmd2_control", "dfd - dmd2", "dp_dmd - dmd2",
                            "dp_dmd - teacher"]  # fmt: skip
    gain = deltas["dfd - dmd2_control"]["hue_entropy"]
    assert gain["mean"] == pytest.approx(ENTROPY["dfd"] - ENTROPY["dmd2_control"], abs=0.05)
    assert gain["low"] > 0 and gain["gain_towards_reference"] > 0 and gain["n"] == len(PROMPTS)
    assert deltas["dmd2 - teacher"]["hue_entropy"]["high"] < 0
    assert deltas["dmd2 - teacher"]["saturation_mean"]["gain_towards_reference"] < 0
    assert gain["paired"] and gain["bca_low"] != gain["low"]
    assert gain["bca_low"] < gain["mean"] < gain["bca_high"]
    for rows in deltas.values():
        # Three metrics in a comparison: Holm multiplies the smallest p by 3.
        smallest = min(rows.values(), key=lambda row: row["p"])
        assert smallest["p_holm"] == pytest.approx(min(1, 3 * smallest["p"]))


def test_the_page_needs_nothing_from_outside_and_escapes_names(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs / "dfd-0", folder / "a<script>&")
    shutil.copytree(runs / "real-None", folder / "real")
    text = report([folder], tmp_path / "out").read_text()
    assert "<script>" not in text and "a&lt;script&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text)
    assert "http" not in text


def test_the_same_sources_give_the_same_bytes(runs, page, tmp_path):
    report([runs], tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert sha256_file(path) == sha256_file(page / path.relative_to(tmp_path)), path.name


def test_runs_without_scores_are_listed_below_a_folder_and_refused_when_named(runs, tmp_path):
    from dfdbench.utils.run import Run

    shutil.copytree(runs / "dfd-0", tmp_path / "dfd")
    Run.create(tmp_path / "fresh", {"arm": "dmd2", "method": "dmd2", "training_seed": 0})
    collected = collect([tmp_path])
    assert collected.arms == ["dfd"] and "fresh: no scores" in collected.skipped[0]
    with pytest.raises(UserError, match=r"fresh: no scores; run `dfdbench eval"):
        collect([tmp_path / "fresh"])


def test_a_store_of_foreign_videos_groups_by_its_methods(runs, tmp_path):
    store = tmp_path / "scores.sqlite"
    shutil.copyfile(runs / "dfd-0" / "scores.sqlite", store)
    for source in (store, tmp_path):
        collected = collect([source])
        assert collected.arms == ["dfd"] and collected.runs == []
    summary = summary_json(collected, summarise(collected))
    assert summary["dfd"]["training_seeds"] == []


def test_two_suites_need_a_choice(tmp_path):
    add_run(tmp_path / "a", "dfd", 0)
    add_run(tmp_path / "b", "dfd", 0, suite="other")
    with pytest.raises(UserError, match=r"several suites \(other, toy-t2v\); choose --suite"):
        collect([tmp_path])
    assert len(collect([tmp_path], "other").clips) == len(collect([tmp_path / "a"]).clips)
    with pytest.raises(UserError, match="no scores of suite 'toy'"):
        collect([tmp_path], "toy")


def test_arms_trained_with_other_seeds_are_not_compared_but_said(tmp_path):
    for arm, seeds in (("dmd2", (0, 1)), ("dfd", (2, 3))):
        for seed in seeds:
            add_run(tmp_path / f"{arm}{seed}", arm, seed)
    collected = collect([tmp_path])
    assert compare(collected, summarise(collected)) == []
    assert "same seeds" in collected.skipped[0]


def test_another_pair_is_compared_when_asked_and_a_wrong_name_refused(tmp_path):
    for arm in ("dfd", "dp_dmd"):
        add_run(tmp_path / arm, arm, 0)
    collected = collect([tmp_path])
    summary = summarise(collected)
    assert compare(collected, summary) == []
    deltas = compare(collected, summary, [("dp_dmd", "dfd")])
    assert {(d.a, d.b) for d in deltas} == {("dp_dmd", "dfd")}
    for d in deltas:
        means = [summary[arm][d.metric].mean for arm in (d.a, d.b)]
        assert d.mean == pytest.approx(means[0] - means[1], abs=1e-9)
    with pytest.raises(UserError, match="dp_dmd"):
        compare(collected, summary, [("dp_dmt", "dfd")])


def test_arms_with_other_prompts_are_compared_unpaired(tmp_path):
    add_run(tmp_path / "dfd", "dfd", 0)
    add_run(tmp_path / "real", "real", None)
    collected = collect([tmp_path])
    is_real = collected.values["arm"] == "real"
    collected.values.loc[is_real, "prompt_id"] = "x" + collected.values["prompt_id"][is_real]
    summary = summarise(collected)
    deltas = compare(collected, summary, [("dfd", "real")])
    assert len(deltas) == 3 and not any(d.paired for d in deltas) and collected.skipped == []
    for d in deltas:
        means = [summary[arm][d.metric].mean for arm in ("dfd", "real")]
        assert d.mean == pytest.approx(means[0] - means[1], abs=1e-9) and d.low < d.mean < d.high


@pytest.mark.parametrize("name", ["nothing", "file.txt", "empty"])
def test_sources_that_hold_nothing_are_refused(tmp_path, name):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name):
        find_sources(tmp_path / name)


def test_an_unknown_prompt_is_refused_with_the_known_ones(runs, tmp_path):
    with pytest.raises(UserError, match=r"--prompt cat: .*ball-desert"):
        report([runs], tmp_path, prompt="cat")


def test_the_seed_grid_has_a_row_an_arm_and_a_column_a_seed(runs):
    figure = figures.seed_grid(collect([runs]), "ball-desert")
    assert figure is not None and len(figure.axes) == 6 * 8
    assert [a.get_ylabel() for a in figure.axes if a.get_ylabel()] == [
        "real clips", "teacher", "DMD2", "DMD2 control", "DP-DMD", "DFD",
    ]  # fmt: skip


def test_the_default_prompt_of_the_grid_fills_the_most_cells():
    rows = [("dmd2", "a", 1), ("dfd", "a", 1), ("dfd", "b", 1), ("dfd", "b", 2), ("dfd", "b", 3)]
    clips = pd.DataFrame(rows, columns=["arm", "prompt_id", "seed"])
    assert figures.grid_prompt(clips, None) == "b"
    assert figures.grid_prompt(clips[clips["seed"] == 1], None) == "a"


def test_pooled_histograms_weigh_prompts_alike_however_many_clips_they_have(tmp_path):
    one, two = np.eye(256)[10], np.eye(256)[200]
    table = pd.DataFrame(
        {"arm": "dfd", "prompt_id": ["a", "b", "b", "b"], "array": [one, two, two, two]}
    )
    mean = _mean_histograms(table)["dfd"]
    assert mean[10] == mean[200] == 0.5


def test_bins_over_t_are_weighted_by_their_counts(runs):
    records = [r for r in collect([runs]).runs if r.arm == "dfd"]
    t, value = curves.over_t(records, "probe_delta")
    assert t.tolist() == pytest.approx([0.2, 0.6])  # the bin without a count is left out
    assert value.tolist() == pytest.approx([0.5, 1.5])  # seeds 0 and 1 alike often
    _, distance = curves.over_t(records, "distance2")
    assert distance[-1] == pytest.approx((1 * 1.0 + 2 * 2.0) / 3)


def test_a_log_line_cut_short_is_left_out_and_a_broken_one_is_named(runs, tmp_path):
    (record,) = collect([runs / "dfd-1"]).runs
    assert len(record.log) == 80 + 4 + 4
    broken = Path(shutil.copytree(runs / "dfd-1", tmp_path / "dfd"))
    (broken / "metrics.jsonl").write_text('{"kind"\n{"kind": "update", "update": 1}\n')
    collected = collect([broken])
    assert "metrics.jsonl:1: not JSON" in collected.skipped[0] and len(collected.values)


def test_smoothing_keeps_the_length_and_a_constant():
    assert curves.smooth(np.full(100, 3.0)).tolist() == [3.0] * 100
    line = np.arange(200.0)
    assert curves.smooth(line)[50:150].tolist() == pytest.approx(line[50:150].tolist())
    assert curves.smooth(np.array([1.0])).tolist() == [1.0]


def test_figures_without_their_data_are_left_out(tmp_path):
    empty = RunRecord(tmp_path, "dfd", 0, {}, [])
    assert curves.training_curves([empty]) is None and curves.discrepancy_against_t([]) is None
    assert figures.diversity_against_saturation({"dfd": {}}) is None
