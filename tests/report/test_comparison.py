"""Which comparisons a report makes of values, and what it says where there is too little."""

import math

import pandas as pd

from dfdbench.report.collect import NO_TRAINING_SEED, Collected
from dfdbench.report.sets import row_sets
from dfdbench.report.summary import compare, summarise
from dfdbench.report.tables import delta_text

ROWS = {  # (arm, metric) -> value per prompt
    ("teacher", "saturation_mean"): {"a": 0.5, "b": 0.5, "c": 0.5},
    ("dmd2", "saturation_mean"): {"a": 0.6, "b": 0.6, "c": 0.7, "d": 0.1},
    ("dfd", "saturation_mean"): {"a": 0.3, "b": 0.3, "c": 0.3, "d": 0.9},
    ("dmd2", "effnet_lite2_diversity"): {"d": 0.2},
    ("dfd", "effnet_lite2_diversity"): {"d": 0.3},
}


def collected() -> Collected:
    rows = [
        (arm, NO_TRAINING_SEED, prompt, 1, metric, value, "video")
        for (arm, metric), values in ROWS.items()
        for prompt, value in values.items()
    ]
    columns = ["arm", "training_seed", "prompt_id", "seed", "metric", "value", "level"]
    empty = pd.DataFrame()
    return Collected("s", pd.DataFrame(rows, columns=columns), empty, {}, [], [])


def deltas():
    found = collected()
    pairs = [("dfd", "teacher")]
    return {(d.a, d.b, d.metric): d for d in compare(found, summarise(found), pairs)}


def test_one_prompt_has_no_test_and_costs_the_others_nothing():
    found = deltas()
    single = found["dfd", "dmd2", "effnet_lite2_diversity"]
    assert single.n == 1 and math.isnan(single.p) and math.isnan(single.p_holm)
    assert delta_text(single) == ["+0.100", "—", "—", "one prompt", "—"]
    tested = found["dfd", "dmd2", "saturation_mean"]
    assert tested.p_holm == tested.p  # the only test of this comparison


def test_nearness_to_the_reference_is_over_its_own_prompts():
    """On d, which the teacher lacks, the students swap places: it must not count."""
    gain = deltas()["dfd", "dmd2", "saturation_mean"].gain_towards_reference
    assert math.isclose(gain, (1.9 / 3 - 0.5) - (0.5 - 0.3))
    found = collected()
    rows = row_sets(found)  # the teacher lacks d, which the students have: its cell says so
    assert rows["saturation_mean"].marks == {"teacher": "3 prompts, 1 clip each"}


def test_nothing_is_nearer_to_the_reference_than_itself():
    found = deltas()
    assert found["dfd", "teacher", "saturation_mean"].gain_towards_reference is None
    assert found["dmd2", "teacher", "saturation_mean"].mean > 0
