import json

from dfdbench.quickstart import Sizes, quickstart

TINY_SIZES = Sizes(
    updates=2, further=1, dp_dmd=1, clips=4, batch=2, seeds=1,
    settings=(
        "dp_dmd.grid_steps=4", "dp_dmd.anchor_step=1", "student.steps=2", "log.every=1",
        "log.probe_every=1", "log.decode_every=2",
    ),
)  # fmt: skip


def test_the_whole_chain_leaves_a_report_and_a_second_call_redoes_nothing_else(
    tmp_path, tiny_checkpoint, monkeypatch
):
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    page = quickstart(tmp_path / "q", str(tiny_checkpoint), TINY_SIZES)
    assert page == tmp_path / "q" / "report" / "index.html" and page.is_file()
    summary = json.loads((page.parent / "summary.json").read_text())
    assert list(summary) == ["real", "teacher", "dmd2", "dmd2_control", "dp_dmd", "dfd"]
    assert all("saturation_mean" in metrics for metrics in summary.values())
    assert summary["dfd"]["student_updates"] == 1
    assert summary["dfd"]["student_updates_total"] == 3
    deltas = json.loads((page.parent / "deltas.json").read_text())
    assert "dfd - dmd2_control" in deltas and "dmd2 - teacher" in deltas
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    assert {"seed-grid", "training-curves", "discrepancy"} <= figures

    runs = tmp_path / "q" / "runs"
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*.mp4")}
    before |= {p: p.stat().st_mtime_ns for p in runs.rglob("*.safetensors")}
    assert len([p for p in before if p.suffix == ".mp4"]) == 6 * 12
    monkeypatch.setattr("dfdbench.report.page.report", lambda sources, out: out / "index.html")
    quickstart(tmp_path / "q", str(tiny_checkpoint), TINY_SIZES)
    assert {p: p.stat().st_mtime_ns for p in before} == before
