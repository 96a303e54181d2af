"""Manifests of any content: rows come back as they were written, or are refused by their line."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fuzzing import FUZZ, limited, numbers, one_line, same, texts, values
from hypothesis import given
from hypothesis import strategies as st

from dfdbench.utils.errors import UserError, clean
from dfdbench.utils.manifest import Collection, Row, collect

COLUMNS = list(Row.model_fields)
rows = st.lists(
    st.fixed_dictionaries(
        {"path": st.one_of(st.sampled_from(["a.mp4", "b/c.mp4", "ü.mp4"]), texts, values)},
        optional={
            "prompt_id": st.one_of(texts, values),
            "prompt": st.one_of(texts, values),
            "seed": st.one_of(numbers, values),
            "method": st.one_of(st.just("m"), texts, values),
            "image": st.one_of(texts, values),
            "other": values,
        },
    ),
    min_size=1,
    max_size=4,
)


def read(path: Path) -> Collection | None:
    """What the file names; None where it is refused as a whole."""
    try:
        with limited():
            found = collect(path, "s", "else")
    except UserError as error:
        assert one_line(error)
        return None
    assert all(reason == clean(reason) for _, reason in found.refused)
    return found


def check(found: Collection, folder: Path, written: list[dict[str, Any]]) -> None:
    """Each row is there as it was written, or refused."""
    assert len(found.samples) + len(found.refused) == len(written)
    left = [{k: v for k, v in row.items() if v not in (None, "")} for row in written]
    for sample in found.samples:
        for row in left:
            expected = (row.get("prompt"), row.get("seed"), row.get("method", "else"))
            got = (sample.prompt, sample.seed, sample.method)
            path = isinstance(row.get("path"), str) and folder / row["path"] == sample.path
            if path and all(map(_as_written, got, expected)):
                left.remove(row)
                break
        else:
            raise AssertionError(f"{sample} was never written: {written}")


def _as_written(read: Any, written: Any) -> bool:
    if isinstance(written, str) and isinstance(read, int):
        return float(written) == read
    if type(written) is int and isinstance(read, str):
        return str(written) == read  # a number as a name
    return same(read, written)


@pytest.mark.fault("F.manifest", "A8", "C.manifest")
@FUZZ
@given(rows, st.booleans())
def test_rows_of_jsonl(tmp_path_factory, written, ascii_only) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in written]
    path = folder / "m.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    if found := read(path):
        check(found, folder, written)


@pytest.mark.fault("F.manifest", "A13", "C.manifest")
@FUZZ
@given(st.lists(st.lists(texts, min_size=5, max_size=5), min_size=1, max_size=4))
def test_rows_of_csv(tmp_path_factory, cells) -> None:
    folder = tmp_path_factory.mktemp("csv")
    columns = ["path", "prompt_id", "prompt", "seed", "method"]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([columns, *cells])
    path = folder / "m.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    if found := read(path):
        check(found, folder, [dict(zip(columns, row, strict=True)) for row in cells])


@pytest.mark.fault("F.manifest", "C.manifest")
@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["m.jsonl", "m.csv", "m"]))
def test_bytes(tmp_path_factory, data, name) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    read(path)


@pytest.mark.fault("F.manifest", "A8", "A14")
@FUZZ
@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4, unique=True))
def test_names_in_a_folder(tmp_path_factory, stems) -> None:
    folder = tmp_path_factory.mktemp("names")
    made = set()
    for stem in stems:
        name = stem.replace(b"/", b"-").replace(b"\0", b"-") + b".mp4"
        if not name.startswith(b"."):
            (folder / name.decode("utf-8", "surrogateescape")).touch()
            made.add(name)
    if found := read(folder):
        assert len(found.samples) + len(found.refused) == len(made)
        for sample in found.samples:
            stem = sample.path.stem
            seeded = sample.seed is not None and stem.startswith(f"{sample.prompt}-")
            assert stem == sample.prompt or (seeded and stem.endswith(str(sample.seed)))
