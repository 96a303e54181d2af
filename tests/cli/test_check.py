import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dfdbench.cli import check as regress
from dfdbench.cli.check import Line, Result, Size, band, check, compare_golden, update
from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file


@pytest.fixture(scope="module")
def size(tiny_checkpoint):
    return Size(
        "quick", updates=2, further=1, clips=8, seeds=1, golden=2, batch=2,
        model=str(tiny_checkpoint),
        settings=("student.steps=2",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def reference(size, tmp_path_factory):
    """A reference of the tiny experiment, made by two repeats."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFDBENCH_CACHE", str(folder / "cache"))
        return update(size, folder / "reference.json", 2, folder / "work")


def test_the_reference_states_method_provenance_and_both_kinds_of_numbers(reference):
    known = json.loads(reference.read_text())
    part = known["quick"]
    assert "prediction" in known["method"] and part["provenance"]["repeats"] == 2
    assert len(part["provenance"]["teacher_sha256"]) == 64 and part["provenance"]["versions"]
    assert set(part["golden"]) == {"dmd2", "dp_dmd", "dfd", "regression"}
    assert "diversity" in part["golden"]["dp_dmd"][0] and len(part["golden"]["dfd"]) == 2
    assert part["golden"]["dmd2"][0]["critic_fake_score"] > 0
    assert part["golden"]["dmd2"] != part["golden"]["dp_dmd"]
    bands = part["bands"]
    assert {"dfd saturation_mean", "dfd - dmd2_control saturation_mean"} <= set(bands)
    assert all(len(b["values"]) == 2 and b["low"] < b["high"] for b in bands.values())


def test_an_unchanged_program_passes_and_a_changed_loss_fails(
    reference, size, tmp_path, monkeypatch
):
    monkeypatch.setenv("DFDBENCH_CACHE", str(reference.parent / "cache"))
    result = check(size, reference)
    assert result.passed, result.table()
    assert len(result.lines) > 20

    from dfdbench.distill import losses

    original = losses.matching_loss
    monkeypatch.setattr(losses, "matching_loss", lambda g, d: 1.01 * original(g, d))
    monkeypatch.setattr(regress, "measure", lambda *a, **k: {})
    changed = check(size, reference)
    failed = [line.what for line in changed.lines if not line.passed]
    assert "golden dmd2 update 1 matching" in failed
    assert "golden dmd2 update 1 critic_fake_score" not in failed


def test_where_there_is_a_gpu_the_check_still_runs_on_the_cpu(
    reference, size, tmp_path, monkeypatch
):
    """Committed numbers are a CPU's. Here every room is told of a GPU, and using it would fail."""
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    for room in ("distill.parallel", "generate.clips", "evaluate.engine"):
        monkeypatch.setattr(
            f"dfdbench.{room}.choose_device",
            lambda name="auto": "cuda" if name == "auto" else name,
        )
    run = regress.train("toy/dmd2", tmp_path / "run", 1, size, ("log.every=1",))
    pinned = json.loads(reference.read_text())["quick"]["golden"]["dmd2"][0]
    assert next(iter(run.metrics("update")))["matching"] == pytest.approx(
        pinned["matching"], rel=1e-4
    )
    work = next(reference.parent.glob("work/*/seed0"))  # finished; its clips and scores are not
    for name in ("dmd2", "dmd2_control", "dfd"):
        shutil.rmtree(work / name / "videos")
        (work / name / "scores.sqlite").unlink()
    values = regress.measure(size, work, seed=0)
    assert values["dfd saturation_mean"] > 0
    clip = next((work / "dfd" / "videos").rglob("*.mp4"))
    with Store.reading(work / "dfd" / "scores.sqlite") as store:
        assert {key.device for key in store.known(sha256_file(clip))} == {"cpu"}


def test_bands_are_prediction_intervals():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = band(values)
    half = 4.604095 * 2.5**0.5 * 1.2**0.5  # t(.995, 4 degrees) of a printed table, s² = 2.5
    assert found["low"] == pytest.approx(3 - half, rel=1e-5)
    assert found["high"] == pytest.approx(3 + half, rel=1e-5)
    equal = band([0.5, 0.5, 0.5])
    assert equal["high"] - equal["low"] == pytest.approx(2 * regress.LEAST_SPREAD)


def test_golden_values_that_moved_or_vanished_fail():
    known = {"dmd2": [{"matching": 1.0, "norm": 2.0}, {"matching": 0.5, "norm": 0.0}]}
    same = {"dmd2": [{"matching": 1.0001, "norm": 2.0}, {"matching": 0.5, "norm": 0.0}]}
    assert all(line.passed for line in compare_golden(same, known))
    moved = {"dmd2": [{"matching": 1.0003, "norm": 2.0}]}
    failed = [line.what for line in compare_golden(moved, known) if not line.passed]
    assert failed == [
        "golden dmd2 update 1 matching", "golden dmd2 update 2 matching",
        "golden dmd2 update 2 norm",
    ]  # fmt: skip


def test_bands_are_found_in_the_working_folder_then_beside_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = regress.find_bands()
    assert shipped.is_file() and shipped.is_absolute()
    assert regress._read(shipped, regress.QUICK).bands
    regress.BANDS.parent.mkdir(parents=True)
    regress.BANDS.write_text("{}")
    assert regress.find_bands() == regress.BANDS


def test_a_wheel_brings_its_bands_and_recipes(tmp_path):
    pytest.importorskip("hatchling", reason="needs dfdbench[dev]")
    checkout = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from dfdbench.cli.check import QUICK, _read, find_bands; "
        "from dfdbench.distill.recipe import find_recipe; bands = find_bands(); "
        "_read(bands, QUICK); print(bands); print(find_recipe('toy/dfd'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    package = tmp_path / "site" / "dfdbench"
    assert done.stdout.split() == [
        str(package / "_results" / "reference.json"), str(package / "_baselines" / "toy/dfd.toml")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"quick": {"size": {}, "golden": {}, "bands": {}}}, "lacks 'quick.provenance'"),
        ({"quick": []}, "quick: not a valid dictionary"),
    ],
)
def test_a_broken_file_of_bands_names_the_field(tmp_path, size, content, says):
    (tmp_path / "bands.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as error:
        check(size, tmp_path / "bands.json")
    assert "bands.json" in str(error.value) and "dfdbench check update" in str(error.value)


def test_the_table_puts_failures_first():
    result = Result("quick", [Line("a", 1.0, 0, 2), Line("b", None, 0, 2), Line("c", 3.0, 0, 2)])
    lines = result.table().splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [["FAIL", "b"], ["FAIL", "c"], ["ok", "a"]]
    assert "missing" in lines[1] and "2 outside" in lines[-1] and not result.passed
    assert result.as_dict()["lines"][1]["passed"] is False


def test_a_reference_that_does_not_fit_is_refused_before_anything_is_trained(
    reference, size, tmp_path
):
    with pytest.raises(UserError, match=r"no such file of bands.*check update --quick"):
        check(size, tmp_path / "none.json")
    with pytest.raises(UserError, match="holds no full experiment"):
        check(dataclasses.replace(size, name="full"), reference)
    with pytest.raises(UserError, match="made by another quick experiment"):
        check(dataclasses.replace(size, updates=3), reference)
    other = json.loads(reference.read_text())
    other["quick"]["provenance"]["teacher_sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="other weights"):
        check(size, tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        check(size, tmp_path / "broken.json")
