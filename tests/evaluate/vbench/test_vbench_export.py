"""VBench's result files, read back as its leaderboard's scripts read them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dfdbench.evaluate.vbench.export import eval_results, full_info, write_files
from dfdbench.evaluate.vbench.totals import PROTOCOLS, dimension_scores, totals
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils.errors import UserError

I2V_SCRIPT_KNOWS = {
    "camera_motion", "i2v_subject", "i2v_background", "subject_consistency",
    "background_consistency", "motion_smoothness", "dynamic_degree", "aesthetic_quality",
    "imaging_quality",
}  # fmt: skip
PROMPTS = {"p1": "a cat, camera pans left", "p2": 'a "dog" <b>, camera zooms in', "p3": "a fox"}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def script_reads(archive: Path, known: set[str] | None) -> dict[str, float]:
    """The first element of each dimension in the archive's JSON objects, a folder deep at most.

    As cal_final_score.py and cal_i2v_final_score.py do it; the latter stops at unknown names.
    """
    found = {}
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        for name in opened.namelist():
            if name.startswith((".", "__")) or name.count("/") > 1 or not name.endswith("json"):
                continue
            content = json.loads(opened.read(name), parse_constant=no_constant)
            if isinstance(content, dict):
                for dimension, results in content.items():
                    if known is not None and dimension not in known:
                        raise KeyError(dimension)
                    found[dimension] = results[0]
    return found


def clips(dimensions: tuple[str, ...] = tuple(DIMENSIONS), count: int = 6) -> pd.DataFrame:
    """Clips of three prompts with random values, one of them missing."""
    rng = np.random.default_rng(0)
    ids = [list(PROMPTS)[i % 3] for i in range(count)]
    values: dict[str, Any] = {
        "suite": "vbench",
        "method": "dfd",
        "prompt_id": ids,
        "prompt": [PROMPTS[i] for i in ids],
        "path": [f"videos/{i}-{n // 3}.mp4" for n, i in enumerate(ids)],
    }
    for dimension in dimensions:
        values[dimension] = rng.uniform(0.5, 1, count)
        if DIMENSIONS[dimension].by_frame:
            values[f"{dimension}_frames"] = rng.integers(5, 80, count).astype(float)
    for dimension in {"human_action", "dynamic_degree", "camera_motion"} & set(dimensions):
        values[dimension] = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0][:count]
    frame = pd.DataFrame(values)
    frame.loc[0, [d for d in dimensions if d in ("scene", "i2v_subject")]] = np.nan
    return frame


@pytest.mark.parametrize(("protocol", "known"), [("t2v", None), ("i2v", I2V_SCRIPT_KNOWS)])
def test_scripts_read_the_scores_from_the_zip(
    tmp_path: Path, protocol: str, known: set[str] | None
) -> None:
    values = clips()
    info, results, archive = write_files(tmp_path, "mine", values, protocol)
    assert [p.name for p in (info, results, archive)] == [
        "mine_full_info.json", "mine_eval_results.json", "mine.zip",
    ]  # fmt: skip
    read = script_reads(archive, known)
    assert set(read) == set(PROTOCOLS[protocol].dimensions)
    expected = dimension_scores(values).set_index("dimension")["score"]
    assert read == pytest.approx({name: expected[name] for name in read})
    assert totals(read, protocol)["total"].label == ""


def test_i2v_zip_holds_no_flickering_although_it_was_scored(tmp_path: Path) -> None:
    values = clips(("temporal_flickering", "i2v_subject", "camera_motion"))
    archive = write_files(tmp_path, "mine", values, "i2v")[-1]
    assert archive.name == "mine_2of9.zip"
    assert set(script_reads(archive, I2V_SCRIPT_KNOWS)) == {"i2v_subject", "camera_motion"}


def test_each_clip_has_its_value_in_the_units_of_vbench() -> None:
    values = clips()
    results = eval_results(values, "t2v")
    score, videos = results["imaging_quality"]
    assert [v["video_path"] for v in videos] == sorted(values["path"])
    assert np.mean([v["video_results"] for v in videos]) == pytest.approx(100 * score)
    score, videos = results["human_action"]
    verdicts = dict(zip(values["path"], values["human_action"], strict=True))
    assert {v["video_path"]: v["video_results"] for v in videos} == verdicts
    assert all(isinstance(v["video_results"], bool) for v in videos) and score == 0.5
    assert len(results["scene"][1]) == 5  # one has no value


def test_frame_weighted_scores_follow_from_what_is_written() -> None:
    score, videos = eval_results(clips(), "t2v")["background_consistency"]
    weighted = sum(v["video_results"] * v["cnt_per_video"] for v in videos)
    assert score == pytest.approx(weighted / sum(v["cnt_per_video"] for v in videos))
    assert score != pytest.approx(np.mean([v["video_results"] for v in videos]), abs=1e-4)


def test_clip_without_its_number_of_frames_is_listed_but_not_counted() -> None:
    values = clips(("subject_consistency",), count=2)
    values.loc[0, "subject_consistency_frames"] = np.nan
    score, videos = eval_results(values, "t2v")["subject_consistency"]
    assert score == values.loc[1, "subject_consistency"]
    assert ["cnt_per_video" in video for video in videos] == [False, True]


def test_camera_motion_has_the_score_of_each_motion_that_has_clips() -> None:
    values = clips(("camera_motion",))
    asked = {name: ["camera_motion"] for name in ("p1", "p2")}
    entries = {k: {"prompt_en": PROMPTS[k], "dimension": asked[k]} for k in asked}
    score, motions, videos = eval_results(values, "i2v", entries)["camera_motion"]
    assert motions == {"pan_left": 1.0, "zoom_in": 0.0}
    assert (score, len(videos)) == (0.5, 4)


def test_full_info_is_vbenchs_entry_with_the_clips() -> None:
    entries = {
        "p2": {"prompt_en": "a dog", "dimension": ["color"], "auxiliary_info": {"color": "red"}},
        "p9": {"prompt_en": "nothing", "dimension": ["color"]},
    }
    assert full_info(clips(), entries) == [
        entries["p2"] | {"video_list": ["videos/p2-0.mp4", "videos/p2-1.mp4"]}
    ]


def test_full_info_of_any_clips_has_their_prompts_and_dimensions() -> None:
    values = clips(("scene", "temporal_style"), count=3)
    values.loc[1, "prompt"] = None
    found = full_info(values)
    assert [entry["prompt_en"] for entry in found] == [PROMPTS["p1"], "p2", PROMPTS["p3"]]
    assert [entry["dimension"] for entry in found] == [
        ["temporal_style"], ["scene", "temporal_style"], ["scene", "temporal_style"],
    ]  # fmt: skip
    assert [entry["video_list"] for entry in found] == [[p] for p in values["path"]]


def test_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        [p.read_bytes() for p in write_files(tmp_path / str(i), "mine", clips(), "t2v")]
        for i in range(2)
    )
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first[-1])) as opened:
        assert opened.read("mine_full_info.json") == first[0]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start with a letter"):
        write_files(tmp_path, "__mine", clips(), "t2v")
    with pytest.raises(UserError, match="no score"):
        write_files(tmp_path, "mine", clips(("i2v_subject",)), "t2v")
    two = pd.concat([clips(), clips().assign(method="dmd2")], ignore_index=True)
    with pytest.raises(UserError, match=r"dfd, dmd2.*hold one"):
        write_files(tmp_path, "mine", two, "t2v")
    assert not list(tmp_path.iterdir())
