"""run.json, samples.jsonl and entries of any content: read as written, or refused in one line."""

import json
from pathlib import Path

import pytest
from fuzzing import FUZZ, limited, one_line, paths, put, same, values
from hypothesis import given
from hypothesis import strategies as st

from dfdbench.distill.recipe import load_recipe
from dfdbench.generate.clips import model_of
from dfdbench.generate.sample_index import SampleIndex
from dfdbench.report.leaderboard.entries import read_entry
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import collect
from dfdbench.utils.run import Run
from dfdbench.utils.shards import WHOLE

RUN = {
    "format": 1,
    "training_seed": 0,
    "arm": "dfd",
    "method": "dfd",
    "status": "finished",
    "model": "toy-t2v",
    "recipe": load_recipe("toy/dfd").as_dict(),
}
BOARDS = Path(__file__).parents[2] / "leaderboards" / "entries"
ENTRIES = [
    json.loads((BOARDS / name).read_text(encoding="utf-8"))
    for name in ("released-clips/dfd.json", "i2v-cosmos-vipe/published-dfd.json")
]


@pytest.mark.fault("F.run", "C.run")
@FUZZ
@given(
    st.one_of(
        values, st.sampled_from(paths(RUN)).flatmap(lambda p: values.map(lambda v: put(RUN, p, v)))
    )
)
def test_run_json(tmp_path_factory, written) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.json").write_text(json.dumps(written), encoding="utf-8")
    try:
        with limited():
            run = Run.open(folder)
            found = run.info, run.arm, run.training_seed, run.finished, model_of(run)
    except UserError as error:
        assert one_line(error) and "delete" not in str(error)
        return
    assert same(found[0], written) and same(found[1], written["arm"])
    assert same(found[2], written.get("training_seed"))


@pytest.mark.fault("C.run")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        json.dumps(RUN).encode("utf-16"),
        b"\xef\xbb\xbfnull",
        json.dumps(RUN).encode()[:50],
        json.dumps(RUN | {"format": 99}).encode(),
        b"\0" * 100,
    ],
)
def test_a_run_json_that_is_none_is_refused_and_nothing_is_to_be_deleted(tmp_path, data) -> None:
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(UserError, match=r"run\.json") as caught:
        Run.open(tmp_path)
    assert one_line(caught.value) and "delete" not in str(caught.value)


@pytest.mark.fault("C.run")
def test_a_byte_order_mark_is_no_fault(tmp_path) -> None:
    (tmp_path / "run.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(RUN).encode())
    assert Run.open(tmp_path).info == RUN


ROWS = [
    {"path": f"p/{i}.mp4", "prompt_id": "p", "prompt": "kühn\u2028", "seed": i, "method": "dfd"}
    | {"sha256": "0" * 64, "settings": {"times": [1.0, 0.5]}}
    for i in range(3)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def listing(folder: Path, data: bytes) -> Path:
    """A run folder with this samples.jsonl."""
    (folder / "run.json").write_text(json.dumps(RUN), encoding="utf-8")
    path = folder / "videos" / "s" / "samples.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


@pytest.mark.fault("F.samples", "C.samples")
@FUZZ
@given(st.integers(0, len(LINES)), st.sampled_from([b"", b"\0" * 64]))
def test_a_torn_samples_jsonl_gives_whole_rows_or_names_the_torn_one(tmp_path_factory, cut, end):
    folder = tmp_path_factory.mktemp("torn")
    path = listing(folder, LINES[:cut] + end)
    index = SampleIndex(path.parent, WHOLE, ROWS[0]["settings"])
    whole = LINES[:cut].count(b"\n")
    with limited():
        assert list(index._rows().values()) == ROWS[:whole]
        try:
            found = collect(folder, "s")
        except UserError as error:
            assert one_line(error) and whole == 0
            return
    seeds = [sample.seed for sample in found.samples]
    assert seeds == list(range(len(seeds))) and whole <= len(seeds)
    assert len(seeds) + len(found.refused) == whole + bool((LINES[:cut] + end).rpartition(b"\n")[2])


@pytest.mark.fault("F.samples", "C.samples", "A14")
@FUZZ
@given(st.sampled_from(paths(ROWS[1])), values)
def test_a_changed_row_of_samples_jsonl_is_refused_or_read_as_it_is(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("row")
    row = put(ROWS[1], place, value)
    listing(folder, b"".join(json.dumps(r).encode() + b"\n" for r in (ROWS[0], row, ROWS[2])))
    try:
        with limited():
            found = collect(folder, "s")
    except UserError as error:
        assert one_line(error)
        return
    assert {sample.seed for sample in found.samples} >= {0, 2}
    if len(found.samples) == 3:
        (read,) = [s for s in found.samples if s.path.name not in ("0.mp4", "2.mp4")]
        assert same(read.prompt, row["prompt"] or None)
        assert read.seed == (None if row["seed"] in (None, "") else float(row["seed"]))


@pytest.mark.fault("F.entry", "C.entry")
@FUZZ
@given(
    st.sampled_from(ENTRIES).flatmap(
        lambda e: st.tuples(st.just(e), st.sampled_from(paths(e)), values)
    )
)
def test_an_entry_is_read_as_it_is_or_refused(tmp_path_factory, change) -> None:
    entry, place, value = change
    written = put(entry, place, value)
    path = tmp_path_factory.mktemp("entry") / "e.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    try:
        with limited():
            read = read_entry(path).model_dump(mode="json", by_alias=True)
    except UserError as error:
        assert one_line(error)
        return
    assert same({key: read[key] for key in written}, written)


@pytest.mark.fault("C.entry")
@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff\xfe{\0}\0", b"\0" * 9])
def test_a_file_that_is_no_entry_is_one_line(tmp_path, data) -> None:
    (tmp_path / "e.json").write_bytes(data)
    with pytest.raises(UserError, match=r"e\.json") as caught:
        read_entry(tmp_path / "e.json")
    assert one_line(caught.value)


@pytest.mark.fault("C.entry")
def test_an_entry_without_metrics_is_one_line(tmp_path) -> None:
    for broken in (
        {k: v for k, v in ENTRIES[0].items() if k != "metrics"},
        ENTRIES[0] | {"metrics": {}},
    ):
        (tmp_path / "e.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(UserError, match="metrics"):
            read_entry(tmp_path / "e.json")
