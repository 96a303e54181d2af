"""VBench's totals against published rows of its leaderboard and the DFD paper, and by hand."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dfdbench.evaluate.metrics.vbench.consistency import consistency
from dfdbench.evaluate.store import Key, Row, Store
from dfdbench.evaluate.vbench.totals import (
    COLUMNS,
    PROTOCOLS,
    Total,
    dimension_scores,
    normalised,
    totals,
)
from dfdbench.generate.suites.dimensions import DIMENSIONS, I2V, I2V_QUALITY, QUALITY, SEMANTIC, T2V
from dfdbench.report import published
from dfdbench.utils.errors import UserError

# Percent, as VBench's leaderboard prints them and Show-o2 (2506.15564v3) repeats them, Table 8: the
# 16 dimensions in VBench's order (the first seven are Quality), then Quality, Semantic, Total.
# The minima, maxima and weights under test are from VBench's repository (scripts/constant.py).
LEADERBOARD = {
    "ModelScope": (
        [89.87, 95.29, 98.28, 95.79, 66.39, 52.06, 58.57],
        [82.25, 38.98, 92.40, 81.72, 33.68, 39.26, 23.39, 25.37, 25.67],
        (78.05, 66.54, 75.75),
    ),
    "LaVie": (
        [91.41, 97.47, 98.30, 96.38, 49.72, 54.94, 61.90],
        [91.82, 33.32, 96.80, 86.39, 34.09, 52.69, 23.56, 25.93, 26.41],
        (78.78, 70.31, 77.08),
    ),
    "CogVideoX-5B": (
        [96.23, 96.52, 98.66, 96.92, 70.97, 61.98, 62.90],
        [85.23, 62.11, 99.40, 82.81, 66.35, 53.20, 24.91, 25.38, 27.59],
        (82.75, 77.04, 81.61),
    ),
    "Kling": (
        [98.33, 97.60, 99.30, 99.40, 46.94, 61.21, 65.62],
        [87.24, 68.05, 93.40, 89.90, 73.03, 50.86, 19.62, 24.17, 26.42],
        (83.39, 75.68, 81.85),
    ),
}
# The same of the I2V leaderboard, from Table 9 of MAGI-1 (2505.13211): subject, background, motion,
# dynamic degree, aesthetics, imaging; subject and background against the image, camera; totals.
I2V_LEADERBOARD = {
    "MAGI-1": (
        [93.96, 96.74, 98.68, 68.21, 64.74, 69.71],
        [98.39, 99.00, 50.85],
        (82.44, 96.12, 89.28),
    ),
    "Step-Video-TI2V": (
        [96.02, 97.06, 99.24, 48.78, 62.29, 70.44],
        [97.86, 98.63, 49.23],
        (81.22, 95.50, 88.36),
    ),
}


def scores_of(model: str) -> dict[str, float]:
    quality, semantic, _ = LEADERBOARD[model]
    return {k: v / 100 for k, v in zip(QUALITY + SEMANTIC, quality + semantic, strict=True)}


@pytest.mark.parametrize("model", LEADERBOARD)
def test_totals_are_those_that_the_leaderboard_prints(model: str) -> None:
    found = totals(scores_of(model), "t2v")
    values = [100 * float(found[k].value or 0) for k in ("quality", "semantic", "total")]
    # the dimensions are rounded to .01 as well, so the last digit may differ by one
    assert values == pytest.approx(LEADERBOARD[model][2], abs=0.01)
    assert [found[k].label for k in ("quality", "semantic", "total")] == ["", "", ""]
    assert found["total"].expected == 16


@pytest.mark.parametrize("model", I2V_LEADERBOARD)
def test_i2v_totals_are_those_that_the_leaderboard_prints(model: str) -> None:
    quality, image, printed = I2V_LEADERBOARD[model]
    scores = {k: v / 100 for k, v in zip(I2V_QUALITY + I2V, quality + image, strict=True)}
    found = totals(scores, "i2v")
    values = [100 * float(found[k].value or 0) for k in ("quality", "i2v", "total")]
    assert values == pytest.approx(printed, abs=0.01)
    assert [found[k].label for k in ("quality", "i2v", "total")] == ["", "", ""]


def test_totals_of_modelscope_by_hand() -> None:
    # (score - min) / (max - min), worked out on paper: subject, background, flickering, motion;
    # dynamic degree, aesthetics and imaging stay as they are
    quality = [0.7525 / 0.8538, 0.6914 / 0.7385, 0.3535 / 0.3707, 0.2519 / 0.2915]
    assert quality == pytest.approx([0.881354, 0.936222, 0.953601, 0.864151], abs=1e-6)
    quality += [0.6639, 0.5206, 0.5857]
    # object class to spatial relationship as they are; scene, appearance, temporal style, overall
    semantic = [0.8225, 0.3898, 0.9240, 0.8172, 0.3368]
    semantic += [0.3926 / 0.8222, 0.2330 / 0.2846, 0.2537 / 0.364, 0.2567 / 0.364]
    assert semantic[5:] == pytest.approx([0.477499, 0.818693, 0.696978, 0.705220], abs=1e-6)
    scores = scores_of("ModelScope")
    assert [normalised(k, scores[k]) for k in QUALITY] == pytest.approx(quality)
    assert [normalised(k, scores[k]) for k in SEMANTIC] == pytest.approx(semantic)
    # dynamic degree weighs half: 4.741628 of ones, 0.33195 of the half; 6.5 weights in all
    assert pytest.approx(0.780550, abs=1e-6) == (4.741628 + 0.33195) / 6.5
    # 3.2903 of the five, 2.698390 of the four, over nine
    assert pytest.approx(0.665410, abs=1e-6) == (3.2903 + 2.698390) / 9
    found = totals(scores, "t2v")
    assert found["quality"].value == pytest.approx(0.780550, abs=1e-6)
    assert found["semantic"].value == pytest.approx(0.665410, abs=1e-6)
    # Quality counts four times as much as Semantic
    assert found["total"].value == pytest.approx((4 * 0.780550 + 0.665410) / 5, abs=1e-6)


def test_plain_averages_are_those_that_the_paper_prints() -> None:
    rows = sorted(published.read(), key=lambda row: (row.setting, row.method))
    checked = {"t2v": 0, "i2v": 0}
    for (setting, _), group in groupby(rows, key=lambda row: (row.setting, row.method)):
        scores = {row.metric: row.value for row in group}
        protocol = setting[:3]
        if "average_vbench" not in scores:
            continue
        found = totals({k: v for k, v in scores.items() if k in DIMENSIONS}, protocol)["average"]
        # the columns it is the mean of are rounded to three digits too
        assert found.value == pytest.approx(scores["average_vbench"], abs=0.00101)
        assert found == (found.value, {"t2v": 5, "i2v": 7}[protocol], found.expected)
        assert found.label == ""
        checked[protocol] += 1
    assert checked == {"t2v": 4, "i2v": 10}


def test_i2v_total_by_hand() -> None:
    scores = dict.fromkeys(I2V_QUALITY + I2V, 1.0) | {
        "motion_smoothness": 0.85175,  # the middle of .706 and .9975
        "dynamic_degree": 0.4,
        "i2v_subject": 0.57310,  # the middle of .1462 and 1
        "camera_motion": 0.3,
        "temporal_flickering": 0.1,  # not of this total
    }
    found = totals(scores, "i2v")
    quality = (4 + 0.5 + 0.5 * 0.4) / 5.5
    image = (0.5 + 1 + 0.1 * 0.3) / 2.1
    assert found["quality"].value == pytest.approx(quality)
    assert found["i2v"].value == pytest.approx(image)
    assert found["total"] == Total(pytest.approx((quality + image) / 2), 9, 9)
    plain = (1 + 1 + 0.1 + 0.85175 + 1 + 0.5731 + 1) / 7
    assert found["average"] == Total(pytest.approx(plain), 7, 7)


def test_normalised_scores_are_not_clamped() -> None:
    assert normalised("motion_smoothness", 1.0) > 1
    assert normalised("subject_consistency", 0.0) < 0


def test_missing_dimensions_are_left_out_and_labelled() -> None:
    scores = scores_of("LaVie")
    fewer = {k: v for k, v in scores.items() if k not in ("scene", "object_class")}
    fewer |= {"color": float("nan"), "dynamic_degree": None}
    found = totals(fewer, "t2v")
    kept = [normalised(k, scores[k]) for k in SEMANTIC if k in fewer and k != "color"]
    assert found["semantic"] == Total(pytest.approx(np.mean(kept)), 6, 9)
    still = [normalised(k, scores[k]) for k in QUALITY if k != "dynamic_degree"]
    assert found["quality"] == Total(pytest.approx(np.mean(still)), 6, 7)
    assert found["total"].value == pytest.approx((4 * np.mean(still) + np.mean(kept)) / 5)
    assert [found[k].label for k in ("quality", "semantic", "total", "average")] == [
        "6/7", "6/9", "12/16", "",
    ]  # fmt: skip


def test_total_without_one_of_its_parts_is_none() -> None:
    found = totals({k: v for k, v in scores_of("LaVie").items() if k in QUALITY}, "t2v")
    assert found["semantic"] == Total(None, 0, 9) and found["semantic"].label == "0/9"
    assert found["total"] == Total(None, 7, 16)
    assert found["quality"].label == ""


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(UserError, match="subject_consistency"):
        totals({"subject_consistancy": 1.0}, "t2v")
    with pytest.raises(UserError, match="t2v"):
        totals({}, "t2i")


def test_protocols_count_the_dimensions_of_the_leaderboards() -> None:
    assert len(PROTOCOLS["t2v"].dimensions) == len(set(T2V)) == 16
    assert len(PROTOCOLS["i2v"].dimensions) == 9
    assert set(T2V + I2V) == set(DIMENSIONS)
    assert {c for c in COLUMNS if c not in DIMENSIONS} == {
        "subject_consistency_frames", "background_consistency_frames",
        "appearance_style_frames", "static",
    }  # fmt: skip


def table(**columns: list[object]) -> pd.DataFrame:
    """Clips of one method and one prompt unless the columns say otherwise."""
    count = len(next(iter(columns.values())))
    base = {"method": ["dfd"] * count, "prompt_id": ["p"] * count}
    return pd.DataFrame(base | {"path": [f"{i}.mp4" for i in range(count)]} | columns)


def row_of(scores: pd.DataFrame, dimension: str, method: str = "dfd") -> "pd.Series[object]":
    found = scores[(scores["dimension"] == dimension) & (scores["method"] == method)]
    assert len(found) == 1
    return found.iloc[0]


def positive_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return max(0.0, float(a @ b / np.sqrt((a @ a) * (b @ b))))


def test_consistency_of_clips_is_the_mean_over_their_frames() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(frames, 4)) for frames in (3, 9, 40)]
    values = [consistency(features) for features in clips]
    row = row_of(
        dimension_scores(
            table(subject_consistency=values, subject_consistency_frames=[2.0, 8.0, 39.0])
        ),
        "subject_consistency",
    )
    singles = [
        (positive_cosine(f[t], f[t - 1]) + positive_cosine(f[t], f[0])) / 2
        for f in clips
        for t in range(1, len(f))
    ]
    assert row["score"] == pytest.approx(np.mean(singles))
    assert abs(row["score"] - np.mean(values)) > 1e-3


def test_values_of_a_store_are_what_it_takes(tmp_path: Path) -> None:
    with Store(tmp_path / "scores.sqlite") as store:
        for i, (value, frames) in enumerate([(0.5, 9.0), (1.0, 1.0)]):
            row = Row("vbench", f"{i}.mp4", "p", "a cat", i, "dfd", f"{i}")
            scores = {"subject_consistency": value, "subject_consistency_frames": frames}
            keys = {
                Key(row.sha256, k, 1, "", "all", "d", "float32", "cpu"): v
                for k, v in scores.items()
            }
            store.add_scores(row, keys)
        values = store.values("vbench", COLUMNS)
    scores = dimension_scores(values)
    assert row_of(scores, "subject_consistency")["score"] == pytest.approx(0.55)
    assert len(scores) == 1


def test_other_dimensions_are_the_mean_over_clips() -> None:
    row = row_of(dimension_scores(table(imaging_quality=[0.2, 0.6, np.nan])), "imaging_quality")
    assert row["score"] == pytest.approx(0.4) and row["videos"] == 2


def test_frame_mean_needs_the_frames() -> None:
    row = row_of(dimension_scores(table(background_consistency=[0.5])), "background_consistency")
    assert np.isnan(row["score"]) and row["videos"] == 1


def test_prompts_count_for_the_dimensions_they_are_meant_for() -> None:
    values = table(
        prompt_id=["a", "a", "b", "c"], scene=[0.0, 1.0, 0.25, 0.9], color=[0.1, 0.2, 0.3, 0.4]
    )
    prompts = {"a": ["scene"], "b": ["scene", "color"], "d": ["scene"]}
    scores = dimension_scores(values, prompts)
    scene, color = row_of(scores, "scene"), row_of(scores, "color")
    assert (scene["score"], scene["videos"], scene["prompts"]) == (pytest.approx(1.25 / 3), 3, 2)
    assert (color["score"], color["videos"], color["prompts"]) == (0.3, 1, 1)
    everything = row_of(dimension_scores(values), "color")
    assert (everything["score"], everything["prompts"]) == (pytest.approx(0.25), 3)


def test_methods_are_scored_apart() -> None:
    scores = dimension_scores(table(method=["a", "b", "b"], human_action=[1.0, 0.0, 1.0]))
    assert row_of(scores, "human_action", "a")["score"] == 1
    assert row_of(scores, "human_action", "b")["score"] == 0.5


def test_static_filter_keeps_the_first_five_static_clips_of_a_prompt() -> None:
    values = table(
        prompt_id=["a"] * 8 + ["b"] * 2,
        path=[f"a-{i}.mp4" for i in (7, 6, 5, 4, 3, 2, 1, 0)] + ["b-0.mp4", "b-1.mp4"],
        static=[1, 1, 1, 0, 1, 1, 1, 1, 0, None],
        temporal_flickering=[0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.9, 0.8],
        motion_smoothness=[1.0] * 10,
    )
    filtered = row_of(dimension_scores(values, static_filter=True), "temporal_flickering")
    assert filtered["score"] == pytest.approx((0.0 + 0.1 + 0.2 + 0.3 + 0.5) / 5)
    assert (filtered["videos"], filtered["prompts"]) == (5, 1)
    plain = row_of(dimension_scores(values), "temporal_flickering")
    assert plain["score"] == pytest.approx(0.45) and plain["videos"] == 10
    other = row_of(dimension_scores(values, static_filter=True), "motion_smoothness")
    assert other["videos"] == 10


def test_static_filter_without_its_reading_counts_nothing() -> None:
    scores = dimension_scores(table(temporal_flickering=[0.9]), static_filter=True)
    assert scores.empty
