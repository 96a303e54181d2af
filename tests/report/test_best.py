"""Bold is what training seeds separate, on the clips that all have; tables say their n."""

import numpy as np
import pandas as pd
import pytest
from score_runs import add_run

from dfdbench.evaluate.store import Store
from dfdbench.report.best import best_arm, best_in
from dfdbench.report.collect import VALUE_COLUMNS, Collected, collect
from dfdbench.report.page import report
from dfdbench.report.sets import cells_of, row_sets
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.report.summary import compare, summarise
from dfdbench.report.tables import main_table
from dfdbench.utils.table import markdown

SEEDS = range(6)
NOISE = np.random.default_rng(0).normal(0, 0.2, (12, 6))  # prompts, training seeds
SHAKE = np.random.default_rng(1).normal(0, 0.02, (3, 12, 6))


def rows(arm: str, values, metric: str = "brisque", seeds=(1,), level: str = "video"):
    """Scores (prompts, training seeds), of each as many clips as `seeds`."""
    values = np.asarray(values, float)
    trained = SEEDS if values.ndim == 2 else [NO_TRAINING_SEED]
    table = values.reshape(len(values), -1)
    return [
        (arm, trained[s], f"p{p:02}", seed, metric, float(table[p, s]), level, 1)
        for p, s in np.ndindex(table.shape)
        for seed in seeds
    ]


def collected(*parts) -> Collected:
    values = pd.DataFrame([row for part in parts for row in part], columns=VALUE_COLUMNS)
    clips = values[values["level"] == "video"]
    clips = clips.drop_duplicates(["arm", "training_seed", "prompt_id", "seed"])
    clips = clips.assign(prompt=None, path="x")
    return Collected("s", values, clips, {}, [], [])


def cells(*parts) -> pd.DataFrame:
    return cells_of(collected(*parts))


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("direction", "dfd", "best"),
    [
        ("higher", NOISE + 0.1 + SHAKE[0], "dfd"),  # by as much at every seed: paired, it is clear
        ("lower", NOISE - 0.1 + SHAKE[0], "dfd"),
        ("higher", NOISE - 0.1 + SHAKE[0], "dmd2"),
        ("higher", NOISE, None),  # a tie
        ("higher", NOISE + 0.0004, None),  # which shows as one
        ("higher", NOISE + np.array([0.5, -0.4, 0.5, -0.4, 0.5, -0.4]), None),  # seeds scatter
    ],
)
def test_the_best_of_two_is_what_training_seeds_separate(direction, dfd, best):
    assert best_arm(cells(rows("dmd2", NOISE), rows("dfd", dfd)), direction) == best


@pytest.mark.fault("A10")
@pytest.mark.parametrize(("seeds", "best"), [(1, None), (2, None), (3, "dfd")])
def test_nobody_is_best_below_three_training_seeds(seeds, best):
    two = rows("dmd2", NOISE[:, :seeds]), rows("dfd", (NOISE + 1 + SHAKE[0])[:, :seeds])
    assert best_arm(cells(*two), "higher") == best


def test_nobody_is_best_among_plain_folders():
    two = rows("dmd2", NOISE[:, 0]), rows("dfd", NOISE[:, 0] + 1)
    assert best_arm(cells(*two), "higher") is None
    assert best_arm(cells(rows("dmd2", NOISE), two[1]), "higher") is None


@pytest.mark.fault("A10")
def test_the_best_of_three_is_separated_from_the_next_best():
    two = rows("dmd2", NOISE), rows("dfd", NOISE + 0.1 + SHAKE[0])
    near = NOISE + 0.1 + SHAKE[1]
    assert best_arm(cells(*two, rows("dp_dmd", NOISE + 0.05 + SHAKE[1])), "higher") == "dfd"
    assert best_arm(cells(*two, rows("dp_dmd", near)), "higher") is None
    assert best_arm(cells(*two, rows("dp_dmd", near - 5)), "higher") == "dfd"
    assert best_arm(cells(*two, rows("teacher", NOISE[:, 0] + 1)), "higher") == "dfd"  # no student
    last = rows("dp_dmd", NOISE - 0.5 + np.array([3, -3, 3, -3, 3, -3]))  # not the next best
    assert best_arm(cells(*two, last), "higher") == "dfd"


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("dmd2", "dfd", "best"),
    [
        (0.4, 0.1, "dfd"), (-0.4, 0.1, "dfd"), (0.1, 0.4, "dmd2"),
        (0.1, -0.1, None), (0.1, 0.1, None),  # as far on either side
    ],
)  # fmt: skip
def test_nearest_is_what_is_nearer_beyond_doubt(dmd2, dfd, best):
    hard = NOISE[:, :1]
    parts = [
        rows("real", hard[:, 0]),
        rows("dmd2", hard + dmd2 + SHAKE[0]),
        rows("dfd", hard + dfd + SHAKE[1]),
    ]
    assert best_arm(cells(*parts), "nearest_reference") == best
    assert best_arm(cells(*parts[1:]), "nearest_reference") is None  # nothing to be near to


@pytest.mark.fault("A11")
def test_an_extra_hard_prompt_costs_nothing():
    flicker = "temporal_flickering"
    more = np.vstack([NOISE[:6] + 0.1 + SHAKE[0, :6], np.full((1, 6), -9.0)])
    own = cells(rows("dmd2", NOISE[:6], flicker), rows("dfd", more, flicker))
    sets = row_sets(own)
    summary, _ = summarise(own, sets)
    numbers = [summary[arm][flicker] for arm in ("dmd2", "dfd")]
    assert [x.prompts for x in numbers] == [6, 6]
    assert numbers[1].mean - numbers[0].mean == pytest.approx(0.1 + SHAKE[0, :6].mean())
    assert best_in(sets) == {flicker: "dfd"}


@pytest.mark.fault("A11")
def test_clip_seeds_that_not_all_students_of_a_training_seed_have_are_left_out():
    few = rows("dmd2", NOISE, "brisque", (1, 2))
    many = rows("dfd", NOISE, "brisque", (1, 2)) + rows("dfd", NOISE + 50, "brisque", (3, 4))
    own = cells(few, many)
    assert set(own["n"]) == {2}
    (delta,), _ = compare(own, [("dfd", "dmd2")])
    assert delta.mean == pytest.approx(0)


def test_other_noises_at_each_training_seed_cost_no_clip():
    parts = [
        (arm, s, "p", 4 * s + i, "brisque", shift + s + 0.1 * i, "video", 1)
        for arm, shift in (("dmd2", 0.0), ("dfd", 1.0))
        for s in range(3)
        for i in range(1, 5)
    ]
    parts += [
        ("teacher", NO_TRAINING_SEED, "p", i, "brisque", 0.5, "video", 1) for i in range(1, 5)
    ]
    own = cells(parts)
    assert set(own["n"]) == {4} and len(own) == 7
    (delta,), _ = compare(own, [("dfd", "dmd2")])
    assert delta.clips_a == delta.clips_b == 12 and delta.alike
    summary, _ = summarise(own, row_sets(own))
    assert (summary["dfd"]["brisque"].clips, summary["teacher"]["brisque"].clips) == (12, 4)


def test_whole_clips_are_counted_where_a_metric_is_of_whole_clips():
    some = [row for i, row in enumerate(rows("dfd", NOISE, "sprite_saturation", (1, 2))) if i % 3]
    own = cells(some, rows("dfd", NOISE, "brisque", (1, 2)), rows("dmd2", NOISE, "brisque", (1, 2)))
    summary, _ = summarise(own, row_sets(own))
    assert summary["dfd"]["sprite_saturation"].clips == len(some) < summary["dfd"]["brisque"].clips
    text = markdown(main_table(summary))
    assert "| n | 6 seeds, 12 prompts, 144 clips | 6 seeds, 12 prompts, 144 clips |" in text
    assert f"({len(some)} clips) |" in text


@pytest.mark.fault("A11")
def test_values_over_other_numbers_of_clips_are_never_best():
    parts = []
    for arm, seeds, shift in (("dmd2", (1, 2), 1.2), ("dfd", (1, 2, 3, 4), 1.5)):
        parts.append(rows(arm, NOISE, "brisque", seeds))
        vendi = rows(arm, NOISE / 9 + shift, "effnet_lite2_vendi", (None,), "prompt")
        parts.append([(*row[:-1], len(seeds)) for row in vendi])
    own = cells(*parts)
    assert best_in(row_sets(own)) == {}
    text = markdown(main_table(summarise(own, row_sets(own))[0]))
    assert "144 clips" in text and "288 clips" in text and "**" not in text
    deltas = {d.metric: d for d in compare(own, [("dfd", "dmd2")])[0]}
    assert not deltas["effnet_lite2_vendi"].alike and deltas["brisque"].alike


@pytest.mark.fault("A11")
def test_arms_without_a_common_prompt_say_what_they_are_of():
    other = [(a, t, f"q{p}", *rest) for a, t, p, *rest in rows("dfd", NOISE[:5], "brisque")]
    own = cells(rows("dmd2", NOISE, "brisque"), other)
    assert best_in(row_sets(own)) == {}
    text = markdown(main_table(summarise(own, row_sets(own))[0]))
    assert "| n | 6 seeds, 12 prompts, 72 clips | 6 seeds, 5 prompts, 30 clips |" in text


@pytest.mark.fault("A11")
def test_a_reference_of_other_clips_says_its_n():
    real = [(a, t, f"q{p}", *rest) for a, t, p, *rest in rows("real", NOISE[:5, 0], "brisque")]
    own = cells(rows("dmd2", NOISE, "brisque"), rows("dfd", NOISE + 1, "brisque"), real)
    text = markdown(main_table(summarise(own, row_sets(own))[0]))
    assert "| n | 5 prompts, 5 clips | 6 seeds, 12 prompts, 72 clips |" in text


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
    general, toy = [line for line in text.splitlines() if line.startswith("- DFD has no ")]
    assert "effnet_lite2_diversity" in general and "each needs 2 clips of a prompt" in general
    assert "4 of 4 prompts have fewer" in general
    assert "hue_gini" in toy and "each needs 8 clips of a prompt" in toy


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
