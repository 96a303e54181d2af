"""The bridge to the official package: what it asks, what it keeps, and every way that it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import random_clip, released_videos
from fake_vbench import Fake, alive, value_of
from official import TOLERANCE, vbench_site
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.engine import Summary, score
from dfdbench.evaluate.metrics.vbench.bridge import NATIVE
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.bridge import Bridge, open_bridge
from dfdbench.evaluate.vbench.official import find_files
from dfdbench.evaluate.vbench.totals import COLUMNS
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.utils.assets import ASSETS
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.video import write_video

PYTHON = Path(sys.executable)
(GRIT,) = ASSETS["vbench/grit"].files
PROMPTS = (
    Prompt("cat", "a cat", dimensions=("object_class", "dynamic_degree"),
           auxiliary={"object_class": {"object": "cat"}}),
    Prompt("red-dog", "a red dog", dimensions=("color", "object_class"),
           auxiliary={"color": {"color": "red"}, "object_class": {"object": "dog"}}),
    Prompt("two", "a cat and a dog", dimensions=("multiple_objects",),
           auxiliary={"multiple_objects": {"object": "cat and dog"}}),
)  # fmt: skip
SUITE = Suite("few", 1, "", PROMPTS, (0,), ("flicker",), info_sha256="of a file")
SMALL = """
import sys
from pathlib import Path
from test_bridge import SUITE
from dfdbench.evaluate.engine import score
from dfdbench.evaluate.vbench.bridge import Bridge
run = Bridge(Path(sys.executable), ("object_class", "multiple_objects", "color")).run
score([sys.argv[1]], SUITE, sys.argv[2], afterwards=run)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The package and its weights, with this interpreter as the one that has it."""
    made = Fake(tmp_path / "official")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "hashes"))
    for path in (p for a in ASSETS.values() if a.url and a.dimensions for p in a.files):
        (tmp_path / "cache" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / path).write_text(path)
    code = tmp_path / "cache" / "dino_model" / "facebookresearch_dino_main"
    code.mkdir()
    (code / "hubconf.py").touch()
    return made


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A manifest of two clips of each prompt."""
    rows = []
    for i in range(6):
        prompt, file = PROMPTS[i % 3], f"clip {i}.mp4"
        write_video(tmp_path / file, random_clip(i, frames=5), fps=8)
        rows.append({"path": file, "prompt_id": prompt.id, "prompt": prompt.text,
                     "seed": i // 3, "method": "m"})  # fmt: skip
    manifest = tmp_path / "few.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def bridge(*dimensions: str) -> Bridge:
    return Bridge(PYTHON, dimensions)


def run(clips: Path, *dimensions: str, suite: Suite = SUITE) -> Summary:
    return score([clips], suite, clips.parent / "out", afterwards=bridge(*dimensions).run)


def found(clips: Path, metrics: Sequence[str], suite: Suite = SUITE) -> pd.DataFrame:
    with Store(clips.parent / "out" / "scores.sqlite") as store:
        return store.values(suite.name, metrics)


def test_each_clip_gets_its_own_value_where_its_prompt_asks_for_one(
    fake: Fake, clips: Path
) -> None:
    assert run(clips, "object_class", "multiple_objects", "color").skipped == []
    assert fake.asked() == [("object_class", 4), ("multiple_objects", 2), ("color", 2)]
    asks = {prompt.id: prompt.dimensions for prompt in PROMPTS}
    values = found(clips, ["object_class", "multiple_objects", "color"])
    assert len(values) == 6
    for row in values.to_dict("records"):
        for dimension in ("object_class", "multiple_objects", "color"):
            expected = value_of(clips.parent / "out" / row["path"])
            if dimension in asks[row["prompt_id"]]:
                assert row[dimension] == pytest.approx(expected)
            else:
                assert pd.isna(row[dimension])


def test_the_package_is_called_as_its_command_line_calls_it(fake: Fake, clips: Path) -> None:
    run(clips, "color")
    init, compute = fake.log()
    assert init == {
        "call": "init", "dimensions": ["color"], "local": True,
        "files": [GRIT],
    }  # fmt: skip
    assert compute["modules"] == {"of": "color"}
    assert (compute["device"], compute["offline"]) == ("cpu", "1")
    assert compute["cache"] != os.environ["VBENCH_CACHE_DIR"]  # a folder of links
    for entry in compute["entries"]:
        (path,) = entry["video_list"]
        assert entry["prompt_en"] == "a red dog" and Path(path).name == "a red dog-0.mp4"
        assert entry["auxiliary_info"] == dict(PROMPTS[1].auxiliary)


def test_only_clips_without_a_value_are_sent(fake: Fake, clips: Path) -> None:
    run(clips, "object_class")
    fake.behave()
    assert run(clips, "object_class").skipped == [] and fake.log() == []
    write_video(clips.parent / "clip 0.mp4", random_clip(9, frames=5), fps=8)
    run(clips, "object_class")
    assert fake.asked() == [("object_class", 1)]
    (Path(os.environ["VBENCH_CACHE_DIR"]) / GRIT).write_text("other weights")
    run(clips, "object_class")
    assert fake.asked()[1:] == [("object_class", 4)]


def test_prompts_that_do_not_ask_start_nothing(fake: Fake, clips: Path) -> None:
    assert run(clips, "scene", "appearance_style").skipped == [] and fake.log() == []


def test_a_dimension_that_fails_is_one_line_and_the_rest_is_kept(fake: Fake, clips: Path) -> None:
    fake.behave(fail=["multiple_objects"])
    summary = run(clips, "object_class", "multiple_objects", "color")
    (line,) = summary.skipped
    log = clips.parent / "out" / "vbench-official" / "multiple_objects.log"
    assert line.startswith("multiple_objects: official vbench 0.1.5 failed (fell over")
    assert str(log) in line and "\n" not in line
    assert "ValueError: the detector" in log.read_text()
    values = found(clips, ["object_class", "multiple_objects", "color"])
    assert values.notna().sum()[["object_class", "multiple_objects", "color"]].tolist() == [4, 0, 2]
    fake.behave()
    assert run(clips, "object_class", "multiple_objects", "color").skipped == []
    assert fake.asked() == [("multiple_objects", 2)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kill_in_the_second_dimension_leaves_no_orphan_and_keeps_the_first(
    fake: Fake, clips: Path, how: signal.Signals
) -> None:
    fake.behave(hang=["multiple_objects"])
    tests = Path(__file__).parent
    path = [str(tests), str(tests.parent), str(tests.parent.parent), str(fake.site)]
    # Background jobs of a shell without job control inherit an ignored SIGINT.
    begin = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    started = subprocess.Popen(
        [sys.executable, "-c", begin + "sys.path.remove(sys.argv.pop()); " + SMALL,
         str(clips), str(clips.parent / "out"), str(fake.site)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    limit = time.monotonic() + 60
    while len(fake.asked()) < 2 and started.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    assert len(fake.asked()) == 2, started.communicate()[1]
    worker = fake.log()[-1]["pid"]
    assert alive(worker)
    started.send_signal(how)
    started.communicate(timeout=30)
    limit = time.monotonic() + 10
    while alive(worker) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not alive(worker)
    assert found(clips, ["object_class"])["object_class"].notna().sum() == 4
    fake.behave()
    run(clips, "object_class", "multiple_objects", "color")
    assert fake.asked() == [("multiple_objects", 2), ("color", 2)]


def test_a_clip_left_out_of_color_has_no_value_and_is_not_asked_about_again(
    fake: Fake, clips: Path
) -> None:
    fake.behave(drop=["color"])
    assert run(clips, "color").skipped == []
    assert found(clips, ["color"])["color"].notna().sum() == 1
    fake.behave(drop=["color"])
    assert run(clips, "color").skipped == [] and fake.log() == []


@pytest.mark.parametrize("how", ["drop", "odd"])
def test_an_answer_about_other_clips_is_refused(fake: Fake, clips: Path, how: str) -> None:
    fake.behave(**{how: ["object_class"]})
    (line,) = run(clips, "object_class").skipped
    assert "object_class: official vbench 0.1.5 answered for" in line and "object_class.log" in line
    assert found(clips, ["object_class"])["object_class"].isna().all()


def test_nothing_is_downloaded(fake: Fake, clips: Path) -> None:
    fake.behave(download=["object_class"])
    (line,) = run(clips, "object_class").skipped
    assert "object_class: official vbench 0.1.5 failed" in line and "refused" in line


def test_missing_weights_are_named_and_nothing_is_started(fake: Fake, clips: Path) -> None:
    cache = Path(os.environ["VBENCH_CACHE_DIR"])
    (cache / GRIT).unlink()
    (line,) = run(clips, "color").skipped
    assert line.startswith("color: no grit_b_densecap_objectdet.pth")
    assert str(cache / GRIT) in line and fake.log() == []
    (cache / "dino_model" / "facebookresearch_dino_main" / "hubconf.py").unlink()
    with pytest.raises(MissingWeights, match="clone"):
        find_files("subject_consistency")


def test_official_values_have_columns_of_their_own(fake: Fake, clips: Path) -> None:
    dimensions = ("temporal_flickering", "imaging_quality", "subject_consistency")
    suite = get_suite("vbench-custom")
    before = score([clips], suite, clips.parent / "out", families=["flicker"])
    totals = json.loads((clips.parent / "out" / "vbench.json").read_text())
    summary = score(
        [clips], suite, clips.parent / "out", families=["flicker"],
        afterwards=bridge(*dimensions).run,
    )  # fmt: skip
    assert (before.scored, summary.scored, summary.skipped) == (6, 0, [])
    official = [f"official_{name}" for name in dimensions]
    values = found(clips, [*official, "temporal_flickering", *COLUMNS], suite)
    for row in values.to_dict("records"):
        expected = value_of(clips.parent / "out" / row["path"])
        assert [row[name] for name in official] == pytest.approx([expected] * 3)
        assert row["temporal_flickering"] > 0.5 != pytest.approx(expected)
    assert values["imaging_quality"].isna().all()
    frames = found(clips, ["official_subject_consistency_frames"], suite)
    assert set(frames["official_subject_consistency_frames"]) == {4}  # five frames, four pairs
    after = json.loads((clips.parent / "out" / "vbench.json").read_text())
    assert after["methods"]["m"]["totals"] == totals["methods"]["m"]["totals"]
    assert after["methods"]["m"]["dimensions"] == totals["methods"]["m"]["dimensions"]
    shown = after["methods"]["m"]["official"]
    mean = np.mean([value_of(path) for path in clips.parent.glob("clip *.mp4")])
    assert {name: shown[name]["score"] for name in official} == pytest.approx(
        dict.fromkeys(official, mean)
    )
    text = (clips.parent / "out" / "vbench.md").read_text(encoding="utf-8")
    assert f"| official_imaging_quality | {mean:.4f} |" in text


def test_official_scores_weigh_by_frames_where_the_package_does(fake: Fake, clips: Path) -> None:
    write_video(clips.parent / "clip 0.mp4", random_clip(0, frames=15), fps=8)
    suite = get_suite("vbench-custom")
    asked = bridge("background_consistency", "appearance_style").run
    out = clips.parent / "out"
    # without a family of ours that has seen the clips
    summary = score([clips], suite, out, families=[], afterwards=asked)
    (line,) = summary.skipped
    assert line.startswith("official_appearance_style: ") and "--suite vbench" in line
    weights = {f"clip {i}.mp4": 14 if i == 0 else 4 for i in range(6)}
    expected = np.average(
        [value_of(clips.parent / name) for name in weights], weights=list(weights.values())
    )
    shown = json.loads((out / "vbench.json").read_text())["methods"]["m"]["official"]
    assert shown["official_background_consistency"]["score"] == pytest.approx(expected)


def test_options_say_what_they_need(fake: Fake) -> None:
    custom = get_suite("vbench-custom")
    assert open_bridge(None, [], [], SUITE, "cpu") is None
    with pytest.raises(UserError, match="--official all needs --vbench-python"):
        open_bridge(None, ["all"], [], SUITE, "cpu")
    with pytest.raises(UserError, match="did you mean dynamic_degree"):
        open_bridge(PYTHON, ["dynamic_degre"], [], SUITE, "cpu")
    with pytest.raises(UserError, match="--suite vbench"):
        open_bridge(PYTHON, [], [], custom, "cpu")
    opened = open_bridge(PYTHON, ["all"], [], SUITE, "cpu")
    assert opened and opened.dimensions == ("object_class", "multiple_objects", "color", *NATIVE)
    opened = open_bridge(PYTHON, ["human_action", "dynamic_degree"], [], custom, "cuda")
    assert opened == Bridge(PYTHON, ("human_action", "dynamic_degree"), "cuda")


def test_a_bad_option_exits_with_2_and_a_failed_dimension_with_3_under_strict(
    fake: Fake, clips: Path
) -> None:
    common = ["eval", str(clips), "--suite", "clips", "--metrics", "flicker"]
    common += ["--out", str(clips.parent / "out"), "--official", "dynamic_degree"]
    bad = CliRunner().invoke(app, [*common, "--vbench-python", str(clips.parent / "python")])
    assert bad.exit_code == 2 and not (clips.parent / "out").exists()
    common += ["--vbench-python", str(PYTHON)]
    assert CliRunner().invoke(app, [*common, "--strict"]).exit_code == 0
    fake.behave(fail=["human_action"])
    common[-3] = "human_action"
    failed = CliRunner().invoke(app, common)
    assert failed.exit_code == 0 and "skipped: official_human_action: " in failed.output
    assert CliRunner().invoke(app, [*common, "--strict"]).exit_code == 3


@pytest.mark.slow
def test_the_package_itself_agrees_through_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = vbench_site()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]))
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in sorted((released_videos() / "t2v").glob("*.mp4"))[:9:4]:
        (folder / f"{path.stem}-0.mp4").symlink_to(path)
    texts = ["eval", str(folder), "--suite", "vbench-custom", "--metrics", "flicker"]
    texts += ["--out", str(tmp_path / "out"), "--vbench-python", sys.executable]
    done = CliRunner().invoke(app, [*texts, "--official", "temporal_flickering"])
    assert done.exit_code == 0, done.output
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        metrics = ["temporal_flickering", "official_temporal_flickering"]
        values = store.values("vbench-custom", metrics)
    assert len(values) == 3 and values[metrics[1]].nunique() == 3
    assert (values[metrics[0]] - values[metrics[1]]).abs().max() <= TOLERANCE
