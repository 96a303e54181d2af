"""VBench in a report: its own aggregation per arm, labelled totals, conditions."""

import json
from pathlib import Path

import pytest
from tex_document import check
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.schema import Key, Row
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import PROTOCOLS, totals
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.report import vbench
from dfdbench.report.collect import collect
from dfdbench.report.page import report
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run


def add_run(
    folder: Path,
    arm: str,
    seed: int | None,
    clips: list[dict[str, float]],
    suite: str = "vbench-custom",
    conditions: str = "",
) -> None:
    """A run with a clip per dict of values; `frames` of a dict are what consistencies count."""
    run = Run.create(folder, {"arm": arm, "method": arm, "training_seed": seed, "model": "x"})
    with Store(run.path / "scores.sqlite") as store:
        for i, values in enumerate(clips):
            sha = f"{arm}{seed}{i}"
            found = {k: v for k, v in values.items() if k != "frames"}
            for name in set(values) & set(DIMENSIONS):
                if DIMENSIONS[name].by_frame:
                    found[f"{name}_frames"] = values.get("frames", 16.0)
            row = Row(suite, f"videos/{i}.mp4", f"p{i}", f"prompt {i}", 0, arm, sha)
            keys = {
                Key(sha, k, 1, "", "all", "d", "float32", "cpu"): v for k, v in found.items()
            }  # fmt: skip
            store.add_scores(row, keys)
        store.set_meta({f"conditions {suite}": conditions})


def whole(shift: float, protocol: str = "t2v") -> dict[str, float]:
    """A value for every dimension of a protocol, and for flickering."""
    names = (*PROTOCOLS[protocol].dimensions, "temporal_flickering")
    return {name: 0.4 + 0.02 * i + shift for i, name in enumerate(dict.fromkeys(names))}


def cells(text: str, row: str) -> list[str]:
    """The cells of a row of the report's VBench table."""
    part = text.split("## VBench")[1]
    line = next(line for line in part.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_scores_weigh_by_frames_within_a_run_and_runs_alike(tmp_path: Path) -> None:
    clips = [
        {"subject_consistency": 0.5, "imaging_quality": 0.5, "frames": 30.0},
        {"subject_consistency": 0.8, "imaging_quality": 0.8, "frames": 10.0},
    ]
    add_run(tmp_path / "a", "dfd", 0, clips)
    add_run(tmp_path / "b", "dfd", 1, [{"subject_consistency": 0.9, "frames": 1000.0}])
    collected = collect([tmp_path])
    scores = vbench.scores_of(collected.vbench, collected.chosen)
    first = (30 * 0.5 + 10 * 0.8) / 40
    assert scores["dfd"]["subject_consistency"] == pytest.approx((first + 0.9) / 2)
    assert scores["dfd"]["imaging_quality"] == pytest.approx(0.65)
    assert list(scores["dfd"]) == ["subject_consistency", "imaging_quality"]


def test_the_section_gives_totals_and_says_which_are_partial(tmp_path: Path) -> None:
    add_run(tmp_path / "teacher", "teacher", None, [whole(0.3)])
    add_run(tmp_path / "dmd2", "dmd2", 0, [whole(0.1)])
    add_run(tmp_path / "dfd", "dfd", 0, [whole(0.2)])
    few = {"subject_consistency": 0.9, "color": 0.5}
    add_run(tmp_path / "dp_dmd", "dp_dmd", 0, [few])
    report([tmp_path], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    expected = totals(whole(0.2), "t2v")
    total = [cells(text, "Total")[i] for i in (0, 1, 3)]
    assert total == [  # none bold: a total has no interval
        f"{totals(whole(shift), 't2v')['total'].value:.4f}" for shift in (0.3, 0.1, 0.2)
    ]
    assert cells(text, "Quality")[2] == f"{totals(few, 't2v')['quality'].value:.4f} (1/7)"
    assert cells(text, "average of the DFD paper")[2] == "0.9000 (1/5)"
    assert cells(text, "scene")[2] == "—" and cells(text, "color")[2] == "0.5000"
    found = json.loads((tmp_path / "out" / "vbench.json").read_text())
    assert found["protocol"] == "t2v" and found["conditions"] == ""
    assert found["arms"]["dfd"]["totals"]["total"] == {
        "value": pytest.approx(expected["total"].value), "found": 16, "expected": 16,
    }  # fmt: skip
    assert "scene" not in found["arms"]["dp_dmd"]["dimensions"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>VBench</h2>" in page and "(1/7)" in page
    check((tmp_path / "out" / "vbench.tex").read_text(), tmp_path)


def test_a_dimension_with_part_of_its_clips_says_so_and_is_not_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfdbench.generate.suites.vbench_info.find_spec", lambda name: None)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    info = [{"prompt_en": f"p{i}", "dimension": ["scene"]} for i in range(2)]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(info))
    few, many = [{"scene": 0.9}], [{"scene": 0.5 + 0.01 * i} for i in range(2)]
    add_run(tmp_path / "runs" / "dfd", "dfd", 0, few, "vbench")
    runs = [(arm, s) for arm in ("dmd2", "dp_dmd") for s in range(3)]
    for arm, s in runs:  # dmd2 ahead by 0.1 at every training seed
        own = [{"scene": v["scene"] + 0.01 * s - 0.1 * (arm == "dp_dmd")} for v in many]
        folder = tmp_path / "runs" / f"{arm}-{s}"
        add_run(folder, arm, s, own, "vbench")
        with Store(folder / "scores.sqlite") as store:
            for seed in range(1, 5):
                for row in store.samples().itertuples():
                    path = f"videos/{row.prompt_id}-{seed}.mp4"
                    store.add_sample(
                        Row("vbench", path, row.prompt_id, row.prompt, seed, arm, row.sha256)
                    )
    report([tmp_path / "runs"], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert cells(text, "scene") == ["**0.5150**", "0.4150", "0.9000 (1/10)"]
    assert cells(text, "n")[1:] == ["3 seeds, 2 prompts, 30 clips", "1 seed, 1 prompt, 1 clip"]
    assert cells(text, "Semantic")[2].endswith("(1/9, part of the clips)")
    lacking = json.loads((tmp_path / "out" / "vbench.json").read_text())["arms"]["dfd"]["lacking"]
    assert lacking == {"scene": "1/10"}


def test_toy_frames_are_said_wherever_their_scores_are(tmp_path: Path) -> None:
    add_run(tmp_path / "dfd", "dfd", 0, [whole(0, "i2v")], "vbench-i2v", "toy-i2v")
    report([tmp_path], tmp_path / "out", paper_setting="i2v_cosmos_vbench")
    out = tmp_path / "out"
    for name in ("report.md", "index.html", "vbench.json", "vbench.tex"):
        assert "toy-i2v" in (out / name).read_text()
    text = (out / "report.md").read_text()
    assert "conditions: toy-i2v" in text and "toys only" in text
    assert cells(text, "I2V")[0].startswith(f"{totals(whole(0, 'i2v'), 'i2v')['i2v'].value:.4f}")
    assert "conditions toy-i2v" in (out / "paper_table.md").read_text()


def test_sources_of_other_first_frames_are_not_mixed(tmp_path: Path) -> None:
    for name, conditions in (("dfd", "toy-i2v"), ("dmd2", "custom")):
        add_run(tmp_path / name, name, 0, [whole(0, "i2v")], "vbench-i2v", conditions)
    with pytest.raises(UserError, match=r"other first frames \(custom, toy-i2v\); report them"):
        collect([tmp_path])
    assert collect([tmp_path / "dfd"]).chosen is not None


def test_a_suite_without_vbenchs_protocol_has_no_section(tmp_path: Path) -> None:
    add_run(tmp_path / "dfd", "dfd", 0, [{"temporal_flickering": 0.7}], "toy-t2v")
    report([tmp_path], tmp_path / "out", paper_setting="t2v_wan")
    assert "## VBench" not in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "out" / "vbench.json").exists()
    assert "| DFD |  |  | 0.700 |" in (tmp_path / "out" / "paper_table.md").read_text()


def test_without_the_info_file_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfdbench.generate.suites.vbench_info.find_spec", lambda name: None)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    add_run(tmp_path / "dfd", "dfd", 0, [whole(0)], "vbench")
    collected = collect([tmp_path / "dfd"])
    assert collected.vbench.empty and collected.chosen is None
    assert "pip install --no-deps vbench==0.1.5" in collected.skipped[0]


def test_paper_tables_2_3_5_6_and_7_come_from_a_report(tmp_path: Path) -> None:
    arms = ("teacher", "dmd2", "dp_dmd", "dfd", "dfd_batch16", "dfd_batch128", "dfd_without_gan",
            "dfd_with_gan", "dfd_w0.5", "dfd_w1")  # fmt: skip
    for i, arm in enumerate(arms):
        values = whole(0.01 * i, "i2v") | {"i2v_subject": 0.9}
        add_run(tmp_path / "runs" / arm, arm, 0, [values], "vbench-i2v", "custom")
    out = tmp_path / "out"
    arguments = ["report", str(tmp_path / "runs"), "--out", str(out), "--paper", "all"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    text = (out / "paper_table.md").read_text()
    for number in (1, 2, 3, 5, 6, 7):
        assert text.count(f"Published (arXiv 2606.18478, Table {number})") == 1
    check((out / "paper_table.tex").read_text(), tmp_path)
