"""Bold is what the data separate, on the clips that all have; cells of other sets say their n."""

import numpy as np
import pandas as pd
import pytest
from score_runs import add_run

from dfdbench.evaluate.store import Store
from dfdbench.report.best import best_arm, best_in
from dfdbench.report.collect import NO_TRAINING_SEED, Collected, collect
from dfdbench.report.page import report
from dfdbench.report.sets import row_sets
from dfdbench.report.summary import compare, summarise
from dfdbench.report.tables import main_table
from dfdbench.utils.table import markdown

NOISE = np.random.default_rng(0).normal(0, 0.2, 12)


def rows(arm: str, values, metric: str = "brisque", seeds=(1,), level: str = "video"):
    return [
        (arm, NO_TRAINING_SEED, f"p{i:02}", seed, metric, float(value), level)
        for i, value in enumerate(values)
        for seed in seeds
    ]


def frame(*parts) -> pd.DataFrame:
    columns = ["arm", "training_seed", "prompt_id", "seed", "metric", "value", "level"]
    return pd.DataFrame([row for part in parts for row in part], columns=columns)


def collected(*parts) -> Collected:
    values = frame(*parts)
    clips = values[values["level"] == "video"].drop_duplicates(["arm", "prompt_id", "seed"])
    clips = clips.assign(prompt=None, path="x")
    return Collected("s", values, clips, {}, [], [])


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("direction", "dfd", "best"),
    [
        ("higher", NOISE + 0.1, "dfd"),  # by the same on every prompt: paired, it is clear
        ("lower", NOISE - 0.1, "dfd"),
        ("higher", NOISE - 0.1, "dmd2"),
        ("higher", NOISE, None),  # a tie
        ("higher", NOISE[::-1] + 0.01, None),  # the data cannot tell
        ("higher", NOISE[:1] + 0.1, None),  # one prompt
    ],
)
def test_the_best_of_two_is_what_their_paired_interval_separates(direction, dfd, best):
    assert best_arm(frame(rows("dmd2", NOISE), rows("dfd", dfd)), direction) == best


@pytest.mark.fault("A10")
def test_the_best_of_three_is_separated_from_both():
    two = rows("dmd2", NOISE), rows("dfd", NOISE + 0.1)
    assert best_arm(frame(*two, rows("dp_dmd", NOISE + 0.05)), "higher") == "dfd"
    assert best_arm(frame(*two, rows("dp_dmd", NOISE + 0.1)), "higher") is None
    assert best_arm(frame(*two, rows("dp_dmd", NOISE[::-1] + 0.1)), "higher") is None
    assert best_arm(frame(*two, rows("teacher", NOISE + 1)), "higher") == "dfd"  # no student


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("dmd2", "dfd", "best"),
    [
        (0.4, 0.1, "dfd"), (-0.4, 0.1, "dfd"), (0.1, 0.4, "dmd2"),
        (0.1, -0.1, None), (0.1, 0.1, None),  # as far on either side
    ],
)  # fmt: skip
def test_nearest_is_what_is_nearer_beyond_doubt(dmd2, dfd, best):
    rng = np.random.default_rng(1)
    parts = [
        rows(arm, NOISE + shift + rng.normal(0, 0.01, 12))
        for arm, shift in (("real", 0.0), ("dmd2", dmd2), ("dfd", dfd))
    ]
    assert best_arm(frame(*parts), "nearest_reference") == best
    assert best_arm(frame(*parts[1:]), "nearest_reference") is None  # nothing to be near to


@pytest.mark.fault("A11")
def test_an_extra_hard_prompt_costs_nothing():
    dfd = [*(NOISE[:6] + 0.1), -9.0]
    found = collected(
        rows("dmd2", NOISE[:6], "temporal_flickering"), rows("dfd", dfd, "temporal_flickering")
    )
    sets = row_sets(found)
    summary = summarise(found, sets)
    numbers = [summary[arm]["temporal_flickering"] for arm in ("dmd2", "dfd")]
    assert [x.n for x in numbers] == [6, 6]
    assert numbers[1].mean - numbers[0].mean == pytest.approx(0.1)
    assert best_in(sets) == {"temporal_flickering": "dfd"}
    assert sets["temporal_flickering"].marks == {}


@pytest.mark.fault("A11")
def test_clip_seeds_that_not_all_have_are_left_out():
    few = rows("dmd2", NOISE, "brisque", (1, 2))
    many = rows("dfd", NOISE, "brisque", (1, 2)) + rows("dfd", NOISE + 50, "brisque", (3, 4))
    found = collected(few, many)
    summary = summarise(found)
    assert summary["dfd"]["brisque"].mean == pytest.approx(summary["dmd2"]["brisque"].mean)
    (delta,) = compare(found, summary, [("dfd", "dmd2")])
    assert delta.mean == pytest.approx(0)


@pytest.mark.fault("A11")
def test_values_over_other_numbers_of_clips_are_marked_and_never_best():
    parts = []
    for arm, seeds, shift in (("dmd2", (1, 2), 1.2), ("dfd", (1, 2, 3, 4), 1.5)):
        parts.append(rows(arm, NOISE, "brisque", seeds))
        parts.append(rows(arm, NOISE / 9 + shift, "effnet_lite2_vendi", (None,), "prompt"))
    found = collected(*parts)
    sets = row_sets(found)
    assert sets["effnet_lite2_vendi"].marks == {
        "dmd2": "12 prompts, 2 clips each", "dfd": "12 prompts, 4 clips each",
    }  # fmt: skip
    assert best_in(sets) == {}
    text = markdown(main_table(summarise(found, sets), {}, {m: s.marks for m, s in sets.items()}))
    assert "(12 prompts, 2 clips each) |" in text and "**" not in text
    deltas = {d.metric: d for d in compare(found, summarise(found, sets), [("dfd", "dmd2")])}
    assert not deltas["effnet_lite2_vendi"].alike and deltas["brisque"].alike


@pytest.mark.fault("A11")
def test_arms_without_a_common_prompt_say_what_they_are_of():
    other = [(a, t, f"q{p}", *rest) for a, t, p, *rest in rows("dfd", NOISE[:5], "brisque")]
    found = collected(rows("dmd2", NOISE, "brisque"), other)
    sets = row_sets(found)
    assert sets["brisque"].marks == {
        "dmd2": "12 prompts, 1 clip each",
        "dfd": "5 prompts, 1 clip each",
    }
    assert best_in(sets) == {}


@pytest.mark.fault("A11")
def test_a_reference_of_other_clips_says_its_n():
    real = [(a, t, f"q{p}", *rest) for a, t, p, *rest in rows("real", NOISE[:5], "brisque")]
    found = collected(rows("dmd2", NOISE, "brisque"), rows("dfd", NOISE + 1, "brisque"), real)
    assert row_sets(found)["brisque"].marks == {"real": "5 prompts, 1 clip each"}


@pytest.mark.fault("A10")
def test_what_needs_two_clips_of_a_prompt_is_named_where_there_is_one(tmp_path):
    add_run(tmp_path / "dfd", "dfd", 0)
    with Store(tmp_path / "dfd/scores.sqlite") as store:
        store.set_groups("toy-t2v", {}, {})
        store.set_meta({"families toy-t2v": "oracle,colour,effnet_lite2"})
        paths = set(store.samples()["path"])
        store.keep_samples("toy-t2v", {path for path in paths if path.endswith("/1.mp4")})
    report([tmp_path / "dfd"], tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("- DFD has no "))
    assert "4 of 4 prompts have one clip" in line and "hue_entropy" in line
    assert "effnet_lite2_diversity" in line or "more" in line


@pytest.mark.fault("A15")
def test_captions_claim_only_what_is_there(tmp_path):
    add_run(tmp_path / "a/dfd", "dfd", 0)
    add_run(tmp_path / "a/dmd2", "dmd2", 0)
    for clip in (tmp_path / "a/dfd/videos/toy-t2v/ball-desert").glob("[1-3].mp4"):
        clip.unlink()
    report([tmp_path / "a"], tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    assert "real clips" not in text.split("## Pictures")[1].split("##")[0]
    assert "dashed line" not in text and "The same prompt and seeds in every arm" not in text
    assert "an empty place has no clip with this seed" in text
    assert collect([tmp_path / "a"]).references == frozenset()
