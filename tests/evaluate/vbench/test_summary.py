"""vbench.json and vbench.md: partial totals say so, and --strict turns them into exit code 3."""

import json
from pathlib import Path

import pytest
from clips import random_clip
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.schema import Key, Row
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.summary import is_partial, summarise, write_summary
from dfdbench.evaluate.vbench.totals import PROTOCOLS, totals
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils.video import write_video

SUITE = get_suite("vbench-custom")


def store_of(folder: Path, dimensions: dict[str, float]) -> Path:
    """A store with two clips of one method, the second with values .1 higher."""
    path = folder / "scores.sqlite"
    with Store(path) as store:
        for i in range(2):
            sha = f"sha{i}"
            scores = {}
            for name, value in dimensions.items():
                key = Key(sha, name, 1, "", "all", "d", "float32", "cpu")
                scores[key] = value + 0.1 * i
                if DIMENSIONS[name].by_frame:
                    scores[key._replace(metric=f"{name}_frames")] = 16.0
            store.add_scores(Row(SUITE.name, f"{i}.mp4", f"p{i}", None, 0, "m", sha), scores)
    return path


def test_all_dimensions_give_whole_totals(tmp_path: Path) -> None:
    everything = dict.fromkeys(PROTOCOLS["t2v"].dimensions, 0.5)
    store = store_of(tmp_path, everything)
    methods = summarise(store, SUITE)
    assert not is_partial(methods)
    found = methods["m"]
    expected = totals(dict.fromkeys(everything, 0.55), "t2v")
    for name, total in expected.items():
        assert found["totals"][name]["value"] == pytest.approx(total.value)
    text = write_summary(tmp_path, SUITE, methods)[1].read_text(encoding="utf-8")
    assert "/7" not in text and "/16" not in text


def test_a_missing_dimension_is_no_zero_and_labels_its_totals(tmp_path: Path) -> None:
    some = {"subject_consistency": 0.8, "temporal_flickering": 0.9}
    store = store_of(tmp_path, some)
    methods = summarise(store, SUITE)
    assert is_partial(methods)
    written = write_summary(tmp_path, SUITE, methods)
    found = json.loads(written[0].read_text(encoding="utf-8"))["methods"]["m"]
    assert set(found["dimensions"]) == set(some)
    assert (found["totals"]["quality"]["found"], found["totals"]["quality"]["expected"]) == (2, 7)
    assert found["totals"]["total"]["value"] is None
    text = written[1].read_text(encoding="utf-8")
    assert "(2/7)" in text and "| **total** | (2/16) |" in text and "aesthetic" not in text


def test_strict_exits_with_3_where_a_total_is_partial(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a cat-0.mp4", random_clip(), fps=8)
    texts = ["eval", str(tmp_path / "clips"), "--suite", "vbench-custom", "--metrics", "flicker"]
    texts += ["--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, texts).exit_code == 0
    assert CliRunner().invoke(app, [*texts, "--strict"]).exit_code == 3
