"""vbench.json and vbench.md name what is incomplete and what departs from VBench's protocol."""

import json
from pathlib import Path

import pytest
from vbench_suites import STILL, TWICE, install

from dfdbench.evaluate.match import record
from dfdbench.evaluate.schema import Key, Row, Shape
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.summary import is_partial, summarise, warnings, write_summary
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import UserError


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    install(tmp_path, monkeypatch)
    return get_suite("vbench")


def add(
    store: Store,
    text: str,
    seed: int,
    values: dict[str, float],
    method: str = "m",
    frames: int = 16,
    suite: Suite | None = None,
) -> None:
    """A clip of 8 frames a second."""
    suite = suite or get_suite("vbench")
    prompt = suite.find(text)
    path = f"{method}/{text}-{seed:02d}.mp4"
    row = Row(suite.name, path, prompt.id if prompt else text, text, seed, method, path)
    scores = {Key(path, name, 1, "", "all", "d", "float32", "cpu"): v for name, v in values.items()}
    store.add_scores(row, scores, Shape(64, 64, frames, 8.0))


def test_a_dimension_says_how_many_of_its_clips_it_has(tmp_path, suite) -> None:
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        for seed in range(4):
            values = {"imaging_quality": 0.5, "subject_consistency": 0.9}
            add(store, TWICE, seed, values | {"subject_consistency_frames": 15.0})
        for seed in range(7):  # more than VBench wants
            add(store, TWICE, seed, {"imaging_quality": 0.6}, "more")
    methods = summarise(path, suite)
    quality = methods["m"]["dimensions"]["imaging_quality"]
    assert (quality["found"], quality["expected"], quality["videos"]) == (4, 5, 4)
    quality = methods["more"]["dimensions"]["imaging_quality"]
    assert (quality["found"], quality["expected"], quality["videos"]) == (5, 5, 7)
    text = write_summary(tmp_path, suite, methods)[1].read_text(encoding="utf-8")
    assert "| imaging_quality | 0.5000 (4/5) | 0.6000 |" in text
    # 1 of 7 dimensions, of all clips; 2 of 7 of part of them
    rows = [line for line in text.splitlines() if line.startswith("| **quality**")]
    assert "(2/7, of part of the clips)" in rows[0] and "(1/7) |" in rows[0]


def test_whole_dimensions_with_a_missing_clip_are_partial(suite) -> None:
    whole = {"found": 5, "expected": 5}
    total = {"value": 0.5, "found": 7, "expected": 7}
    methods = {"m": {"dimensions": {"scene": whole}, "totals": {"total": total}}}
    assert not is_partial(methods)
    methods["m"]["dimensions"]["scene"] = {"found": 4, "expected": 5}
    assert is_partial(methods)
    methods["m"]["dimensions"]["scene"] = {"found": 4, "expected": None}
    assert not is_partial(methods)


def test_a_value_of_a_prompt_that_does_not_ask_for_it_does_not_count(tmp_path, suite) -> None:
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        add(store, TWICE, 0, {"imaging_quality": 0.5})
        add(store, STILL, 0, {"imaging_quality": 0.9})
    found = summarise(path, suite)["m"]["dimensions"]["imaging_quality"]
    assert found["score"] == pytest.approx(0.5) and found["videos"] == 1


def test_flickering_counts_static_clips_and_is_complete_when_all_are_judged(tmp_path, suite):
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        for seed in range(25):
            static = float(seed % 8 == 0)
            add(store, STILL, seed, {"temporal_flickering": 0.9 + 0.05 * static, "static": static})
        add(store, STILL, 0, {"temporal_flickering": 0.9}, "unjudged")
    methods = summarise(path, suite)
    found = methods["m"]["dimensions"]["temporal_flickering"]
    assert found["score"] == pytest.approx(0.95) and found["videos"] == 4
    assert (found["found"], found["expected"]) == (25, 25)
    assert methods["m"]["protocol"]["static"] == {"judged": 25, "kept": 4, "unjudged": 0}
    assert "temporal_flickering" not in methods["unjudged"]["dimensions"]
    assert methods["unjudged"]["protocol"]["static"] == {"judged": 0, "kept": 0, "unjudged": 1}
    assert any("1 of 1 clips were not judged" in line for line in warnings(methods))


def test_the_protocol_is_measured_from_the_clips(tmp_path, suite) -> None:
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        for seed, frames in enumerate((16, 39, 40, 81, 16)):
            add(store, TWICE, seed, {"imaging_quality": 0.5}, frames=frames)
        add(store, STILL, 7, {"temporal_flickering": 0.9})
        texts = json.dumps({"raw": 4, "other": 2})
        store.set_meta({"prompts vbench m": texts, "crop vbench m": "16-9"})
    methods = summarise(path, suite)
    facts = methods["m"]["protocol"]
    assert facts["seconds"] == {"least": 2.0, "most": 10.125, "known": 6, "long": 2}  # 40 / 8 = 5
    assert facts["clips_per_prompt"] == {"least": 1, "most": 5, "expected": [5, 25], "others": 1}
    assert facts["prompts"] == {"found": 2, "expected": 4}
    assert facts["seeds"] == {"distinct": 6, "least": 0, "most": 7, "unknown": 0}
    assert facts["texts"] == {"raw": 4, "other": 2} and facts["crop"] == "16-9"
    lines = warnings(methods)
    assert lines[0].startswith("m: 2 of 6 clips last 5.0 s or longer")
    assert lines[1].startswith("m: 2 of 6 clips were made from other texts")
    assert lines[2].startswith(
        "m: 1 of 2 prompts have another number of clips than 5 or 25: 1 to 5"
    )
    written = write_summary(tmp_path, suite, methods)
    found = json.loads(written[0].read_text(encoding="utf-8"))
    assert found["info_sha256"] == suite.info_sha256 and len(suite.info_sha256) == 64
    text = written[1].read_text(encoding="utf-8")
    assert "| clips of 5.0 s or longer | 2 of 6 |" in text and suite.info_sha256 in text
    assert "| texts | the suite's own 4, others (extended) 2 |" in text


def test_clips_as_vbench_wants_them_give_no_warning(tmp_path, suite) -> None:
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        for seed in range(25):
            add(store, STILL, seed, {"temporal_flickering": 0.9, "static": 1.0})
        for seed in range(5):
            add(store, TWICE, seed, {"imaging_quality": 0.5}, frames=39)
        store.set_meta({"prompts vbench m": json.dumps({"raw": 30})})
    assert warnings(summarise(path, suite)) == []


def test_stand_ins_have_columns_of_their_own_and_no_part_in_totals(tmp_path, suite) -> None:
    path = tmp_path / "scores.sqlite"
    with Store(path) as store:
        add(store, TWICE, 0, {"brisque": 40.0})
        add(store, TWICE, 1, {"brisque": 20.0})
        add(store, STILL, 0, {"brisque": 90.0})  # asks for no image quality
    methods = summarise(path, suite)
    assert methods["m"]["stand_ins"] == {
        "brisque": {
            "dimension": "imaging_quality", "mean": 30.0, "videos": 2, "found": 2, "expected": 5,
        }
    }  # fmt: skip
    assert methods["m"]["dimensions"] == {} and methods["m"]["totals"]["quality"]["found"] == 0
    text = write_summary(tmp_path, suite, methods, ["x: no y.pth; get it"])[1].read_text()
    assert "| brisque (for imaging_quality) | 30.0000 (2/5) |" in text
    assert "## Not scored\n\n- x: no y.pth; get it\n" in text


def test_a_store_does_not_mix_first_frames_of_two_kinds(tmp_path, suite) -> None:
    def facts(conditions: str) -> dict[str, str]:
        return {"conditions vbench": conditions, "info vbench": ""}

    with Store(tmp_path / "scores.sqlite") as store:
        record(store, suite, facts("custom"), {"m/a.mp4"})
        add(store, TWICE, 0, {"imaging_quality": 0.5})
        record(store, suite, facts("custom"), {"another.mp4"})
        with pytest.raises(UserError, match=r"custom, not toy-i2v\); name another --out"):
            record(store, suite, facts("toy-i2v"), {"another.mp4"})
        assert store.meta()["conditions vbench"] == "custom"
        record(store, suite, facts("toy-i2v"), {f"m/{TWICE}-00.mp4"})  # all of them anew
        assert store.meta()["conditions vbench"] == "toy-i2v"
