"""Files of prompts and info files of any content: read as written, or refused in one line."""

import json
from pathlib import Path

import pytest
from fuzzing import FUZZ, limited, one_line, texts, values
from hypothesis import given
from hypothesis import strategies as st

from dfdbench.generate.suites import read_prompt_map, read_prompts
from dfdbench.generate.suites.base import Prompt
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.generate.suites.vbench_info import read_info
from dfdbench.utils.errors import UserError


def read(path: Path) -> tuple[Prompt, ...] | None:
    """Its prompts; None where it is refused."""
    try:
        with limited():
            return read_prompts(path)
    except UserError as error:
        assert one_line(error)
        return None


@pytest.mark.fault("F.prompts", "A8", "A13")
@FUZZ
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_lines(tmp_path_factory, written, end) -> None:
    path = tmp_path_factory.mktemp("lines") / "p.txt"
    path.write_bytes(end.join(written).encode("utf-8", "surrogatepass"))
    if found := read(path):
        lines = [part for text in written for part in text.replace("\r", "\n").split("\n")]
        kept = [t.removeprefix("\ufeff").strip() for t in lines]
        kept = [t for t in kept if t and not t.startswith("#")]
        assert [p.text for p in found] == [t.rpartition("|")[2].strip() for t in kept]


@pytest.mark.fault("F.prompts", "A8", "A12")
@FUZZ
@given(
    st.one_of(st.lists(st.one_of(texts, values), max_size=3), st.dictionaries(texts, texts), values)
)
def test_json(tmp_path_factory, written) -> None:
    path = tmp_path_factory.mktemp("json") / "p.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    if (found := read(path)) is None:
        return
    given_texts = written if isinstance(written, list) else list(written.values())
    assert all(isinstance(text, str) for text in given_texts)
    by_id = {prompt.id: prompt.text for prompt in found}
    assert set(by_id.values()) == {text.strip() for text in given_texts}
    if isinstance(written, dict):
        assert {f: by_id[i] for f, i in read_prompt_map(path)[1].items()} == {
            file: text.strip() for file, text in written.items()
        }


@pytest.mark.fault("F.prompts")
@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["p.txt", "p.json", "p"]))
def test_bytes(tmp_path_factory, data, name) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    read(path)


entries = st.fixed_dictionaries(
    {
        "prompt_en": st.one_of(st.just("a cat"), texts, values),
        "dimension": st.one_of(
            st.lists(st.sampled_from(list(DIMENSIONS)), max_size=2), st.lists(texts), values
        ),
    },
    optional={
        "auxiliary_info": values,
        "image_name": st.one_of(st.just("a.jpg"), texts, values),
        "image_type": st.one_of(texts, values),
        "other": values,
    },
)


@pytest.mark.fault("F.info")
@FUZZ
@given(st.one_of(st.lists(entries, max_size=3), values))
def test_info_files(tmp_path_factory, written) -> None:
    path = tmp_path_factory.mktemp("info") / "VBench_full_info.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    try:
        with limited():
            found = read_info(path)
    except UserError as error:
        assert one_line(error)
        return
    assert {p.text for p in found} == {entry["prompt_en"] for entry in written}
    assert {d for p in found for d in p.dimensions} == {d for e in written for d in e["dimension"]}
