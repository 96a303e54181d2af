"""Curves over time and strips of frames: what they show is what the stores hold."""

from pathlib import Path

import numpy as np
import pytest
from clips import random_clip

from dfdbench.evaluate.metrics import GroupValue, all_metrics, get_family
from dfdbench.evaluate.metrics.drift import SERIES
from dfdbench.evaluate.metrics.oracle_drift import COLUMNS, PARTS
from dfdbench.evaluate.schema import Key, Row, Shape
from dfdbench.evaluate.store import Store
from dfdbench.report.collect import collect
from dfdbench.report.over_time import curves_over_time, frames_over_time, panels_of
from dfdbench.utils.run import Run
from dfdbench.utils.video import write_video

SUITE, FRAMES, FPS = "ar-long", 40, 8  # 5 s, 10 segments


def add_run(folder: Path, arm: str, seed: int, level: float, arrays: dict, long: int = 2) -> Run:
    """A run with `long` clips of each of two prompts, whose saturation rises to `level`."""
    info = {"arm": arm, "method": "dmd2", "training_seed": seed, "model": "toy-t2v"}
    run = Run.create(folder, {**info, "status": "finished"})
    version = {m.name: m.version for m in all_metrics().values()}
    with Store(run.path / "scores.sqlite") as store:
        for p in ("a", "b"):
            for clip in range(long):
                path = run.videos / SUITE / p / f"{clip}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, random_clip(clip, FRAMES, 16, 16), FPS)
                sha = f"{arm}-{seed}-{p}-{clip}"
                row = Row(SUITE, store.name_of(path), p, f"a {p}", clip, arm, sha)
                series = np.zeros((10, 4), np.float32)
                series[:, 0] = level * np.linspace(0, 1, 10) + 0.1 * clip
                values = {"drift_saturation": level, SERIES: series}
                values |= {name: array(clip) for name, array in arrays.items()}
                keys = {
                    Key(sha, name, version[name], "", "all", "d", "float32", "cpu"): value
                    for name, value in values.items()
                }
                store.add_scores(row, keys, Shape(16, 16, FRAMES, FPS))
        if arrays:
            groups = {(arm, p): {"effnet_lite2_diversity": GroupValue(0.5, long)} for p in "ab"}
            store.set_groups(SUITE, {"effnet_lite2_diversity": 1}, groups)
        store.set_meta({f"suite {SUITE}": "1", f"families {SUITE}": "drift"})
    return run


def test_a_curve_is_the_mean_of_clips_then_prompts_of_each_training_seed(tmp_path):
    for seed, level in ((1, 0.2), (2, 0.4)):
        add_run(tmp_path / f"dfd-{seed}", "dfd", seed, level, {})
    add_run(tmp_path / "dmd2", "dmd2", 1, 0.0, {})
    panels = panels_of(collect([tmp_path]))
    assert [panel.label.split()[0] for panel in panels] == ["mean", "mean", "contrast", "sharpness"]
    curves = panels[0].curves
    assert {arm: len(own) for arm, own in curves.items()} == {"dfd": 2, "dmd2": 1}
    for (time, values), level in zip(curves["dfd"], (0.2, 0.4), strict=True):
        assert np.allclose(time, np.arange(10) * 0.5 + 0.25)
        assert np.allclose(values, level * np.linspace(0, 1, 10) + 0.05)
    assert np.allclose(curves["dmd2"][0][1], 0.05)


def test_diversity_over_time_is_of_each_prompts_clips(tmp_path):
    def parts(clip: int) -> np.ndarray:
        own = np.zeros((10, len(COLUMNS)), np.float32)
        own[:, 0] = 1
        own[:5, COLUMNS.index("oracle_hue")] = clip % 6  # hues differ in the first half alone
        return own

    def features(clip: int) -> np.ndarray:
        own = np.zeros((16, 8), np.float32)
        own[:, 0] = 1
        own[8:] = np.eye(8)[clip]  # orthogonal in the second half alone
        return own

    arrays = {PARTS: parts, "effnet_lite2_features": features}
    add_run(tmp_path / "dmd2", "dmd2", 1, 0.1, arrays, long=8)
    panels = {panel.label: panel.curves["dmd2"][0] for panel in panels_of(collect([tmp_path]))}
    hue = panels["hue Gini–Simpson of a prompt's clips"][1]
    assert (hue[:5] > 0.3).all() and np.allclose(hue[5:], 0)
    assert np.allclose(panels["share of whole sprites"][1], 1)
    time, diversity = panels["EfficientNet-Lite2 diversity over seeds"]
    assert np.allclose(diversity, [0] * 8 + [1] * 8) and (time[0], time[-1]) == (0, 5)


def test_figures_are_drawn_where_there_is_drift_alone(tmp_path):
    add_run(tmp_path / "dmd2", "dmd2", 1, 0.1, {})
    collected = collect([tmp_path])
    curves, strip = curves_over_time(collected), frames_over_time(collected, "b")
    assert curves is not None and strip is not None and "prompt b" in str(strip.get_label())
    titles = [axis.get_title() for axis in strip.axes]
    assert titles[0] == "0.0 s" and titles[-1] == "4.9 s" and len(titles) == 8
    (tmp_path / "dmd2/videos" / SUITE / "a/0.mp4").write_bytes(b"no video")
    again = collect([tmp_path])
    assert frames_over_time(again, "a") is None
    assert any("a/0.mp4" in line for line in again.skipped)


def test_a_report_without_long_clips_has_no_such_figure(tmp_path):
    run = add_run(tmp_path / "dmd2", "dmd2", 1, 0.1, {})
    names = [m.name for m in get_family("drift").metrics]
    with Store(run.path / "scores.sqlite") as store:
        marks = ", ".join("?" * len(names))
        store._db.execute(
            f"DELETE FROM scores WHERE metric = ? OR metric IN ({marks})", ("x", *names)
        )
        store._db.execute("UPDATE scores SET metric = 'saturation_mean'")
        key = Key("dmd2-1-a-0", "saturation_mean", 1, "", "even16", "d", "float32", "cpu")
        sample = store.samples(SUITE).iloc[0]
        row = Row(SUITE, sample["path"], "a", "a a", 0, "dmd2", sample["sha256"])
        store.add_scores(row, {key: 0.3})
    collected = collect([tmp_path])
    assert curves_over_time(collected) is None and frames_over_time(collected) is None


@pytest.mark.parametrize("frames", [(40, 40), (40, 24)])
def test_clips_of_another_length_are_not_averaged_in(tmp_path, frames):
    run = add_run(tmp_path / "dmd2", "dmd2", 1, 0.1, {})
    odd = "dmd2-1-a-1"
    with Store(run.path / "scores.sqlite") as store:
        store._db.execute("DELETE FROM scores WHERE sha256 = ? AND metric = ?", (odd, SERIES))
        row = next(
            Row(SUITE, r["path"], "a", "a a", 1, "dmd2", odd)
            for r in store.samples(SUITE).to_dict("records")
            if r["sha256"] == odd
        )
        rows = 10 if frames[1] == 40 else 6
        key = Key(odd, SERIES, 1, "", "all", "d", "float32", "cpu")
        store.add_scores(
            row, {key: np.full((rows, 4), 9, np.float32)}, Shape(16, 16, frames[1], FPS)
        )
    curve = panels_of(collect([tmp_path]))[0].curves["dmd2"][0][1]
    assert (curve.max() > 1) == (rows == 10)
