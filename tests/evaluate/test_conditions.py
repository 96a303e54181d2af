"""Scores that depend on a prompt or an image belong to it, not to the video alone."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from clips import random_clip
from PIL import Image

from dfdbench.evaluate import engine as scoring
from dfdbench.evaluate import metrics
from dfdbench.evaluate.metrics import Metric, MetricFamily
from dfdbench.evaluate.store import Store
from dfdbench.utils.video import Clip, write_video


def family(needs: tuple[str, ...]) -> MetricFamily:
    """A family whose values tell what it was shown."""

    def compute(clip: Clip) -> dict[str, float | np.ndarray]:
        length = len(clip.prompt) if "prompt" in needs and clip.prompt else 0
        red = float(clip.image[..., 0].mean()) if "image" in needs and clip.image is not None else 0
        return {"told": length + red, "told_array": np.array([length, red])}

    return MetricFamily(
        "told",
        policy="even16",
        metrics=(
            Metric("told", "higher", "", (0, 1e9), "", "told"),
            Metric("told_array", "higher", "", (0, 1e9), "", "told", kind="array"),
        ),
        load=lambda setting: compute,
        needs=needs,  # type: ignore[arg-type]
    )


def score(
    folder: Path, rows: list[dict], needs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> tuple[scoring.Summary, dict[str, float]]:
    monkeypatch.setattr(scoring, "get_family", lambda name: family(needs))
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps({"method": "m"} | row) + "\n" for row in rows))
    summary = scoring.score([manifest], "clips", folder / "out", families=["told"])
    with Store(folder / "out" / "scores.sqlite") as store:
        table = store.values("clips", ["told"])
        arrays = store.arrays("told_array")
    assert len(arrays) == table["told"].notna().sum()
    return summary, {Path(p).name: v for p, v in zip(table["path"], table["told"], strict=True)}


def test_the_same_bytes_under_two_prompts_have_two_scores(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", random_clip(), fps=8)
    rows = [{"path": "a.mp4", "prompt": "a cat"}, {"path": "b.mp4", "prompt": "a large dog"}]
    summary, values = score(tmp_path, rows, ("prompt",), monkeypatch)
    assert values == {"a.mp4": 5, "b.mp4": 11} and summary.scored == 2
    assert score(tmp_path, rows, ("prompt",), monkeypatch)[0].reused == 2
    rows[0]["prompt"] = "another cat"
    summary, values = score(tmp_path, rows, ("prompt",), monkeypatch)
    assert (summary.scored, summary.reused) == (1, 1)
    assert values == {"a.mp4": 11, "b.mp4": 11}


def test_a_changed_image_is_another_condition(tmp_path: Path, monkeypatch) -> None:
    write_video(tmp_path / "a.mp4", random_clip(), fps=8)
    rows = [{"path": "a.mp4", "image": "first.png"}]
    for red in (10, 200):
        Image.fromarray(np.full((4, 6, 3), red, np.uint8)).save(tmp_path / "first.png")
        summary, values = score(tmp_path, rows, ("image",), monkeypatch)
        assert values == {"a.mp4": red} and summary.scored == 1


def test_a_clip_without_what_is_needed_has_no_value(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", random_clip(), fps=8)
    rows = [{"path": "a.mp4"}, {"path": "b.mp4", "prompt": "b"}]
    summary, values = score(tmp_path, rows, ("prompt",), monkeypatch)
    assert np.isnan(values["a.mp4"]) and values["b.mp4"] == 1
    assert (summary.scored, summary.reused, summary.exit_code) == (1, 1, 0)


@pytest.mark.parametrize("content", [None, b"text"])
def test_a_missing_or_broken_image_leaves_its_clip_out(
    tmp_path: Path, monkeypatch, content: bytes | None
) -> None:
    write_video(tmp_path / "a.mp4", random_clip(), fps=8)
    if content:
        (tmp_path / "first.png").write_bytes(content)
    rows = [{"path": "a.mp4", "image": "first.png"}]
    summary, _ = score(tmp_path, rows, ("image",), monkeypatch)
    assert len(summary.failures) == 1 and "first.png" in summary.failures[0][1]


def test_a_store_of_schema_1_keeps_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE samples (suite TEXT NOT NULL, path TEXT NOT NULL, prompt_id TEXT NOT NULL,
            prompt TEXT, seed INTEGER, method TEXT NOT NULL, sha256 TEXT NOT NULL,
            PRIMARY KEY (suite, path));
        CREATE TABLE scores (sha256 TEXT NOT NULL, metric TEXT NOT NULL, version INTEGER NOT NULL,
            weights TEXT NOT NULL, policy TEXT NOT NULL, decoder TEXT NOT NULL,
            dtype TEXT NOT NULL, device TEXT NOT NULL, value REAL, data BLOB,
            PRIMARY KEY (sha256, metric, version, weights, policy, decoder, dtype, device));
        INSERT INTO meta VALUES ('schema', '1');
        INSERT INTO samples VALUES ('clips', 'a.mp4', 'p', NULL, 1, 'm', 'abc');
        INSERT INTO scores VALUES ('abc', 'saturation_mean', 1, '', 'even16', 'd', 'float32',
            'cpu', 0.25, NULL);
        """
    )
    data = np.arange(3.0).tobytes()
    with database:
        database.execute(
            "INSERT INTO scores VALUES ('abc', 'saturation_histogram', 1, '', 'even16', 'd', "
            "'float32', 'cpu', NULL, ?)",
            (data,),
        )
    database.close()
    for _ in range(2):  # the second time it is one of today
        with Store(path) as store:
            assert store.values("clips", ["saturation_mean"])["saturation_mean"].tolist() == [0.25]
            assert store.array("abc", "saturation_histogram").tolist() == [0, 1, 2]
            assert len(store.known("abc")) == 2
            assert store.meta()["schema"] == "4"


def test_no_registered_family_needs_what_engines_cannot_give() -> None:
    for name in metrics.FAMILY_NAMES:
        assert set(metrics.get_family(name).needs) <= {"prompt", "image", "blocks"}
