"""`dfdbench.evaluate`: options by name, checked in one place."""

from pathlib import Path

import pandas as pd
import pytest
from clips import write_manifest

from dfdbench.evaluate.evaluation import EvalOptions, evaluate
from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import UserError


def table(folder: Path) -> pd.DataFrame:
    with Store(folder / "scores.sqlite") as store:
        return store.table()


def test_names_may_come_as_a_list_or_with_commas_and_paths_as_text(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    summary = evaluate(manifest, out=tmp_path / "one", metrics=["colour", "flicker"])
    assert (summary.suite, summary.scored) == ("clips", 4)
    evaluate([str(manifest)], out=str(tmp_path / "two"), metrics="colour,flicker", workers=1)
    pd.testing.assert_frame_equal(table(tmp_path / "one"), table(tmp_path / "two"))


def test_an_option_that_does_not_exist_or_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    with pytest.raises(UserError, match=r"unknown field 'metric' \(did you mean metrics"):
        evaluate(manifest, out=tmp_path / "out", metric="flicker")
    with pytest.raises(UserError, match="workers: not a valid integer"):
        evaluate(manifest, out=tmp_path / "out", workers="many")
    with pytest.raises(UserError, match="--shard 4/3"):
        evaluate(manifest, out=tmp_path / "out", shard="4/3")
    assert not (tmp_path / "out").exists()


def test_every_option_is_explained() -> None:
    text = " ".join((EvalOptions.__doc__ or "").split())
    assert [name for name in EvalOptions.model_fields if f"{name}: " not in text] == []
