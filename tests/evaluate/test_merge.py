"""Parts of a set, scored apart and joined, are the whole."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clips import random_clip, write_manifest

from dfdbench.evaluate import engine as scoring
from dfdbench.evaluate.merge import merge
from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import UserError
from dfdbench.utils.shards import Shard, parse_shard
from dfdbench.utils.video import write_video

FAMILIES = ["colour", "flicker"]


def score(folder: Path, out: Path, shard: Shard | None = None) -> scoring.Summary:
    inputs = sorted(folder.glob("*/manifest.jsonl"))
    return scoring.score(
        inputs, "released-clips", out, families=FAMILIES, reference="teacher", shard=shard
    )


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two methods of two prompts, one broken clip."""
    for method, count in (("dmd2", 7), ("teacher", 5)):
        (tmp_path / "clips" / method).mkdir(parents=True)
        manifest = write_manifest(tmp_path / "clips" / method, count, method)
    with manifest.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"path": "bad.mp4", "method": "teacher", "prompt_id": "p0"}) + "\n")
    (tmp_path / "clips" / "teacher" / "bad.mp4").write_text("no video")
    return tmp_path / "clips"


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, in one order."""
    database = sqlite3.connect(path)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
    return {t: sorted(database.execute(f"SELECT * FROM {t}"), key=repr) for t in tables}


def test_three_merged_shards_equal_the_unsharded_store(tmp_path: Path, clips: Path) -> None:
    score(clips, tmp_path / "whole")
    for index in (1, 2, 3):
        summary = score(clips, tmp_path / "parts", Shard(index, 3))
        assert 0 < summary.videos < 13 and len(summary.stores) == 1
    parts = sorted((tmp_path / "parts").glob("*.sqlite"))
    assert [p.name for p in parts] == [f"scores.shard-{i}-of-3.sqlite" for i in (1, 2, 3)]
    _, lines = merge(parts, tmp_path / "parts")
    written = [line for line in lines if line.startswith("written: ")]
    (left_out,) = set(lines) - set(written)
    assert "bad.mp4" in left_out and len(written) == 2
    comparisons = [(tmp_path / d / "comparison.json").read_text() for d in ("parts", "whole")]
    assert comparisons[0] == comparisons[1]
    merged, whole = (contents(tmp_path / d / "scores.sqlite") for d in ("parts", "whole"))
    assert merged == whole
    assert whole["pooled"] and whole["groups"]


def test_merging_twice_and_in_any_order_changes_nothing(tmp_path: Path, clips: Path) -> None:
    for index in (1, 2):
        score(clips, tmp_path / "parts", Shard(index, 2))
    parts = sorted((tmp_path / "parts").glob("*.sqlite"))
    merge(parts, tmp_path / "parts")
    before = contents(tmp_path / "parts" / "scores.sqlite")
    merge(parts[::-1], tmp_path / "parts")
    assert contents(tmp_path / "parts" / "scores.sqlite") == before


def test_a_store_merged_elsewhere_still_finds_its_clips(tmp_path: Path, clips: Path) -> None:
    score(clips, tmp_path / "parts", Shard(1, 1))
    merge(sorted((tmp_path / "parts").glob("*.sqlite")), tmp_path / "deep" / "er")
    with Store(tmp_path / "deep" / "er" / "scores.sqlite") as store:
        paths = store.samples()["path"]
    assert all((tmp_path / "deep" / "er" / path).is_file() for path in paths)


def test_parts_cover_all_and_overlap_nowhere() -> None:
    parts = [Shard(i, 3).of(range(10)) for i in (1, 2, 3)]
    assert sorted(item for part in parts for item in part) == list(range(10))
    assert parts[0] == [0, 3, 6, 9]


def test_contradicting_stores_are_refused_and_the_target_stays(tmp_path: Path, clips: Path) -> None:
    score(clips, tmp_path / "parts", Shard(1, 2))
    first = tmp_path / "parts" / "scores.shard-1-of-2.sqlite"
    other = shutil.copy(first, tmp_path / "other.sqlite")
    database = sqlite3.connect(other)
    with database:
        database.execute("UPDATE scores SET value = value + 1 WHERE metric = 'saturation_mean'")
    database.close()
    with pytest.raises(UserError, match=r"other\.sqlite: its scores of .* contradict"):
        merge([first, Path(other)], tmp_path / "out")
    with Store(tmp_path / "out" / "scores.sqlite") as store:
        assert store.samples().empty
    with pytest.raises(UserError, match="no such score store"):
        merge([tmp_path / "none.sqlite"], tmp_path / "out")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text)


def test_launchers_name_the_part() -> None:
    assert parse_shard("2/3") == Shard(2, 3)
    assert parse_shard("auto", {"RANK": "0", "WORLD_SIZE": "4"}) == Shard(1, 4)
    assert parse_shard("auto", {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}) == Shard(4, 4)
    with pytest.raises(UserError, match="neither torchrun nor Slurm"):
        parse_shard("auto", {})


def test_a_reference_of_its_own_is_scored_and_compared(tmp_path: Path) -> None:
    for name, seed in (("mine", 0), ("real", 5)):
        for i in range(5):
            write_video(tmp_path / name / f"p-{i}.mp4", random_clip(seed + i), fps=8)
    families = ["colour"]
    scoring.score(
        [tmp_path / "mine"], "released-clips", tmp_path, families=families,
        reference=tmp_path / "real",
    )  # fmt: skip
    with Store(tmp_path / "scores.sqlite") as store:
        pooled, table = store.pooled(), store.table()
        histograms = store.arrays("saturation_histogram")
    assert set(pooled["method"]) == {"mine"} and set(pooled["reference"]) == {"real"}
    mean = {m: np.mean(list(rows["array"]), axis=0) for m, rows in histograms.groupby("method")}
    expected = abs((mean["mine"] - mean["real"]).cumsum()).sum() / 256
    assert pooled["value"].tolist() == pytest.approx([expected])
    paired = table[table["metric"] == "saturation_wasserstein"]
    assert paired["method"].tolist() == ["mine"]
    assert paired["value"].tolist() == pytest.approx([expected])  # one prompt: the same clips


def test_pooling_is_over_the_prompts_that_the_reference_has(tmp_path: Path) -> None:
    for name, prompts in (("mine", "ab"), ("real", "b")):
        for i, prompt in enumerate(prompts * 2):
            write_video(tmp_path / name / f"{prompt}-{i}.mp4", random_clip(ord(prompt)), fps=8)
    inputs = [tmp_path / "mine", tmp_path / "real"]
    scoring.score(inputs, "clips", tmp_path, families=["colour"], reference="real")
    with Store(tmp_path / "scores.sqlite") as store:
        pooled = store.pooled()
    # The clips of prompt b are the reference's own; those of a would move the histogram.
    assert pooled["value"].tolist() == [0.0] and pooled["n"].tolist() == [2]


def test_what_cannot_be_a_reference_is_refused(tmp_path: Path) -> None:
    for method in ("dmd2", "dfd"):
        (tmp_path / method).mkdir()
        write_manifest(tmp_path / method, method=method)
    inputs = [tmp_path / "dmd2", tmp_path / "dfd"]
    with pytest.raises(UserError, match=r"--reference nobody: no method of that name \(dfd, dmd2"):
        scoring.score(inputs, "released-clips", tmp_path, families=["colour"], reference="nobody")
    with pytest.raises(UserError, match="--reference needs --out"):
        scoring.score(inputs, "released-clips", families=["colour"], reference="dfd")


def test_group_values_are_the_same_after_a_second_merge_of_more_parts(
    tmp_path: Path, clips: Path
) -> None:
    """A store may grow part by part; its values over prompts follow."""
    for index in (1, 2):
        score(clips, tmp_path / "parts", Shard(index, 2))
    first, second = sorted((tmp_path / "parts").glob("*.sqlite"))
    merge([first], tmp_path / "grown")
    merge([second], tmp_path / "grown")
    score(clips, tmp_path / "whole")
    with (
        Store(tmp_path / "grown" / "scores.sqlite") as a,
        Store(tmp_path / "whole" / "scores.sqlite") as b,
    ):
        pd.testing.assert_frame_equal(a.table(), b.table())
        pd.testing.assert_frame_equal(a.pooled(), b.pooled())
