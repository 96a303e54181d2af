"""`dfdbench vbench export`: a set of VBench's files an arm, and what its readers find in them."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.schema import Key, Row
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import PROTOCOLS, totals
from dfdbench.generate.suites.dimensions import DIMENSIONS, T2V
from dfdbench.utils.files import sha256_file

INFO = [
    {"prompt_en": "a cat", "dimension": ["subject_consistency", "temporal_flickering"]},
    {
        "prompt_en": "a red car",
        "dimension": ["color", "subject_consistency"],
        "auxiliary_info": {"color": {"color": "red"}},
    },
]


@pytest.fixture(autouse=True)
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An info file of two prompts in VBench's cache, whatever package is installed."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr("dfdbench.generate.suites.vbench_info.find_spec", lambda name: None)
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "VBench_full_info.json"
    path.write_text(json.dumps(INFO))
    return path


def add(
    folder: Path,
    suite: str,
    method: str,
    prompt: str,
    seed: int,
    values: Mapping[str, float],
    **meta: str,
) -> None:
    """One scored clip of a method; consistencies over 16 frames."""
    sha = f"{suite}{method}{prompt}{seed}"
    found = dict(values)
    for name in set(values) & set(DIMENSIONS):
        if DIMENSIONS[name].by_frame:
            found[f"{name}_frames"] = 16.0
    keys = {Key(sha, k, 1, "", "all", "d", "float32", "cpu"): v for k, v in found.items()}
    path = f"videos/{method}/{prompt}-{seed}.mp4"
    with Store(folder / "scores.sqlite") as store:
        store.add_scores(
            Row(suite, path, prompt.replace(" ", "-"), prompt, seed, method, sha), keys
        )
        store.set_meta({f"{key} {suite}": text for key, text in meta.items()})


@pytest.fixture
def scores(tmp_path: Path, info: Path) -> Path:
    """Two methods of suite vbench: three clips of a cat, two of them static, and one of a car."""
    folder = tmp_path / "scores"
    for method, shift in (("dfd", 0.0), ("dmd2", 0.1)):
        for seed, (flicker, static) in enumerate([(0.8, 1.0), (0.6, 1.0), (0.2, 0.0)]):
            values = {
                "temporal_flickering": flicker + shift,
                "static": static,
                "subject_consistency": 0.5 + shift,
            }
            add(folder, "vbench", method, "a cat", seed, values, info=sha256_file(info))
        car = {"color": 0.5, "subject_consistency": 0.8, "temporal_flickering": 0.0, "static": 1.0}
        add(folder, "vbench", method, "a red car", 0, car)
    return folder


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["vbench", "export", *map(str, arguments)])
    return done.exit_code, done.output


def read_submission(archive: Path, folder: Path) -> dict[str, float]:
    """As cal_final_score.py reads an archive: unpacked, JSON objects, first elements, spaces."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    found = dict.fromkeys((name.replace("_", " ") for name in T2V), 0.0)
    for file in folder.iterdir():
        if not file.name.startswith((".", "__")) and file.name.endswith("json"):
            content = json.loads(file.read_text())
            if isinstance(content, dict):
                found |= {key.replace("_", " "): content[key][0] for key in content}
    return found


def loaded_by_dimension(info: Path, dimension: str) -> list[dict[str, Any]]:
    """As VBench's dimensions read the list of what to evaluate: clips and what a prompt asks."""
    entries = json.loads(info.read_text())
    return [
        {"prompt": e["prompt_en"], "video_list": e["video_list"]}
        | ({"auxiliary_info": e["auxiliary_info"][dimension]} if "auxiliary_info" in e else {})
        for e in entries
        if dimension in e["dimension"] and "video_list" in e
    ]


def test_each_method_gets_files_that_vbenchs_readers_understand(
    scores: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text = run(scores, "--suite", "vbench", "--out", out)
    assert code == 0, text
    assert sorted(p.name for p in out.iterdir()) == [
        f"{m}{end}"
        for m in ("dfd", "dmd2")
        for end in ("_3of16.zip", "_eval_results.json", "_full_info.json")
    ]
    assert "dfd: 3 of 16 dimensions" in text and f"relative to {scores}" in text
    for method, shift in (("dfd", 0.0), ("dmd2", 0.1)):
        found = read_submission(out / f"{method}_3of16.zip", tmp_path / method)
        # flickering: static clips of the cat only; the car's clip is for other dimensions
        assert found["temporal flickering"] == pytest.approx(0.7 + shift)
        assert found["subject consistency"] == pytest.approx((3 * (0.5 + shift) + 0.8) / 4)
        assert found["color"] == 0.5 and found["scene"] == 0
        assert len(found) == 16
    (car,) = loaded_by_dimension(out / "dfd_full_info.json", "color")
    assert car == {
        "prompt": "a red car",
        "video_list": ["videos/dfd/a red car-0.mp4"],
        "auxiliary_info": {"color": "red"},
    }


def test_all_dimensions_give_a_whole_zip_with_our_totals(tmp_path: Path, info: Path) -> None:
    entry = {"prompt_en": "a cat", "dimension": list(T2V)}
    info.write_text(json.dumps([entry]))
    values = {name: 0.3 + 0.03 * i for i, name in enumerate(T2V)} | {"static": 1.0}
    add(tmp_path, "vbench", "dfd", "a cat", 0, values)
    code, text = run(tmp_path, "--out", tmp_path / "out", "--name", "mine", "--json")
    assert code == 0, text
    made = json.loads(text)
    assert made["methods"]["dfd"]["dimensions"] == made["expected"] == 16
    archive = tmp_path / "out" / "mine.zip"
    assert made["methods"]["dfd"]["files"][-1] == str(archive)
    read = read_submission(archive, tmp_path / "unpacked")
    assert {k.replace(" ", "_"): v for k, v in read.items()} == pytest.approx(
        {name: values[name] for name in T2V}
    )
    assert totals({k.replace(" ", "_"): v for k, v in read.items()}, "t2v")["total"].label == ""


def test_a_single_method_may_be_chosen_and_named(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(scores, "--arm", "dmd2", "--name", "A.1", "--out", out)[0] == 0
    assert {p.name for p in out.iterdir()} == {
        "A.1_3of16.zip", "A.1_eval_results.json", "A.1_full_info.json",
    }  # fmt: skip


def test_toy_frames_are_in_the_name_of_the_files(tmp_path: Path) -> None:
    values = {"i2v_subject": 0.9}
    add(tmp_path, "vbench-i2v", "dfd", "ball-desert", 1, values, conditions="toy-i2v")
    code, text = run(tmp_path, "--out", tmp_path / "out")
    assert code == 0 and "conditions: toy-i2v" in text
    assert (tmp_path / "out" / "dfd-toy-i2v_1of9.zip").is_file()
    assert len(PROTOCOLS["i2v"].dimensions) == 9


def test_any_clips_are_exported_with_their_own_prompts(tmp_path: Path) -> None:
    add(tmp_path, "vbench-custom", "dfd", "my own words", 0, {"imaging_quality": 0.5})
    assert run(tmp_path, "--out", tmp_path / "out")[0] == 0
    (entry,) = json.loads((tmp_path / "out" / "dfd_full_info.json").read_text())
    assert (entry["prompt_en"], entry["dimension"]) == ("my own words", ["imaging_quality"])


def test_what_cannot_be_exported_is_said_in_one_line(
    scores: Path, tmp_path: Path, info: Path
) -> None:
    add(scores, "vbench-custom", "dfd", "a cat", 0, {"imaging_quality": 0.5})
    add(scores, "toy-t2v", "dfd", "ball-desert", 1, {"temporal_flickering": 0.5})
    out = ("--out", tmp_path / "out")
    info_moved = ("--suite", "vbench", *out)
    for arguments, says in (
        ((tmp_path / "nothing", *out), "nothing: no scores here; run `dfdbench eval"),
        ((scores, *out), "holds suites toy-t2v, vbench, vbench-custom; choose by --suite"),
        ((scores, "--suite", "vbnch", *out), "did you mean vbench"),
        ((scores, "--suite", "toy-t2v", *out), "suite toy-t2v: not VBench's"),
        ((scores, *info_moved, "--arm", "dmd"), "did you mean dmd2"),
        ((scores, *info_moved, "--name", "mine"), "holds dfd, dmd2; choose one by --arm"),
        ((scores, *info_moved, "--arm", "dfd", "--name", "_x"), "start with a letter"),
    ):
        code, text = run(*arguments)
        assert code == 2 and says in text and len(text.splitlines()) == 1, text
    info.write_text(json.dumps(INFO[:1]))
    assert "scored with another info file" in run(scores, *info_moved)[1]
    info.unlink()
    assert "pip install --no-deps vbench==0.1.5" in run(scores, *info_moved)[1]
    assert not (tmp_path / "out").exists()
