"""The engine: decodes once, never twice, survives bad clips and kills, and repeats itself."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clips import random_clip, write_manifest

from dfdbench.evaluate import clip_scores
from dfdbench.evaluate import engine as scoring
from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.flicker import FAMILY as FLICKER
from dfdbench.evaluate.store import Store
from dfdbench.toy import world
from dfdbench.utils import video
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.video import write_video

FAMILIES = ["colour", "flicker"]  # quick ones: the engine is tested here, not the metrics


def score(source: Path, store: Path, **options: object) -> scoring.Summary:
    options = {"families": FAMILIES} | options
    return scoring.score([source], "released-clips", store, **options)  # type: ignore[arg-type]


def table(store: Path) -> pd.DataFrame:
    with Store(store / "scores.sqlite") as opened:
        return opened.table()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that the engine decodes, in order."""
    names: list[str] = []

    def counting(path: Path, policy: str, allow_damaged: bool) -> video.Clip:
        names.append(path.name)
        return video.read_video(path, policy, allow_damaged)

    monkeypatch.setattr(clip_scores, "read_video", counting)
    return names


def test_each_clip_is_decoded_once_for_all_families(tmp_path: Path, decoded: list[str]) -> None:
    summary = score(write_manifest(tmp_path), tmp_path / "out")
    assert sorted(decoded) == [f"dmd2-{i}.mp4" for i in range(4)]
    assert (summary.videos, summary.scored, summary.reused, summary.exit_code) == (4, 4, 0, 0)
    found = table(tmp_path / "out")
    assert {"saturation_mean", "temporal_flickering"} <= set(found["metric"])
    assert (found.groupby("metric")["value"].count() == 4).all()


def test_a_second_run_decodes_nothing_and_changes_nothing(
    tmp_path: Path, decoded: list[str]
) -> None:
    manifest = write_manifest(tmp_path)
    score(manifest, tmp_path / "out")
    before = table(tmp_path / "out")
    decoded.clear()
    summary = score(manifest, tmp_path / "out")
    assert decoded == [] and (summary.scored, summary.reused) == (0, 4)
    pd.testing.assert_frame_equal(table(tmp_path / "out"), before)


def test_only_missing_families_and_changed_files_are_computed(
    tmp_path: Path, decoded: list[str]
) -> None:
    manifest = write_manifest(tmp_path)
    score(manifest, tmp_path / "out", families=["flicker"])
    write_video(tmp_path / "dmd2-2.mp4", random_clip(9), fps=8)
    decoded.clear()
    score(manifest, tmp_path / "out", families=["flicker"])
    assert decoded == ["dmd2-2.mp4"]
    score(manifest, tmp_path / "out")
    assert len(decoded) == 5
    assert set(table(tmp_path / "out").groupby("metric")["value"].count()) == {4}


def test_order_and_workers_change_no_score(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, count=6)
    score(manifest, tmp_path / "one")
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(reversed(lines)), encoding="utf-8")
    score(manifest, tmp_path / "two", workers=3)
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(tmp_path / "two"), atol=1e-12)


def test_a_clip_that_takes_long_keeps_no_other_thread_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, third = write_manifest(tmp_path, count=6), threading.Event()
    work, at_work, most = clip_scores._work, list[str](), list[int]()

    def slow(job: Any, *rest: Any) -> Any:
        name = job.sample.path.name
        at_work.append(name)
        most.append(len(at_work))
        if name == "dmd2-0.mp4":
            assert third.wait(20), "the third clip waits for the first"
        if name == "dmd2-2.mp4":
            third.set()
        try:
            return work(job, *rest)
        finally:
            at_work.remove(name)

    monkeypatch.setattr(clip_scores, "_work", slow)
    summary = score(manifest, tmp_path / "out", workers=2)
    assert summary.scored == 6 and max(most) == 2, "as many clips in memory as workers"


def test_beside_a_gpu_more_clips_are_decoded_than_a_machine_of_few_cores_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cores, cpu, cuda in [(1, 1, 4), (6, 6, 6), (64, 8, 8)]:
        monkeypatch.setattr(clip_scores.os, "cpu_count", lambda cores=cores: cores)
        assert clip_scores.usual_workers("cpu") == cpu
        assert clip_scores.usual_workers("cuda:1") == cuda


def test_scoring_families_together_equals_each_alone(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    score(manifest, tmp_path / "both")
    for family in ("colour", "flicker"):
        score(manifest, tmp_path / "alone", families=[family])
    pd.testing.assert_frame_equal(table(tmp_path / "both"), table(tmp_path / "alone"), atol=1e-12)


def test_bad_clips_are_listed_and_the_rest_is_scored(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    write_video(tmp_path / "single.mp4", random_clip()[:1], fps=8)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("a text that calls itself a video")
    whole = (tmp_path / "dmd2-0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    bad = ["single", "empty", "text", "cut", "missing"]
    with manifest.open("a", encoding="utf-8") as file:
        for name in bad:
            file.write(json.dumps({"path": f"{name}.mp4", "method": "dmd2"}) + "\n")
    summary = score(manifest, tmp_path / "out")
    assert (summary.videos, summary.scored, summary.exit_code) == (9, 4, 1)
    reasons = dict(summary.failures)
    assert sorted(Path(name).stem for name in reasons) == sorted(bad)
    for name, reason in reasons.items():
        assert Path(name).name in reason and "\n" not in reason
    assert sum(line.startswith("left out: ") for line in summary.lines()) == 5
    assert set(table(tmp_path / "out").groupby("metric")["value"].count()) == {4}
    assert score(manifest, tmp_path / "out").scored == 0


def test_a_repaired_clip_is_scored_the_next_time(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    good = (tmp_path / "dmd2-1.mp4").read_bytes()
    (tmp_path / "dmd2-1.mp4").write_bytes(b"")
    assert score(manifest, tmp_path / "out").exit_code == 1
    (tmp_path / "dmd2-1.mp4").write_bytes(good)
    assert score(manifest, tmp_path / "out").exit_code == 0
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        assert store.failures().empty and len(store.samples()) == 4


def test_a_failing_metric_keeps_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(tmp_path)
    real, calls = clip_scores._work, []

    def third_fails(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(clip_scores, "_work", third_fails)
    with pytest.raises(KeyboardInterrupt):
        score(manifest, tmp_path / "out", workers=1)
    assert len(table(tmp_path / "out")["seed"]) == 2 * 11
    monkeypatch.setattr(clip_scores, "_work", real)
    summary = score(manifest, tmp_path / "out")
    assert (summary.scored, summary.reused) == (2, 2)


SLOW_RUN = """
import sys, time
from dfdbench.evaluate import clip_scores
from dfdbench.evaluate.engine import score
work = clip_scores._work
def slowly(*arguments):
    time.sleep(0.05)
    return work(*arguments)
clip_scores._work = slowly
score([sys.argv[1]], "released-clips", sys.argv[2], families=["colour", "flicker"])
"""


def start(manifest: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(manifest), str(out)],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finished(store: Path) -> int:
    if not store.exists():
        return 0
    with Store(store) as opened:
        return len(opened.samples())


def test_ten_kills_lose_nothing_that_was_finished_and_end_in_the_same_table(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, count=44)
    store = tmp_path / "killed" / "scores.sqlite"
    rng = random.Random(0)
    counts = [0]
    for _ in range(10):
        process = start(manifest, store.parent)
        limit = time.monotonic() + 60
        # At random, but after at least one more clip: a kill during start-up shows nothing.
        while finished(store) <= counts[-1] and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(finished(store))
    assert counts == sorted(set(counts)) and counts[-1] < 44, counts
    summary = score(manifest, store.parent)
    assert (summary.reused, summary.scored) == (counts[-1], 44 - counts[-1])
    score(manifest, tmp_path / "unbroken")
    pd.testing.assert_frame_equal(table(store.parent), table(tmp_path / "unbroken"))
    with Store(store) as killed, Store(tmp_path / "unbroken" / "scores.sqlite") as unbroken:
        for metric in ("saturation_histogram",):
            left, right = (np.stack(list(s.arrays(metric)["array"])) for s in (killed, unbroken))
            assert np.array_equal(left, right)


def toy_run(folder: Path, seeds: int = 3) -> Path:
    """A run folder with clips of two captions, as generation writes it."""
    videos = folder / "videos" / "toy-t2v"
    rows = []
    for caption in world.captions()[:2]:
        attributes = world.sample_attributes(seeds, 0, caption.shape, caption.scene)
        clips = world.render(attributes).permute(0, 2, 3, 4, 1).numpy()
        for seed, frames in enumerate((clips * 255).round().astype(np.uint8), start=1):
            path = f"{caption.id}/{seed}.mp4"
            write_video(videos / path, frames, fps=8)
            rows.append(
                {"path": path, "prompt_id": caption.id, "seed": seed, "method": "real"}
                | {"prompt": caption.text}
            )
    (videos / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "run.json").write_text("{}")
    return folder


def test_a_toy_run_gets_clip_and_prompt_values_in_its_own_store(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", seeds=8)
    summary = scoring.score([run], "toy-t2v")
    assert summary.stores == [run / "scores.sqlite"] and summary.scored == 16
    assert len(summary.missing) == 1 and "14 of 16" in summary.missing[0]
    found = table(run)
    groups = found[found["level"] == "prompt"]
    accuracy = groups[groups["metric"] == "scene_accuracy"]
    assert accuracy["value"].tolist() == [1, 1] and accuracy["n"].tolist() == [8, 8]
    assert set(groups[groups["metric"] == "hue_gini"]["n"]) == {8}
    with Store(run / "scores.sqlite") as store:
        assert all(p.startswith("videos/toy-t2v/") for p in store.samples()["path"])


def test_clips_that_a_run_no_longer_names_leave_its_groups(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    scoring.score([run], "toy-t2v")
    listing = run / "videos" / "toy-t2v" / "samples.jsonl"
    lines = listing.read_text(encoding="utf-8").splitlines()
    listing.write_text("\n".join(lines[:2]), encoding="utf-8")
    scoring.score([run], "toy-t2v")
    found = table(run)
    accuracy = found[found["metric"] == "scene_accuracy"]
    assert accuracy["n"].tolist() == [2]
    assert (found[found["level"] == "video"].groupby("metric")["value"].count() == 2).all()


def test_several_inputs_can_share_a_store(tmp_path: Path) -> None:
    for method in ("dmd2", "dfd"):
        (tmp_path / method).mkdir()
        write_manifest(tmp_path / method, method=method)
    inputs = [tmp_path / "dmd2", tmp_path / "dfd"]
    scoring.score(inputs, "released-clips", tmp_path / "all.sqlite", families=FAMILIES)
    with Store(tmp_path / "all.sqlite") as store:
        assert store.samples().groupby("method").size().to_dict() == {"dfd": 4, "dmd2": 4}


def test_what_does_not_exist_is_refused_before_any_work(tmp_path: Path, decoded: list[str]) -> None:
    manifest = write_manifest(tmp_path)
    with pytest.raises(UserError, match="did you mean released-clips"):
        scoring.score([manifest], "released-clip", tmp_path / "out")
    with pytest.raises(UserError, match="flicker"):
        score(manifest, tmp_path / "out", families=["flickr"])
    with pytest.raises(UserError, match="prompt id of suite toy-t2v 'p0'"):
        scoring.score([manifest], "toy-t2v", tmp_path / "out")
    with pytest.raises(UserError, match="nothing to score"):
        scoring.score([], "toy-t2v")
    assert decoded == [] and not (tmp_path / "out").exists()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a family with a network is given, on a machine where torch says that it has a GPU."""
    import torch

    seen: dict[str, object] = {}

    def load(setting: Setting) -> Compute:
        seen["device"] = setting.device

        def compute(clip: video.Clip) -> dict[str, float]:
            seen["tf32"] = torch.backends.cudnn.allow_tf32
            return {"probed": 1.0}

        return compute

    metric = Metric("probed", "higher", "", (0, 1), "", "")
    family = MetricFamily("probe", "all", (metric,), load, model=True)
    monkeypatch.setattr(scoring, "get_family", {"probe": family, "flicker": FLICKER}.get)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    return seen


def test_networks_score_on_the_gpu_in_whole_float32_and_leave_tf32_as_it_was(
    tmp_path: Path, probe: dict[str, object]
) -> None:
    import torch

    before = torch.backends.cudnn.allow_tf32
    score(write_manifest(tmp_path), tmp_path / "out", families=["probe"], setting=Setting("auto"))
    assert probe == {"device": "cuda", "tf32": False}
    assert torch.backends.cudnn.allow_tf32 is before is True, "a training that follows has its own"
    with Store(tmp_path / "out" / "scores.sqlite") as opened:
        keys = [opened.known(sha256_file(path)) for path in tmp_path.glob("*.mp4")]
    assert len(keys) == 4 and {key.device for own in keys for key in own} == {"cuda"}


def test_without_networks_no_gpu_is_looked_for(
    tmp_path: Path, probe: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(scoring, "choose_device", lambda name: asked.append(name) or name)
    score(write_manifest(tmp_path), tmp_path / "out", families=["flicker"], setting=Setting("auto"))
    assert asked == ["cpu"]
