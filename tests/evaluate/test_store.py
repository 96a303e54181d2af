"""The store keeps what it is given, once, and is read as a table."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from dfdbench.evaluate.metrics import GroupValue
from dfdbench.evaluate.schema import Key, Row
from dfdbench.evaluate.store import TABLE_COLUMNS, Store
from dfdbench.utils.errors import UserError


def key(sha256: str = "aa", metric: str = "saturation_mean", version: int = 1) -> Key:
    return Key(sha256, metric, version, "", "even16", "decord-0.6.0", "float32", "cpu")


def row(path: str = "1.mp4", sha256: str = "aa", seed: int | None = 1, suite: str = "s") -> Row:
    return Row(suite, path, "p", "a prompt", seed, "dfd", sha256)


def test_scores_come_back_as_a_long_table(tmp_path: Path) -> None:
    with Store(tmp_path / "new" / "scores.sqlite") as store:
        store.add_scores(row(), {key(): 0.25, key(metric="histogram"): np.arange(3.0)})
        store.set_groups(
            "s", {"hue_entropy": 1}, {("dfd", "p"): {"hue_entropy": GroupValue(0.5, 16)}}
        )
    with Store(tmp_path / "new" / "scores.sqlite") as store:
        table = store.table("s")
        assert list(table.columns) == TABLE_COLUMNS
        rows = table.sort_values("metric").to_dict("records")
        assert (rows[0]["metric"], rows[0]["value"], rows[0]["level"]) == (
            "hue_entropy",
            0.5,
            "prompt",
        )
        assert rows[0]["n"] == 16
        assert (rows[1]["metric"], rows[1]["value"], rows[1]["seed"]) == (
            "saturation_mean",
            0.25,
            1,
        )
        arrays = store.arrays("histogram", "s")
        np.testing.assert_array_equal(arrays["array"][0], [0, 1, 2])
        assert store.table("other").empty


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): 0.25})
        store.add_scores(row(), {key(): 0.75})
        assert store.known("aa") == {key()}
        assert store.table()["value"].tolist() == [0.25]


def test_the_newest_version_is_shown(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(version=2): 0.5, key(version=1): 0.25})
        assert store.table()["value"].tolist() == [0.5]


def test_two_paths_with_the_same_bytes_share_their_scores(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): 0.25})
        store.add_sample(row("2.mp4", seed=2))
        assert store.table()["value"].tolist() == [0.25, 0.25]


def test_a_changed_file_drops_its_old_scores_from_the_table(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): 0.25})
        store.add_scores(row(sha256="bb"), {key("bb"): 0.75})
        assert store.table()["value"].tolist() == [0.75]


def test_a_missing_value_has_no_row_but_is_known(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): None, key(metric="b"): float("nan"), key(metric="c"): 0.0})
        assert store.table()["metric"].tolist() == ["c"]
        assert len(store.known("aa")) == 3
        values = store.values("s", ["saturation_mean", "c"])
        assert np.isnan(values["saturation_mean"][0]) and values["c"][0] == 0


def test_a_failed_clip_leaves_the_table_until_it_is_scored(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): 0.25})
        store.add_failure("s", "1.mp4", "cut short")
        assert store.table().empty and store.failures()["reason"].tolist() == ["cut short"]
        store.add_sample(row())
        assert len(store.table()) == 1 and store.failures().empty


def test_groups_are_replaced_per_suite(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        for suite, method in (("s", "a"), ("t", "a"), ("s", "b")):
            store.set_groups(suite, {"m": 1}, {(method, "p"): {"m": GroupValue(1.0, 2)}})
        table = store.table()
        assert sorted(zip(table["suite"], table["method"], strict=True)) == [("s", "b"), ("t", "a")]
        assert table["seed"].isna().all()


def test_an_unknown_seed_stays_unknown(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(seed=None), {key(): 0.5})
        store.add_scores(row("2.mp4", "bb", seed=4), {key("bb"): 0.5})
        assert store.table()["seed"].isna().sum() == 1
        assert store.table()["seed"].dropna().tolist() == [4]


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_text("not a database, but long enough to be read as one " * 20)
    with pytest.raises(UserError, match="not a score store"):
        Store(path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.set_meta({"schema": "99"})
    with pytest.raises(UserError, match="newer dfdbench"):
        Store(tmp_path / "s.sqlite")


def test_a_new_store_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link, seen = tmp_path / "s.sqlite", os.link, list[bool]()

    def watched(source: Path, target: Path) -> None:
        seen.append(target.exists())
        link(source, target)
        with Store.reading(target) as store:
            seen.append(store.table().empty)

    monkeypatch.setattr(os, "link", watched)
    with Store(path) as store:
        store.add_scores(row(), {key(): 1.0})
    assert seen == [False, True] and [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]


def test_a_store_that_was_not_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stopped)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path / "s.sqlite")
    assert not list(tmp_path.iterdir())


def test_of_two_that_make_a_store_the_quicker_ones_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "s.sqlite", os.link

    def after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        with Store(path) as quicker:
            quicker.add_scores(row(), {key(): 1.0})
        link(source, target)

    monkeypatch.setattr(os, "link", after_another)
    with Store(path) as slower:
        assert slower.table()["value"].tolist() == [1.0]


def test_a_file_system_without_links_has_stores_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source))

    monkeypatch.setattr(os, "link", refused)
    with Store(tmp_path / "s.sqlite") as store:
        store.add_scores(row(), {key(): 1.0})
    with Store.reading(tmp_path / "s.sqlite") as store:
        assert store.table()["value"].tolist() == [1.0]
    assert [p.name for p in tmp_path.iterdir()] == ["s.sqlite"]
