"""The registry: a family of another package, families that are on by default, definitions."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import random_clip
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate import metrics
from dfdbench.evaluate.metrics import registry
from dfdbench.evaluate.store import Store
from dfdbench.generate.suites import find_suites
from dfdbench.generate.suites.base import GENERAL
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video, write_video

TOY = '''
"""Brightness: mean of all pixels and channels over 255, and its spread over a prompt's clips."""

import numpy as np

from dfdbench.evaluate.metrics import GroupValue, Metric, MetricFamily, plain


def compute(clip):
    return {"brightness": float(clip.frames.mean() / 255)}


def group(readings, attributes):
    values = [reading["brightness"] for reading in readings]
    return {"brightness_std": GroupValue(float(np.std(values)), len(values))}


FAMILY = MetricFamily(
    "brightness",
    policy="all",
    metrics=(
        Metric("brightness", "nearest_reference", "", (0.0, 1.0), "here", "Mean of all pixels."),
        Metric("brightness_std", "higher", "", (0.0, 1.0), "here", "Its spread.", level="prompt"),
    ),
    load=plain(compute),
    group=group,
    default=True,
)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package outside dfdbench, and a registry that forgets what the test adds."""
    folder = tmp_path / "somewhere" / "toymetrics"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "brightness.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(folder.parent)
    before = dict(registry.FAMILIES)
    yield folder
    registry.FAMILIES.clear()
    registry.FAMILIES.update(before)
    registry.get_family.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "toymetrics"]:
        del sys.modules[name]


def two_clips(folder: Path) -> Path:
    """A manifest of two clips of one prompt, one darker than the other."""
    for i in range(2):
        write_video(folder / f"{i}.mp4", random_clip(i, 4) // (i + 1), fps=8)
    rows = [
        {"path": f"{i}.mp4", "method": "m", "prompt": "a cat", "prompt_id": "cat", "seed": i}
        for i in range(2)
    ]
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


def test_eval_scores_with_a_family_of_another_package(package: Path, tmp_path: Path) -> None:
    metrics.register("brightness", "toymetrics.brightness")
    out = tmp_path / "out"
    command = ["eval", str(two_clips(tmp_path)), "--metrics", "brightness,flicker"]
    result = CliRunner().invoke(app, [*command, "--suite", "clips", "--out", str(out)])
    assert result.exit_code == 0, result.output
    with Store(out / "scores.sqlite") as store:
        table = store.values("clips", ["brightness", "temporal_flickering"])
        scores = store.table("clips")
    expected = [read_video(tmp_path / f"{i}.mp4", "all").frames.mean() / 255 for i in range(2)]
    assert table.sort_values("seed")["brightness"].tolist() == pytest.approx(expected)
    assert table["temporal_flickering"].notna().all()
    (spread,) = scores[scores["metric"] == "brightness_std"]["value"]
    assert spread == pytest.approx(np.std(expected)) and spread > 0.1


def test_a_registered_family_is_listed_last_and_general_if_it_says_so(package: Path) -> None:
    listed, general = list(metrics.FAMILY_NAMES), metrics.families_of([GENERAL])
    for _ in range(2):  # a second time changes nothing
        metrics.register("brightness", "toymetrics.brightness")
    assert list(metrics.FAMILY_NAMES) == [*listed, "brightness"]
    assert metrics.families_of([GENERAL]) == [*general, "brightness"]
    assert metrics.get_metric("brightness").family == "brightness"
    assert list(metrics.all_metrics())[-2:] == ["brightness", "brightness_std"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("light", "", "", "called brightness, not light"),
        ("flicker", '"brightness",\n    policy', '"flicker",\n    policy', "flicker exists"),
        ("general", '"brightness",\n    policy', '"general",\n    policy', "general exists"),
        ("brightness", '"brightness_std", "h', '"sprite_area", "h', "sprite_area exists"),
    ],
)
def test_a_name_that_is_taken_or_another_is_refused(
    package: Path, name: str, old: str, new: str, message: str
) -> None:
    """Two metrics of one name would share the keys of their scores."""
    (package / "brightness.py").write_text(TOY.replace(old, new) if old else TOY, encoding="utf-8")
    listed = list(metrics.FAMILY_NAMES)
    with pytest.raises(ValueError, match=message):
        metrics.register(name, "toymetrics.brightness")
    assert list(metrics.FAMILY_NAMES) == listed


def test_an_unknown_family_is_refused_with_near_ones() -> None:
    with pytest.raises(UserError, match="vbench_dynamic_degree"):
        metrics.get_family("vbench_dynamic_degre")


def test_general_families_are_those_that_suites_of_any_clips_always_had() -> None:
    assert metrics.families_of([GENERAL]) == [
        "colour", "flicker", "camera", "effnet_lite2", "rife39", "dis_flow", "brisque",
        "lpips_alex", "clip_vit_l14", "dinov2_l", "dinov3_l",
    ]  # fmt: skip
    assert metrics.families_of(["vipe", GENERAL, "colour", "vipe"]) == [
        "vipe", *metrics.families_of([GENERAL]),
    ]  # fmt: skip


def test_a_suite_without_a_list_of_its_own_asks_for_the_general_families() -> None:
    suites = {suite.name: suite.metrics for suite in find_suites()[0]}
    for name in ("clips", "released-clips", "t2v-animation", "t2v-mixed"):
        assert suites[name] == (GENERAL,)
    assert GENERAL not in suites["vbench-custom"] and GENERAL not in suites["toy-t2v"]


@pytest.mark.parametrize("metric", metrics.all_metrics().values(), ids=lambda m: m.name)
def test_every_metric_is_defined_in_a_sentence_or_two(metric: metrics.Metric) -> None:
    text = metric.definition
    assert text[0].isupper() or text[0] in "01", text
    assert text.endswith(".") and 20 < len(text) <= 330 and "\n" not in text
    assert text.rstrip(".") != metric.source.rstrip(".")


def test_definitions_of_one_family_differ() -> None:
    for name in metrics.FAMILY_NAMES:
        texts = [metric.definition for metric in metrics.get_family(name).metrics]
        assert len(set(texts)) == len(texts), name
