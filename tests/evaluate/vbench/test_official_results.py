"""The official package's result files: what is read, of whose clips, and where it is kept."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import random_clip, released_videos
from official import TOLERANCE, vbench_site
from typer.testing import CliRunner
from vbench_suites import TWICE, install, named_clips

from dfdbench.cli.app import app
from dfdbench.evaluate.evaluation import evaluate
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.results import read_results, values_by_clip
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video, write_video


def write(path: Path, dimension: str = "color", **values: float | bool) -> Path:
    """A result file as the package writes it; an underscore stands for a folder."""
    videos = [
        {"video_path": f"./{name.replace('_', '/')}", "video_results": value, "more": [1]}
        for name, value in values.items()
    ]
    path.write_text(json.dumps({dimension: [0.5, videos]}))
    return path


def test_values_are_read_in_one_scale(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", **{"a-0.mp4": True, "a-1.mp4": math.nan, "b-0.mp4": 0.25})
    assert read_results([file]) == {
        "color": {"./a-0.mp4": 1.0, "./a-1.mp4": None, "./b-0.mp4": 0.25}
    }
    percent = write(tmp_path / "b.json", "imaging_quality", **{"a-0.mp4": 62.5})
    assert read_results([percent]) == {"imaging_quality": {"./a-0.mp4": 0.625}}


def test_dimensions_without_official_values_are_passed_over(tmp_path: Path) -> None:
    motions = [0.5, {"zoom_in": 0.5}, [{"video_path": "a.mp4", "video_results": True}]]
    (tmp_path / "i2v.json").write_text(json.dumps({"camera_motion": motions, "scene": [0, []]}))
    assert read_results([tmp_path / "i2v.json"]) == {"scene": {}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no JSON", "not JSON"),
        ("[]", "not a valid dictionary"),
        ('{"color": 0.5}', "color: not a valid tuple"),
        ('{"color": [0.5, [{"video_path": "a"}]]}', r"color: lacks '1\.0\.video_results'"),
        ('{"color": [0.5, [{"video_path": "a", "video_results": "good"}]]}', "valid number"),
        ('{"color": [0.5, [{"video_path": "a", "video_results": null}]]}', "valid number"),
    ],
)
def test_another_file_is_one_line_that_names_it(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "x_eval_results.json"
    file.write_text(text)
    with pytest.raises(UserError, match=fault) as caught:
        read_results([file])
    assert str(file) in str(caught.value) and "official package wrote" in str(caught.value)


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", **{"a-0.mp4": 0.5})
    same = write(tmp_path / "same.json", **{"a-0.mp4": 0.5, "b-0.mp4": 0.5})
    assert len(read_results([one, same])["color"]) == 2
    with pytest.raises(UserError, match=r"other\.json: color: another value of \./a-0\.mp4"):
        read_results([one, write(tmp_path / "other.json", **{"a-0.mp4": 0.75})])


def test_a_clip_is_told_by_as_much_of_its_path_as_is_needed() -> None:
    clips = ["clips/dmd2/a-0.mp4", "clips/dfd/a-0.mp4", "clips/dfd/b-0.mp4"]
    assert values_by_clip({"/home/x/b-0.mp4": 0.5}, clips) == {clips[2]: 0.5}
    assert values_by_clip({"/x/dfd/a-0.mp4": 0.5, "/x/dmd2/a-0.mp4": 0.25}, clips) == {
        clips[0]: 0.25,
        clips[1]: 0.5,
    }
    assert values_by_clip({"/x/a-0.mp4": 0.5, "/x/c-0.mp4": 0.5}, clips) == {}
    whole = {"one/videos/cat/0.mp4": 0.25, "two/videos/cat/0.mp4": 0.5}
    assert values_by_clip(whole, list(whole)) == whole
    assert values_by_clip({"/x/dog/0.mp4": 0.5}, ["videos/cat/0.mp4"]) == {}


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return named_clips(tmp_path / "clips", [TWICE], clips=3)


def color(folder: Path) -> list[float | None]:
    with Store(folder / "scores.sqlite") as store:
        values = store.values("vbench", ["color", "official_subject_consistency"])
    return [None if math.isnan(value) else value for value in values["color"]]


def test_values_of_a_result_file_get_the_columns_of_the_package(tmp_path: Path, clips) -> None:
    file = write(tmp_path / "r.json", **{f"{TWICE}-0.mp4": 0.25, f"{TWICE}-2.mp4": math.nan})
    out = tmp_path / "out"
    summary = evaluate(clips, suite="vbench", out=out, metrics=["flicker"], official_results=[file])
    assert summary.skipped == [] and color(out) == [0.25, None, None]
    shown = json.loads((out / "vbench.json").read_text())["methods"]
    (method,) = shown.values()
    assert method["dimensions"]["color"]["score"] == 0.25
    assert (method["dimensions"]["color"]["found"], method["dimensions"]["color"]["expected"]) == (
        1, 5,
    )  # fmt: skip
    # what no prompt asks for is no fault; the values of another file count from now on
    write(file, **{f"{TWICE}-{i}.mp4": 0.5 for i in range(3)})
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scene": [0.5, []]}))
    again = evaluate(clips, suite="vbench", out=out, metrics=["flicker"], official_results=[file])
    assert color(out) == [0.5, 0.5, 0.5] and again.skipped == []


def test_result_files_of_other_clips_are_one_line(tmp_path: Path, clips: Path) -> None:
    write_video(tmp_path / "more" / "another-0.mp4", random_clip(1, 5), fps=8)
    file = write(tmp_path / "r.json", **{"another-0.mp4": 0.25})
    arguments = ["eval", str(clips), "--suite", "vbench", "--metrics", "flicker", "--strict"]
    arguments += ["--out", str(tmp_path / "out"), "--official-results", str(file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3
    assert "skipped: color: the result files name none of the 3 clips that ask" in done.output
    file.write_text("[]")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and not isinstance(done.exception, UserError)


def test_official_values_have_columns_of_their_own_and_change_no_total(tmp_path, clips) -> None:
    out = tmp_path / "out"
    suite = {"suite": "vbench-custom", "out": out, "metrics": ["flicker"]}
    evaluate(clips, **suite)
    (before,) = json.loads((out / "vbench.json").read_text())["methods"].values()
    values = {f"{TWICE}-{i}.mp4": 25.0 * (i + 1) for i in range(3)}
    file = write(tmp_path / "r.json", "imaging_quality", **values)
    again = evaluate(clips, **suite, official_results=[file])
    assert (again.scored, again.skipped) == (0, [])
    (after,) = json.loads((out / "vbench.json").read_text())["methods"].values()
    assert after["totals"] == before["totals"] and after["dimensions"] == before["dimensions"]
    assert after["official"]["official_imaging_quality"]["score"] == 0.5
    assert "| official_imaging_quality | 0.5000 |" in (out / "vbench.md").read_text()


def test_official_scores_weigh_by_frames_where_the_package_does(tmp_path, clips) -> None:
    first = sorted(clips.iterdir())[0]
    write_video(first, random_clip(0, frames=15), fps=8)
    others = len(read_video(sorted(clips.iterdir())[1]).frames)
    values = {f"{TWICE}-{i}.mp4": 0.5 if i else 1.0 for i in range(3)}
    for dimension, pairs in [("background_consistency", 1), ("dynamic_degree", 0)]:
        file = write(tmp_path / "r.json", dimension, **values)
        out = tmp_path / dimension
        evaluate(clips, suite="vbench-custom", out=out, metrics=["flicker"],
                 official_results=[file])  # fmt: skip
        (method,) = json.loads((out / "vbench.json").read_text())["methods"].values()
        weights = [14, others - 1, others - 1] if pairs else [1, 1, 1]
        expected = np.average([1.0, 0.5, 0.5], weights=weights)
        assert method["official"][f"official_{dimension}"]["score"] == pytest.approx(expected)


@pytest.mark.parametrize("option", ["--vbench-python=python", "--official"])
def test_options_that_are_gone_say_what_to_do(option: str, clips: Path) -> None:
    done = CliRunner().invoke(app, ["eval", str(clips), option])
    assert done.exit_code == 2 and "is gone" in done.output
    assert "--official-results" in done.output and done.output.count("\n") == 1


EVALUATE = """
import json, sys
from vbench import VBench
site, clips, out, info = sys.argv[1:]
open(info, "w").write("[]")
VBench("cpu", info, out).evaluate(
    videos_path=clips, name="x", dimension_list=["temporal_flickering"], mode="custom_input",
    local=True,
)
"""


@pytest.mark.slow
def test_the_package_s_own_result_file_agrees_with_ours(tmp_path: Path) -> None:
    site, folder, out = vbench_site(), tmp_path / "clips", tmp_path / "theirs"
    folder.mkdir()
    for path in sorted((released_videos() / "t2v").glob("*.mp4"))[:9:4]:
        (folder / f"{path.stem}-0.mp4").symlink_to(path)
    command = [sys.executable, "-c", EVALUATE, site, str(folder), str(out), str(tmp_path / "i")]
    path = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH", "")]))
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path)
    (file,) = out.glob("*_eval_results.json")
    evaluate(folder, suite="vbench-custom", out=tmp_path, metrics=["vbench_temporal_flickering"],
             official_results=[file])  # fmt: skip
    with Store(tmp_path / "scores.sqlite") as store:
        metrics = ["temporal_flickering", "official_temporal_flickering"]
        values = store.values("vbench-custom", metrics)
    assert len(values) == 3 and values[metrics[1]].nunique() == 3
    assert (values[metrics[0]] - values[metrics[1]]).abs().max() <= TOLERANCE
