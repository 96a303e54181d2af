"""VBench's info files: every prompt once, ids that are file names, faults in one line."""

import re
from pathlib import Path

import pytest
from vbench_suites import I2V, LAKE, STILL, STYLE, T2V, TWICE, image_suite, install, write_info

from dfdbench.evaluate.metrics.vbench.appearance_style import style_of
from dfdbench.evaluate.metrics.vbench.human_action import action_of
from dfdbench.generate.suites import choose_suite, find_suites, get_suite
from dfdbench.generate.suites.vbench_info import LONGEST, find_info, read_info
from dfdbench.utils.errors import UserError


def test_two_entries_of_a_prompt_are_one_with_the_dimensions_of_both(tmp_path: Path) -> None:
    prompts = {p.text: p for p in read_info(write_info(tmp_path / "i.json", T2V))}
    assert list(prompts) == [STILL, STYLE, TWICE, "A person is juggling balls"]
    twice = prompts[TWICE]
    assert twice.dimensions == ("color", "subject_consistency", "imaging_quality")
    assert twice.auxiliary == {"color": {"color": "red"}}
    assert prompts[STILL].auxiliary == {} and prompts[STILL].attributes == {}


def test_ids_are_readable_file_names_and_told_apart_by_a_hash(tmp_path: Path) -> None:
    long = "a very long prompt " * 8
    texts = ["A red kite!", "a red kite", "A façade, at dusk", long, long + "more", "漢字", "..."]
    entries = [{"prompt_en": text, "dimension": ["color"]} for text in texts]
    ids = [p.id for p in read_info(write_info(tmp_path / "i.json", entries))]
    assert ids[2] == "a-facade-at-dusk"
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) for name in ids)
    assert max(map(len, ids)) <= LONGEST + 9
    assert re.fullmatch(r"a-red-kite-[0-9a-f]{8}", ids[0])
    again = read_info(write_info(tmp_path / "j.json", entries[::-1]))
    assert {p.text: p.id for p in again} == dict(zip(texts, ids, strict=True))


def test_entries_are_those_of_the_file_with_like_ones_joined(tmp_path: Path, monkeypatch) -> None:
    install(tmp_path, monkeypatch)
    entries = get_suite("vbench").entries()
    assert entries is not None and len(entries) == 4
    for entry in T2V:
        (own,) = [e for e in entries.values() if e["prompt_en"] == entry["prompt_en"]]
        assert set(entry["dimension"]) <= set(own["dimension"])
        assert own.get("auxiliary_info", {}).items() >= entry.get("auxiliary_info", {}).items()
    of_images = choose_suite("vbench-i2v", images=image_suite(tmp_path / "i2v")).entries()
    assert of_images is not None and list(of_images.values()) == I2V
    assert get_suite("vbench-custom").entries() is None


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({}, "not a valid list"),
        ([], "at least 1 item"),
        ([T2V[0], "a kettle"], "1: "),
        ([T2V[0], {"dimension": ["color"]}], "lacks '1.prompt_en'"),
        ([{"prompt_en": "a kettle", "dimension": []}], "0.dimension: "),
        (
            [{"prompt_en": "a kettle", "dimension": ["colour"]}],
            "not one of VBench's dimensions (is 'colour')",
        ),
        ([T2V[0] | {"auxiliary_info": "red"}], "0.auxiliary_info: not a valid dictionary"),
        (
            [I2V[0] | {"image_name": "../../x.jpg"}],
            "not a file name (is '../../x.jpg')",
        ),
        ([I2V[0] | {"image_name": 3}], "0.image_name: not a valid string (is 3)"),
    ],
)
def test_a_malformed_file_is_refused_with_its_path_and_entry(tmp_path, entries, fault) -> None:
    path = write_info(tmp_path / "i.json", entries)
    with pytest.raises(UserError) as caught:
        read_info(path)
    assert str(path) in str(caught.value) and fault in str(caught.value)


def test_a_file_that_is_no_json_or_absent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text("{")
    for name, fault in (("i.json", "not JSON"), ("absent.json", "cannot be read")):
        with pytest.raises(UserError, match=f"{name}: {fault}"):
            read_info(tmp_path / name)


def test_the_installed_package_comes_before_the_cache(tmp_path: Path, monkeypatch) -> None:
    install(tmp_path, monkeypatch)
    assert find_info() == tmp_path / "vbench" / "VBench_full_info.json"
    package = tmp_path / "site" / "vbench"
    write_info(package / "VBench_full_info.json", T2V)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_info() == package / "VBench_full_info.json"


def test_absent_files_leave_the_other_suites_and_say_how_to_get_them(tmp_path, monkeypatch) -> None:
    install(tmp_path, monkeypatch)
    (tmp_path / "vbench" / "VBench_full_info.json").unlink()
    found, absent = find_suites()
    assert {"toy-t2v", "vbench-custom"} <= {suite.name for suite in found}
    modes = {"vbench", "vbench-i2v", "vbench-extended", "vbench-i2v-extended"}
    assert set(absent) == modes and "VBench_aug_full_info.json" in absent["vbench-extended"]
    assert "vbench2_i2v_aug_full_info.json" in absent["vbench-i2v-extended"]
    assert "pip install --no-deps vbench==0.1.5" in absent["vbench"]
    assert "--images" in absent["vbench-i2v"] and str(tmp_path) in absent["vbench-i2v"]
    with pytest.raises(UserError, match="pip install"):
        get_suite("vbench")


def test_prompts_of_the_static_filter_get_more_clips(tmp_path: Path, monkeypatch) -> None:
    install(tmp_path, monkeypatch)
    suite = get_suite("vbench")
    counts = {p.text: len(suite.seeds_of(p)) for p in suite.prompts}
    assert counts == {STILL: 25, STYLE: 5, TWICE: 5, "A person is juggling balls": 5}
    of_images = choose_suite("vbench-i2v", images=image_suite(tmp_path / "i2v"))
    assert {len(of_images.seeds_of(p)) for p in of_images.prompts} == {5}
    lake = of_images.find(f"{LAKE}, camera pans left")
    assert lake and lake.dimensions == ("camera_motion",)


def test_prompts_give_text_dimensions_what_the_info_file_gives_vbench(monkeypatch) -> None:
    """On VBench's own file, where it is installed."""
    from official import vbench_site

    if site := vbench_site():
        monkeypatch.syspath_prepend(site)
    suite = get_suite("vbench")
    assert len(suite.prompts) == 944
    assert sum(len(p.dimensions) for p in suite.prompts) == 946 + 165 * 2 + 86
    for prompt in suite.prompts:
        if "appearance_style" in prompt.dimensions:
            own = prompt.auxiliary["appearance_style"]["appearance_style"]
            assert style_of(prompt.text) == own
        if "human_action" in prompt.dimensions:
            assert action_of(prompt.text) is not None
