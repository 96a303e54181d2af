"""Which comparisons a report makes of cells, what it tests, and what it says of too little."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dfdbench.report.cells import COLUMNS
from dfdbench.report.primary import PRIMARIES, headline, in_order, primaries
from dfdbench.report.sets import row_sets
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.report.summary import compare, recompute, summarise
from dfdbench.report.tables import DELTA_HEAD, delta_text

RNG = np.random.default_rng(0)
HARD = RNG.normal(size=(5, 1))


def cells(*parts) -> pd.DataFrame:
    """Cells of (metric, arm, table of prompts and training seeds); one column more: untrained."""
    rows = [
        (metric, arm, f"p{p}", s if trained else NO_TRAINING_SEED, 4, float(table[p, s]))
        for metric, arm, values in parts
        for table in (np.asarray(values, float),)
        for trained in (table.shape[1] > 1,)
        for p, s in np.ndindex(table.shape)
        if np.isfinite(table[p, s])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def scattered(shift: float, seeds: int = 7, sd: float = 0.1) -> np.ndarray:
    return HARD + shift + sd * RNG.normal(size=(1, seeds))


def only(own: pd.DataFrame, pair=("dfd", "dmd2")):
    (delta,), skipped = compare(own, [pair])
    assert skipped == []
    return delta


def named(delta) -> dict[str, str]:
    return dict(zip(DELTA_HEAD[1:], delta_text(delta), strict=True))


PRIMARY = ("hue_entropy", "sprite_saturation", "sprite_intact")


def test_holm_is_over_the_primaries_and_nothing_else_has_a_p():
    names = (*PRIMARY, "modes", "saturation_mean", "contrast_rms")
    own = cells(
        *(
            (name, arm, scattered(0.1 * i))
            for i, arm in enumerate(("dmd2", "dfd"))
            for name in names
        )
    )
    deltas = {d.metric: d for d in compare(own, [("dfd", "dmd2")])[0]}
    tested = {name: d.p for name, d in deltas.items() if math.isfinite(d.p)}
    assert set(tested) == set(PRIMARY)
    assert [deltas[n].primary for n in PRIMARY] == ["diversity", "saturation", "yield"]
    for name in PRIMARY:
        difference = [
            group.pivot(index="prompt", columns="training_seed", values="value").mean()
            for arm in ("dfd", "dmd2")
            for group in (own[(own["arm"] == arm) & (own["metric"] == name)],)
        ]
        assert tested[name] == pytest.approx(stats.ttest_rel(*difference).pvalue)
    smallest = min(tested, key=tested.get)
    assert deltas[smallest].p_holm == pytest.approx(min(1, 3 * tested[smallest]))
    other = deltas["modes"]
    assert other.primary is None and math.isnan(other.p_holm) and math.isfinite(other.low)
    assert [named(other)[key] for key in ("primary", "p (t)", "p (Holm)", "p (sign)")] == [""] * 4


def test_holm_counts_only_the_primaries_that_a_comparison_has():
    own = cells(*(("sprite_intact", arm, scattered(0.0)) for arm in ("dmd2", "dfd")))
    delta = only(own)
    assert delta.p_holm == delta.p


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ({"open_gini", "hue_entropy", "sprite_saturation", "saturation_mean", "sprite_intact"},
         {"open_gini": "diversity", "sprite_saturation": "saturation", "sprite_intact": "yield"}),
        ({"hue_entropy", "saturation_mean"},
         {"hue_entropy": "diversity", "saturation_mean": "saturation"}),
        ({"effnet_lite2_diversity", "dinov2_l_diversity", "saturation_mean", "brisque"},
         {"dinov2_l_diversity": "diversity", "saturation_mean": "saturation"}),
        ({"clip_vit_l14_diversity", "dinov2_l_diversity"}, {"clip_vit_l14_diversity": "diversity"}),
        ({"brisque"}, {}),
    ],
)  # fmt: skip
def test_a_primary_is_the_first_of_its_metrics_that_a_report_has(present, chosen):
    assert primaries(present) == chosen


def test_headline_rows_come_first_yield_beside_the_modes():
    names = {"modes", "sprite_intact", "open_gini", "effnet_lite2_recall", "sprite_saturation"}
    order = ["modes", "sprite_intact", "open_gini", "effnet_lite2_recall", "sprite_saturation"]
    assert headline({*names, "brisque", "saturation_mean"}) == order
    rest = in_order({"brisque", "saturation_mean", "hue_entropy", "effnet_lite2_recall"})
    assert rest == ["hue_entropy", "effnet_lite2_recall", "saturation_mean", "brisque"]
    assert set(PRIMARIES) == {"diversity", "saturation", "yield"}


@pytest.mark.parametrize(
    ("seeds", "interval", "p", "sign"),
    [(2, "too few", "too few", "too few"), (3, None, None, "too few"), (5, None, None, "too few"),
     (6, None, None, None)],
)  # fmt: skip
def test_too_few_stands_where_no_p_can_reach_05(seeds, interval, p, sign):
    own = cells(
        ("hue_entropy", "dmd2", scattered(0, seeds)), ("hue_entropy", "dfd", scattered(1, seeds))
    )
    text = named(only(own))
    assert text["interval"] == (interval or "excludes 0")
    for key, expected in (("p (t)", p), ("p (Holm)", p), ("p (sign)", sign)):
        assert text[key] == expected if expected else float(text[key]) < 0.05
    assert text["n"] == f"{seeds} seeds, 5 prompts, {20 * seeds} / {20 * seeds} clips"


def test_one_training_seed_or_none_is_said_and_has_no_test():
    plain = only(cells(("hue_entropy", "dmd2", HARD), ("hue_entropy", "dfd", HARD + 0.1)))
    assert named(plain) == {
        "primary": "diversity", "difference": "+0.100", "median": "+0.100", "p (t)": "—",
        "p (Holm)": "—", "p (sign)": "—", "interval": "one seed", "to reference": "—",
        "n": "5 prompts, 20 / 20 clips",
    }  # fmt: skip
    single = cells(("hue_entropy", "dmd2", scattered(0)), ("hue_entropy", "dfd", scattered(1)))
    text = named(only(single[single["training_seed"] == 3]))
    assert text["interval"] == "one seed" and text["n"].startswith("1 seed, 5 prompts")


def test_the_teacher_is_paired_with_every_training_seed():
    student = scattered(0.3)
    own = cells(("hue_entropy", "teacher", HARD), ("hue_entropy", "dfd", student))
    delta = only(own, ("dfd", "teacher"))
    expected = stats.ttest_1samp(student.mean(axis=0) - HARD.mean(), 0)
    assert delta.seeds == 7 and delta.p == pytest.approx(expected.pvalue)
    assert (delta.clips_a, delta.clips_b) == (140, 20)
    folder = only(own.replace("teacher", "mine"), ("dfd", "mine"))  # one training of unknown seed
    assert folder.seeds == 0 and math.isnan(folder.p) and folder.mean == pytest.approx(delta.mean)
    assert (folder.clips_a, folder.clips_b) == (140, 20)
    reference = compare(own.replace("teacher", "mine"), [("dfd", "mine")], {"mine"})[0][0]
    assert reference.p == pytest.approx(expected.pvalue)


def test_what_rounds_to_zero_is_the_same():
    near = cells(
        ("hue_entropy", "dmd2", HARD + np.zeros((1, 7))),
        ("hue_entropy", "dfd", HARD + 0.0004 + 0.00001 * RNG.normal(size=(1, 7))),
    )
    delta = only(near)
    assert delta.low > 0 and named(delta)["interval"] == "same"
    equal = only(cells(*(("sprite_intact", arm, np.ones((5, 7))) for arm in ("dmd2", "dfd"))))
    assert named(equal)["interval"] == "same" and equal.p == 1.0 and math.isnan(equal.p_sign)
    assert (equal.low, equal.high) == (0.0, 0.0)


def test_a_prompt_that_one_seed_lacks_is_left_out_of_all():
    left, right = scattered(0.5), scattered(0.0)
    left[2, 4] = np.nan
    delta = only(cells(("hue_entropy", "dfd", left), ("hue_entropy", "dmd2", right)))
    kept = [0, 1, 3, 4]
    assert delta.prompts == 4 and delta.seeds == 7 and delta.clips_b == 4 * 7 * 4
    assert delta.mean == pytest.approx((left[kept] - right[kept]).mean())


def test_a_run_without_any_value_leaves_the_others_and_the_n_says_so():
    left, right = scattered(0.5), scattered(0.0)
    left[:, 2] = np.nan
    of_arms = (("dfd", left), ("dmd2", right))
    own = cells(
        *(("hue_entropy", arm, table) for arm, table in of_arms),
        *(("sprite_intact", arm, np.nan_to_num(table)) for arm, table in of_arms),
    )
    delta = next(d for d in compare(own, [("dfd", "dmd2")])[0] if d.metric == "hue_entropy")
    assert delta.seeds == 6 and 2 not in delta.by_seed


def test_no_common_prompt_of_all_seeds_is_said_and_the_other_metrics_stay():
    holes = np.where(np.eye(5, 7) + np.eye(5, 7, 2) + np.eye(5, 7, 4) > 0, 1.0, np.nan)
    own = cells(
        ("hue_entropy", "dfd", holes),
        ("hue_entropy", "dmd2", scattered(0)),
        *(("sprite_intact", arm, scattered(0)) for arm in ("dfd", "dmd2")),
    )
    results = recompute(own, [("dfd", "dmd2")])
    assert [d.metric for d in results.deltas] == ["sprite_intact"]
    assert "hue_entropy" not in results.summary["dfd"]
    assert "dfd, hue_entropy: no prompt has a value of each of its 7" in results.skipped[0]
    assert results.skipped[1].startswith("dfd - dmd2, hue_entropy: nothing to pair")


def test_training_seeds_that_differ_are_not_compared_but_said():
    own = cells(("hue_entropy", "dfd", scattered(0)), ("hue_entropy", "dmd2", scattered(0)))
    own.loc[own["arm"] == "dfd", "training_seed"] += 7
    deltas, (line,) = compare(own, [("dfd", "dmd2")])
    assert deltas == [] and "same seeds" in line


def test_arms_of_other_prompts_have_no_test():
    own = cells(("hue_entropy", "dfd", scattered(0)), ("hue_entropy", "real", HARD))
    own.loc[own["arm"] == "real", "prompt"] += "x"
    text = named(only(own, ("dfd", "real")))
    assert text["interval"] == "other prompts" and text["p (t)"] == "—"


ROWS = {  # (arm, metric) -> value per prompt; on d, which the teacher lacks, students swap places
    ("teacher", "saturation_mean"): {"a": 0.5, "b": 0.5, "c": 0.5},
    ("dmd2", "saturation_mean"): {"a": 0.6, "b": 0.6, "c": 0.7, "d": 0.1},
    ("dfd", "saturation_mean"): {"a": 0.3, "b": 0.3, "c": 0.3, "d": 0.9},
}


def small() -> pd.DataFrame:
    rows = [
        (metric, arm, prompt, NO_TRAINING_SEED, 1, value)
        for (arm, metric), values in ROWS.items()
        for prompt, value in values.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_nearness_to_the_reference_is_over_its_own_prompts():
    deltas, _ = compare(small(), [("dfd", "dmd2"), ("dfd", "teacher")])
    assert math.isclose(deltas[0].gain_towards_reference, (1.9 / 3 - 0.5) - (0.5 - 0.3))
    assert deltas[1].gain_towards_reference is None  # nothing is nearer to it than itself
    summary, _ = summarise(small(), row_sets(small()))  # the teacher's own n says that it lacks d
    assert [summary[arm]["saturation_mean"].prompts for arm in ("teacher", "dfd")] == [3, 4]
