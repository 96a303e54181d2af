"""Suites name prompts and metrics that exist."""

import json
from collections import Counter

import pytest

from dfdbench.evaluate.metrics import (
    FAMILY_NAMES,
    all_metrics,
    families_of,
    get_family,
    get_metric,
)
from dfdbench.generate.suites import find_suites, get_suite
from dfdbench.toy import world
from dfdbench.utils.errors import UserError


def test_toy_suite_has_every_caption_with_what_it_fixes() -> None:
    suite = get_suite("toy-t2v")
    assert len(suite.prompts) == 16 and len(suite.seeds) == 64
    for prompt in suite.prompts:
        assert prompt.attributes["shape"] in world.SHAPES
        assert prompt.attributes["scene"] in world.SCENES
        assert prompt.id == f"{prompt.attributes['shape']}-{prompt.attributes['scene']}"
        assert prompt.attributes["shape"] in prompt.text


@pytest.mark.parametrize(
    ("name", "fixed"), [("toy-hue", {"hue"}), ("toy-direction", {"hue", "direction"})]
)
def test_suites_of_higher_levels_fix_more(name: str, fixed: set[str]) -> None:
    prompts = get_suite(name).prompts
    assert len({p.id for p in prompts}) == len({p.text for p in prompts}) == 96
    pairs = {(p.attributes["shape"], p.attributes["scene"], p.attributes["hue"]) for p in prompts}
    assert len(pairs) == 96
    for prompt in prompts:
        assert set(prompt.attributes) == {"shape", "scene"} | fixed
        assert all(prompt.attributes[key] in prompt.text.split() for key in fixed)
    for key in fixed:  # in turn, and not in step with each other
        counts = Counter(p.attributes[key] for p in prompts)
        assert len(set(counts.values())) == 1
    if "direction" in fixed:
        both = Counter((p.attributes["hue"], p.attributes["direction"]) for p in prompts)
        assert len(both) == 48


def test_suites_ask_for_families_that_exist() -> None:
    for suite in find_suites()[0]:
        for name in families_of(suite.metrics):
            assert get_family(name).name == name


def test_unknown_names_are_refused_with_a_near_one() -> None:
    with pytest.raises(UserError, match="toy-t2v"):
        get_suite("toy-t2")
    with pytest.raises(UserError, match="ball-city"):
        get_suite("toy-t2v").prompt("ball-cty")
    with pytest.raises(UserError, match="saturation_mean"):
        get_metric("saturation_means")
    get_suite("released-clips").check_prompt("anything")


def test_reference_values_name_metrics_of_their_suite() -> None:
    suite = get_suite("released-clips")
    assert suite.reference is not None
    reference = json.loads(suite.reference.read_text(encoding="utf-8"))
    for known in reference["values"]:
        assert get_metric(known["metric"]).family in families_of(suite.metrics)
        assert known["subset"] in reference["subsets"]


def test_metrics_are_complete_and_named_once() -> None:
    declared = [metric for name in FAMILY_NAMES for metric in get_family(name).metrics]
    assert len({metric.name for metric in declared}) == len(declared) == len(all_metrics())
    for metric in declared:
        assert metric.source and metric.range[0] < metric.range[1]
        assert metric.family in FAMILY_NAMES and metric.version >= 1
