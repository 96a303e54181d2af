"""The committed evidence under results/ belongs to the shipped weights, is whole, and adds up."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dfdbench.cli.study import load_study
from dfdbench.models.registry import resolve_folder
from dfdbench.report.cells import read_cells
from dfdbench.report.collect import RunRecord
from dfdbench.report.pairs import usual_pairs
from dfdbench.report.summary import COST, deltas_json, recompute, summary_json
from dfdbench.utils.run import weights_sha256

RESULTS = Path(__file__).parent.parent / "results"
MODELS = {"toy": "toy-t2v", "toy-i2v": "toy-i2v", "toy-ar": "toy-t2v"}  # folder -> trained model
STUDIED = sorted(path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("cells.csv"))
PAGES = sorted(path for path in RESULTS.glob("toy*/**/README.md"))
EQUAL = ("batch", "lr", "fake_lr", "data_sha256", "cfg", "ema")  # in every run of a comparison
DECIMAL = re.compile(r"(?<![\w.,/-])[+−-]?\d*\.\d+(?![\w./])")

of_study = pytest.mark.parametrize("folder", STUDIED)


def shipped(folder):
    model = MODELS[folder.partition("/")[0]]
    return weights_sha256(resolve_folder(model) / "transformer")


def load(folder, name):
    return json.loads((RESULTS / folder / name).read_text())


def study_of(folder):
    return load_study(folder if "/" in folder else f"{folder}/main")


@cache
def recomputed(folder):
    """Summary and deltas as the report writes them, from the cells alone."""
    pairs = [tuple(pair.split(" - ")) for pair in load(folder, "deltas.json")]
    again = recompute(read_cells(RESULTS / folder / "cells.csv"), pairs)
    costs = {arm: {key: own[key] for key in COST if key in own}
             for arm, own in load(folder, "summary.json").items()}  # fmt: skip
    return json.loads(json.dumps([summary_json(again.summary, costs), deltas_json(again.deltas)]))


def test_the_main_comparison_and_its_baselines_are_there():
    assert {"toy", "toy/baselines"} <= set(STUDIED)


@of_study
def test_runs_used_the_shipped_teacher_and_the_main_ones_equal_recipes(folder):
    runs = load(folder, "runs.json").values()
    trained = [run for run in runs if run["training_seed"] is not None]
    assert {run["teacher_sha256"] for run in trained} == {shipped(folder)}
    if "/" in folder:
        return
    # The first stages of autoregressive students match no scores: they average no weights.
    trained = [run for run in trained if run["method"] not in ("teacher_forcing", "ode_init")]
    for key in EQUAL:
        values = {(run["training_seed"], json.dumps(run["fairness"][key])) for run in trained}
        assert len(values) == len({seed for seed, _ in values}), key  # what is compared is alike
        # Another machine encodes the same clips to other last bits, so to another hash.
        assert key == "data_sha256" or len({value for _, value in values}) == 1, key


@of_study
def test_every_number_of_a_study_follows_from_its_cells(folder):
    summary, deltas = recomputed(folder)
    assert summary == load(folder, "summary.json")
    assert deltas == load(folder, "deltas.json")


@of_study
def test_a_study_still_asks_for_the_arms_and_comparisons_that_are_committed(folder):
    study, deltas = study_of(folder), load(folder, "deltas.json")
    runs = [RunRecord(Path(n), i["arm"], 0, i) for n, i in load(folder, "runs.json").items()]
    assert {run.arm for run in runs} == {"real", "teacher", *(arm.name for arm in study.arms)}
    usual = usual_pairs([run.arm for run in runs], runs)
    pairs = dict.fromkeys([*usual, *study.named_pairs()])
    assert [f"{a} - {b}" for a, b in pairs] == list(deltas)


def numbers_in(value: Any) -> Iterator[float]:
    """Every number of a JSON value."""
    if isinstance(value, dict | list):
        for own in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(own)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def evidence(page: Path) -> list[float]:
    """What a page may say: of its studies what follows from cells, and of other files all."""
    found = list[float]()
    for folder in (name for name in STUDIED if (RESULTS / name).is_relative_to(page.parent)):
        found += numbers_in(recomputed(folder))
    for path in page.parent.rglob("*.json"):
        if path.name in ("quality.json", "runs.json", "settings.json", "validity.json"):
            found += numbers_in(json.loads(path.read_text()))
    for log in page.parent.glob("*.jsonl"):
        found += [n for line in log.read_text().splitlines() for n in numbers_in(json.loads(line))]
    return found


def unbacked(text: str, found: list[float]) -> list[str]:
    """Decimal numbers of a page that no evidence has at as many digits; signs count if given."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv \S+|\d{4}\.\d{5}", "", text)
    bad = []
    for token in dict.fromkeys(DECIMAL.findall(plain)):
        digits, signed = len(token.partition(".")[2]), token[0] in "+−-"
        own = float(token.replace("−", "-"))
        near = 0.5 * 10**-digits + 1e-9
        if not any(abs((n if signed else abs(n)) - own) <= near for n in found):
            bad.append(token)
    return bad


@pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.parent.relative_to(RESULTS).as_posix()
)
def test_every_decimal_number_of_a_page_is_in_its_evidence(page):
    assert not unbacked(page.read_text(encoding="utf-8"), evidence(page))


def test_a_number_that_no_evidence_has_is_found():
    assert unbacked("+.12 of `.99`, .345 and −.5 [.1, 2606.18478]", [0.1234, 0.5, 0.1]) == [
        ".345", "−.5",
    ]  # fmt: skip


def test_the_regression_reference_was_made_with_the_shipped_teacher():
    reference = load("toy", "reference.json")
    sizes = [size for size in ("quick", "full") if size in reference]
    assert "quick" in sizes
    for size in sizes:
        assert reference[size]["provenance"]["teacher_sha256"] == shipped("toy")


@pytest.mark.parametrize("folder", ["toy", "toy-i2v"])
def test_the_teacher_s_measured_quality_is_that_of_the_shipped_weights(folder):
    assert load(folder, "teacher/quality.json")["teacher_sha256"] == shipped(folder)


@pytest.mark.skipif(
    "toy-i2v" not in STUDIED, reason="image to video has no study of this world yet"
)
def test_every_arm_of_image_to_video_keeps_the_first_frame():
    summary = load("toy-i2v", "summary.json")
    for arm, metrics in summary.items():
        apart = summary["real"]["first_frame_psnr"]["mean"] - metrics["first_frame_psnr"]["mean"]
        assert apart < 0.1, f"{arm}: keeps it worse than the autoencoder by {apart} dB"
