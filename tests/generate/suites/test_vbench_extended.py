"""VBench with extended prompts: long texts to generate from, short ones for names and scores."""

import json
import os
from pathlib import Path

import pytest
from vbench_suites import I2V, T2V, image_suite, install, write_info

from dfdbench.evaluate.match import match
from dfdbench.generate.suites import choose_suite, get_suite
from dfdbench.generate.suites.stored import stored_suite
from dfdbench.generate.suites.vbench_info import read_info
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import collect


def extended(entries: list[dict]) -> list[dict]:
    """The entries with a long text each, the same for entries of one prompt."""
    return [entry | {"aug_prompt_en": f"Long: {entry['prompt_en']}."} for entry in entries]


@pytest.fixture
def both_files(tmp_path, monkeypatch) -> Path:
    """VBench's cache with both info files, and its image suite with both."""
    install(tmp_path, monkeypatch)
    write_info(tmp_path / "vbench" / "VBench_aug_full_info.json", extended(T2V))
    folder = image_suite(tmp_path / "i2v")
    write_info(folder / "vbench2_i2v_aug_full_info.json", extended(I2V))
    return folder


def test_both_modes_have_the_same_prompts_ids_and_dimensions(both_files):
    short, long = get_suite("vbench"), get_suite("vbench-extended")
    assert [(p.id, p.text, p.dimensions) for p in short.prompts] == [
        (p.id, p.text, p.dimensions) for p in long.prompts
    ]
    assert [p.source_text for p in short.prompts] == [p.text for p in short.prompts]
    assert [p.source_text for p in long.prompts] == [f"Long: {p.text}." for p in long.prompts]
    assert long.static_filter and long.protocol == "t2v" and long.metrics == short.metrics
    assert long.info_sha256 != short.info_sha256
    entries = long.entries()
    assert entries and all(
        e["aug_prompt_en"] == f"Long: {e['prompt_en']}." for e in entries.values()
    )
    assert "aug_prompt_en" not in str(short.entries())


def test_images_too_have_both_modes(both_files):
    short = choose_suite("vbench-i2v", images=both_files)
    long = choose_suite("vbench-i2v-extended", images=both_files)
    assert long.name == "vbench-i2v-extended" and long.conditions == short.conditions
    assert [p.id for p in long.prompts] == [p.id for p in short.prompts]
    assert all(p.source_text == f"Long: {p.text}." for p in long.prompts)
    meta = {"conditions vbench-i2v-extended": long.conditions}
    assert stored_suite(meta, "vbench-i2v-extended", both_files).prompts == long.prompts
    with pytest.raises(UserError, match="a toy has no extended texts; take --suite vbench-i2v"):
        choose_suite("vbench-i2v-extended", models=["toy-i2v"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aug_prompt_en": None}, "4: no 'aug_prompt_en' of 'a red kite'"),
        ({"aug_prompt_en": " "}, "4.aug_prompt_en"),
        ({"aug_prompt_en": 3}, "4.aug_prompt_en"),
        ({"aug_prompt_en": "Another."}, "4: another 'aug_prompt_en' of 'a red kite'"),
    ],
)
def test_a_file_without_its_long_texts_is_one_line(tmp_path, change, words):
    entries = extended(T2V)
    entries[4] |= change
    with pytest.raises(UserError, match=words) as caught:
        read_info(write_info(tmp_path / "i.json", entries), extended=True)
    assert "\n" not in str(caught.value)


def clips_of(folder: Path, rows: list[dict]) -> Path:
    """A manifest of clips that are there, if only by name."""
    folder.mkdir()
    for i, row in enumerate(rows):
        (folder / f"{i}.mp4").write_bytes(bytes([i]))
        row |= {"path": f"{i}.mp4", "seed": i, "method": "dfd"}
    manifest = folder / "samples.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def test_scores_are_by_the_short_text_and_say_what_clips_were_made_from(both_files, tmp_path):
    suite = get_suite("vbench-extended")
    prompt = suite.prompts[0]
    rows = [
        {"prompt_id": prompt.id, "prompt": prompt.text, "generated_from": prompt.long_text},
        {"prompt_id": prompt.id, "prompt": prompt.text},  # made from the short one
        {"prompt": prompt.long_text},  # of another tool, which names the long one
        {"prompt_id": prompt.id, "prompt": "something else"},
    ]
    matched = match([collect(clips_of(tmp_path / "dfd", rows), suite.name)], suite, ())
    assert {(s.prompt_id, s.prompt) for s in matched.samples} == {(prompt.id, prompt.text)}
    counts = json.loads(matched.facts["prompts vbench-extended dfd"])
    assert counts == {"extended": 2, "raw": 1, "other": 1}
    plain = match([collect(clips_of(tmp_path / "b", rows[:2]), "vbench")], get_suite("vbench"), ())
    assert json.loads(plain.facts["prompts vbench dfd"]) == {"other": 1, "raw": 1}


# --- VBench's own files


def shared(name: str) -> Path:
    """One of VBench's files beside the checkout; skips the test where it is absent."""
    default = Path(__file__).parents[4] / "shared" / "vbench"
    path = Path(os.environ.get("DFDBENCH_VBENCH_INFO", default)) / name
    if not path.is_file():
        pytest.skip(f"{name} is not here; set DFDBENCH_VBENCH_INFO to its folder")
    return path


@pytest.mark.parametrize(
    ("name", "prompts"),
    [("VBench_aug_full_info.json", 944), ("vbench2_i2v_aug_full_info.json", 1118)],
)
def test_the_real_files_give_every_prompt_its_long_text(name, prompts):
    path = shared(name)
    entries = json.loads(path.read_text(encoding="utf-8"))
    long, short = read_info(path, extended=True), read_info(path)
    assert len(long) == len(short) == prompts
    assert [(p.id, p.text) for p in long] == [(p.id, p.text) for p in short]
    own = {(p.text, p.attributes.get("image_name")): p.long_text for p in long}
    for entry in entries:
        assert own[entry["prompt_en"], entry.get("image_name")] == entry["aug_prompt_en"]


def test_ids_of_both_real_image_files_are_the_same():
    short = read_info(shared("vbench2_i2v_full_info.json"))
    long = read_info(shared("vbench2_i2v_aug_full_info.json"), extended=True)
    assert [(p.id, p.text, p.dimensions) for p in short] == [
        (p.id, p.text, p.dimensions) for p in long
    ]


def test_the_real_file_is_the_suite_and_a_list_of_long_prompts(monkeypatch):
    path = shared("VBench_aug_full_info.json")
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(path.parent))
    monkeypatch.setattr("dfdbench.generate.suites.vbench_info.find_spec", lambda name: None)
    suite = get_suite("vbench-extended")
    assert len(suite.prompts) == 944 and suite.is_extended
    stop = suite.find("In a still frame, a stop sign")
    assert stop and stop.source_text.startswith("In a still frame, a classic red stop sign")
    assert len(suite.seeds_of(stop)) == 25
    of_streams = choose_suite("ar-30s", path)
    assert of_streams.name == "ar-30s-VBench_aug_full_info" and len(of_streams.prompts) == 944
    assert of_streams.prompts[0].source_text == suite.prompts[0].source_text
