import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from score_runs import ENTROPY, PROMPTS, SATURATION, add_run

from dfdbench.evaluate.metrics import GroupValue
from dfdbench.evaluate.store import Store
from dfdbench.report import curves, figures
from dfdbench.report.best import best_in
from dfdbench.report.cells import cells_csv, read_cells
from dfdbench.report.collect import RunRecord, _mean_histograms, collect, find_sources
from dfdbench.report.page import report
from dfdbench.report.sections import markdown_sections
from dfdbench.report.sets import cells_of
from dfdbench.report.summary import COST, deltas_json, pairs_of, recompute, summary_json
from dfdbench.report.tables import delta_sections, long_csv, main_table
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.table import markdown


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every arm, three training seeds each; treat as read-only."""
    folder = tmp_path_factory.mktemp("runs")
    for arm in SATURATION:
        for seed in (None,) if arm in ("real", "teacher") else (0, 1, 2):
            add_run(folder / f"{arm}-{seed}", arm, seed)
    return folder


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return report([runs], tmp_path_factory.mktemp("report")).parent


def test_everything_is_written(page):
    names = {p.relative_to(page).as_posix() for p in page.rglob("*") if p.is_file()}
    clips = {name for name in names if name.startswith("clips/")}
    drawn = ("seed-grid", "training-seeds", "diversity-saturation", "saturation-histograms",
             "training-curves", "discrepancy")  # fmt: skip
    assert len(clips) == 4 * 2 * 8  # of training seeds 1 and 2; those of 0 are in the page
    assert names - clips == {
        "index.html", "report.md", "table.md", "table.csv", "table.tex", "summary.json",
        "deltas.json", "deltas.md", "cells.csv", "runs.json", "pooled.json", "provenance.json",
        *(f"figures/{name}.{suffix}" for name in drawn for suffix in ("png", "svg")),
    }  # fmt: skip


def test_summary_means_are_those_of_the_store(page, runs):
    summary = json.loads((page / "summary.json").read_text())
    by_seed = {}
    for seed in (0, 1, 2):
        with Store(runs / f"dfd-{seed}" / "scores.sqlite") as store:
            table = store.table()
        by_seed[str(seed)] = table[table["metric"] == "hue_entropy"]["value"].mean()
    values = list(by_seed.values())
    entropy = summary["dfd"]["hue_entropy"]
    assert entropy["by_seed"] == pytest.approx(by_seed, abs=1e-6)
    assert entropy["mean"] == pytest.approx(np.mean(values), abs=1e-6)
    assert entropy["median"] == pytest.approx(np.median(values), abs=1e-6)
    limits = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (entropy["low"], entropy["high"]) == pytest.approx(limits, abs=1e-5)
    assert (entropy["seeds"], entropy["prompts"], entropy["clips"]) == (3, 4, 3 * 4 * 8)
    assert summary["dfd"]["student_updates"] == 101 and summary["dfd"]["wall_seconds"] == 60
    assert summary["dfd"]["training_seeds"] == [0, 1, 2]
    assert summary["real"]["hue_entropy"]["low"] is None
    assert "student_updates" not in summary["real"] and summary["real"]["training_seeds"] == []
    assert list(summary) == ["real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"]


def test_every_run_s_record_lies_beside_the_numbers(page, runs):
    records = json.loads((page / "runs.json").read_text())
    for name, record in records.items():
        record.pop("discrepancies", None)
        assert record == json.loads((runs / name / "run.json").read_text())
    assert {record["arm"] for record in records.values()} >= {"dmd2", "dfd", "real"}


def test_readings_are_no_scores(page):
    assert "oracle_hue" not in (page / "summary.json").read_text()
    metrics = {row["metric"] for row in csv.DictReader((page / "table.csv").open())}
    assert metrics == {"saturation_mean", "hue_entropy", "hue_gini"}


def test_deltas_have_the_right_sign_pairs_and_correction(page):
    deltas = json.loads((page / "deltas.json").read_text())
    assert list(deltas) == ["dmd2 - teacher", "dfd - dmd2_control", "dfd - dmd2", "dp_dmd - dmd2",
                            "dp_dmd - teacher"]  # fmt: skip
    gain = deltas["dfd - dmd2_control"]["hue_entropy"]
    assert gain["mean"] == pytest.approx(ENTROPY["dfd"] - ENTROPY["dmd2_control"], abs=0.05)
    assert gain["low"] > 0 and gain["gain_towards_reference"] > 0
    assert (gain["seeds"], gain["prompts"]) == (3, len(PROMPTS))
    assert deltas["dmd2 - teacher"]["hue_entropy"]["high"] < 0
    assert deltas["dmd2 - teacher"]["saturation_mean"]["gain_towards_reference"] < 0
    assert gain["paired"] and gain["primary"] == "diversity" and gain["p_sign"] is None
    for rows in deltas.values():
        tested = {name: row for name, row in rows.items() if row["p"] is not None}
        assert {row["primary"] for row in tested.values()} == {"diversity", "saturation"}
        smallest = min(tested.values(), key=lambda row: row["p"])
        assert smallest["p_holm"] == pytest.approx(min(1, 2 * smallest["p"]))


def test_every_number_follows_from_cells_csv_alone(page):
    written = {
        name: json.loads((page / f"{name}.json").read_text()) for name in ("summary", "deltas")
    }
    pairs = [tuple(pair.split(" - ")) for pair in written["deltas"]]
    again = recompute(read_cells(page / "cells.csv"), pairs)
    assert json.loads(json.dumps(deltas_json(again.deltas))) == written["deltas"]
    costs = {arm: {key: own[key] for key in COST if key in own}
             for arm, own in written["summary"].items()}  # fmt: skip
    assert json.loads(json.dumps(summary_json(again.summary, costs))) == written["summary"]
    best = best_in(again.rows)
    assert long_csv(again.summary, best) == (page / "table.csv").read_text()
    assert markdown(main_table(again.summary, best)) == (page / "table.md").read_text()
    assert (
        (page / "deltas.md").read_text().endswith(markdown_sections(delta_sections(again.deltas)))
    )


def test_another_number_in_cells_csv_gives_another_summary(page, tmp_path):
    text = (page / "cells.csv").read_text()
    row = next(line for line in text.splitlines() if line.startswith("hue_entropy,dfd,bar-snow,1,"))
    (tmp_path / "cells.csv").write_text(text.replace(row, row.rpartition(",")[0] + ",0.5"))
    own = [recompute(read_cells(folder / "cells.csv"), []).summary for folder in (page, tmp_path)]
    means = [summary["dfd"]["hue_entropy"].by_seed[1] for summary in own]
    assert means[0] - means[1] == pytest.approx((float(row.rpartition(",")[2]) - 0.5) / 4)
    assert own[0]["dfd"]["hue_entropy"].by_seed[0] == own[1]["dfd"]["hue_entropy"].by_seed[0]


def test_cells_csv_has_a_row_a_cell_in_order_and_is_read_with_care(page, tmp_path):
    with (page / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["metric", "arm", "prompt", "training_seed", "n", "value"]
    assert len(rows) == 3 * len(PROMPTS) * (2 + 4 * 3)
    assert {row["training_seed"] for row in rows if row["arm"] in ("real", "teacher")} == {""}
    assert {row["n"] for row in rows} == {"8"}
    assert all(len(row["value"].replace(".", "").lstrip("0")) <= 7 for row in rows)
    shuffled = read_cells(page / "cells.csv").sample(frac=1, random_state=0)
    pair = [("dfd", "dmd2")]
    straight = recompute(read_cells(page / "cells.csv"), pair)
    assert {(d.metric, d.mean) for d in recompute(shuffled, pair).deltas} == {
        (d.metric, d.mean) for d in straight.deltas
    }
    text = (page / "cells.csv").read_text()
    lines = text.splitlines(keepends=True)
    for broken, says in (
        (text + lines[1], r"cells.csv:170: given twice; write the report again"),
        (text.replace(",8,", ",0,", 1), r"cells.csv:2: n: "),
        (text.replace("metric,", "metrik,", 1), r"metrik"),
    ):
        (tmp_path / "cells.csv").write_text(broken)
        with pytest.raises(UserError, match=says):
            read_cells(tmp_path / "cells.csv")


def test_names_in_cells_csv_are_texts_and_come_back(tmp_path):
    names = ["=1+1", "a,b", 'q"', "@x"]
    own = pd.DataFrame(
        [("hue_entropy", name, name, -1, 2, 0.5) for name in names],
        columns=["metric", "arm", "prompt", "training_seed", "n", "value"],
    )
    (tmp_path / "cells.csv").write_text(cells_csv(own))
    assert "\nhue_entropy,=" not in (tmp_path / "cells.csv").read_text()
    assert read_cells(tmp_path / "cells.csv").equals(own)


def test_recall_against_the_teacher_is_a_row_tested_over_seeds_like_the_others(runs, tmp_path):
    folder = Path(shutil.copytree(runs, tmp_path / "runs"))
    for i, arm in enumerate(("dmd2", "dfd")):
        for seed in (0, 1, 2):
            with Store(folder / f"{arm}-{seed}" / "scores.sqlite") as store:
                value = GroupValue(0.3 + 0.2 * i + 0.01 * seed * (1 + i), 32)
                store.set_pooled(
                    "toy-t2v", "teacher", {"effnet_lite2_recall": 1},
                    {arm: {"effnet_lite2_recall": value}},
                )  # fmt: skip
    out = report([folder], tmp_path / "out").parent
    rows = [line for line in (out / "cells.csv").read_text().splitlines() if "recall" in line]
    assert rows == [
        f"effnet_lite2_recall,{arm},,{seed},32,{0.3 + 0.2 * i + 0.01 * seed * (1 + i):.7g}"
        for i, arm in enumerate(("dmd2", "dfd"))
        for seed in (0, 1, 2)
    ]
    delta = json.loads((out / "deltas.json").read_text())["dfd - dmd2"]["effnet_lite2_recall"]
    assert delta["mean"] == pytest.approx(0.21) and delta["seeds"] == 3 and delta["low"] > 0
    lines = (out / "table.md").read_text().splitlines()
    recall = next(i for i, line in enumerate(lines) if "effnet_lite2_recall" in line)
    assert "hue_entropy" in lines[recall - 1]  # beside diversity
    assert "effnet_lite2_recall ↑ (against teacher)" in lines[recall]
    assert "**0.520 [" in lines[recall] and "prompt" not in lines[recall]
    assert "Against the reference" not in (out / "report.md").read_text()


def test_the_page_needs_nothing_from_outside_and_escapes_names(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs / "dfd-0", folder / "a<script>&")
    shutil.copytree(runs / "real-None", folder / "real")
    text = report([folder], tmp_path / "out").read_text()
    assert "<script>" not in text and "a&lt;script&gt;" in text
    links = set(re.findall(r'(?:src|href)="(?!data:)([^"]*)', text))
    files = {link for link in links if not link.startswith("#")}
    assert all((tmp_path / "out" / name).is_file() for name in files) and "cells.csv" in files
    assert {link[1:] for link in links - files} <= set(re.findall(r'id="([^"]*)', text))
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
    summary = summary_json(recompute(cells_of(collected), []).summary, {})
    assert summary["dfd"]["training_seeds"] == []


def test_two_suites_need_a_choice(tmp_path):
    add_run(tmp_path / "a", "dfd", 0)
    add_run(tmp_path / "b", "dfd", 0, suite="other")
    with pytest.raises(UserError, match=r"several suites \(other, toy-t2v\); choose --suite"):
        collect([tmp_path])
    assert len(collect([tmp_path], "other").clips) == len(collect([tmp_path / "a"]).clips)
    with pytest.raises(UserError, match="no scores of suite 'toy'"):
        collect([tmp_path], "toy")


def numbers(collected, against=()):
    return recompute(cells_of(collected), pairs_of(collected, against), collected.references)


def test_arms_trained_with_other_seeds_are_not_compared_but_said(tmp_path):
    for arm, seeds in (("dmd2", (0, 1)), ("dfd", (2, 3))):
        for seed in seeds:
            add_run(tmp_path / f"{arm}{seed}", arm, seed)
    results = numbers(collect([tmp_path]))
    assert results.deltas == [] and "same seeds" in results.skipped[0]
    report([tmp_path], tmp_path / "out")
    assert "train both arms with the same seeds" in (tmp_path / "out/report.md").read_text()


def test_another_pair_is_compared_when_asked_and_a_wrong_name_refused(tmp_path):
    for arm in ("dfd", "dp_dmd"):
        add_run(tmp_path / arm, arm, 0)
    collected = collect([tmp_path])
    assert numbers(collected).deltas == []
    _, summary, deltas, _ = numbers(collected, [("dp_dmd", "dfd")])
    assert {(d.a, d.b) for d in deltas} == {("dp_dmd", "dfd")}
    for d in deltas:
        means = [summary[arm][d.metric].mean for arm in (d.a, d.b)]
        assert d.mean == pytest.approx(means[0] - means[1], abs=1e-9)
    with pytest.raises(UserError, match="dp_dmd"):
        pairs_of(collected, [("dp_dmt", "dfd")])


def test_arms_with_other_prompts_are_compared_unpaired(tmp_path):
    add_run(tmp_path / "dfd", "dfd", 0)
    add_run(tmp_path / "real", "real", None)
    collected = collect([tmp_path])
    for frame in (collected.values, collected.clips):
        is_real = frame["arm"] == "real"
        frame.loc[is_real, "prompt_id"] = "x" + frame["prompt_id"][is_real]
    _, summary, deltas, skipped = numbers(collected, [("dfd", "real")])
    assert len(deltas) == 3 and not any(d.paired for d in deltas) and skipped == []
    for d in deltas:
        means = [summary[arm][d.metric].mean for arm in ("dfd", "real")]
        assert d.mean == pytest.approx(means[0] - means[1], abs=1e-9) and np.isnan(d.low)


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


def test_an_arm_of_other_noises_is_shown_in_the_grid_by_their_order(runs):
    collected = collect([runs])
    trained = ~collected.clips["arm"].isin(["real", "teacher"])
    collected.clips.loc[trained, "seed"] += 8
    figure = figures.seed_grid(collected, "ball-desert")
    assert sum(bool(axis.images) for axis in figure.axes) == 6 * 8
    assert [a.get_title() for a in figure.axes][:2] == ["seed 9", "seed 10"]
    assert figure.get_label().endswith(figures.SHIFTED) and "same prompt" not in figure.get_label()


def test_figures_show_each_training_seed_and_say_their_n(runs):
    summary = numbers(collect([runs])).summary
    strip = figures.over_training_seeds(summary)
    (axis, _) = strip.axes
    of_dfd = [line for line in axis.lines if list(line.get_ydata()) == [5, 5, 5]]
    assert sorted(of_dfd[0].get_xdata()) == sorted(summary["dfd"]["hue_entropy"].by_seed.values())
    marks = {tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 1}
    assert {(summary["dfd"]["hue_entropy"].mean,), (summary["dfd"]["hue_entropy"].median,)} <= marks
    assert [label.get_text() for label in axis.get_yticklabels()][-1] == "DFD"
    scatter = figures.diversity_against_saturation(summary)
    saturation, entropy = (summary["dfd"][m].by_seed for m in ("saturation_mean", "hue_entropy"))
    dots = [line.get_xydata().tolist() for line in scatter.axes[0].lines]
    assert [[saturation[s], entropy[s]] for s in (0, 1, 2)] in dots
    for figure in (strip, scatter):
        assert "n 3 training seeds, 4 prompts, 32 to 96 clips" in figure.get_label()
    drawn = curves.training_curves(collect([runs]).runs)
    assert drawn.get_label().endswith("n 12 runs.")  # teacher and real clips have no curve
    histograms = figures.saturation_histograms(collect([runs]), summary)
    texts = [text.get_text() for axis in histograms.axes for text in axis.texts]
    assert sum("3 seeds, 4 prompts, 96 clips" in text for text in texts) == 4


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
    assert value.tolist() == pytest.approx([1.0, 2.0])  # seeds 0, 1 and 2 alike often
    _, distance = curves.over_t(records, "distance2")
    assert distance[-1] == pytest.approx((1 * 1.0 + 2 * 2.0 + 3 * 3.0) / 6)


def test_runs_json_has_the_mean_discrepancies_of_a_run(page, runs):
    infos = json.loads((page / "runs.json").read_text())
    # Seed 1: values 1 and 2 of 1 and 3 clips, a bin without one; distances .2, .5, 2 of 1, 1, 2.
    means = infos["dfd-1"]["discrepancies"]
    assert means["probe_delta"] == pytest.approx((1 * 1 + 2 * 3) / 4)
    assert means["distance2"] == pytest.approx((0.2 + 0.5 + 2 * 2.0) / 4)
    assert "discrepancies" not in infos["real-None"]


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
