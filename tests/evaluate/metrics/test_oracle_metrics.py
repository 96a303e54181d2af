"""Entropies, coverage and accuracies over the clips of a prompt."""

import numpy as np
import pytest
from scipy.special import comb
from scipy.stats import entropy

from dfdbench.evaluate.metrics import oracle
from dfdbench.evaluate.metrics.oracle import (
    CELLS,
    expected_cells,
    group,
    miller_madow,
    normalised_entropy,
    rarefied_cells,
)
from dfdbench.toy import world
from dfdbench.utils.video import Clip

CAPTION = {"shape": "box", "scene": "snow"}


def reading(
    hue: int = 0, direction: int = 0, pan: int = 0, shape: int = 1, scene: int = 2, intact: int = 1
) -> dict[str, float]:
    return {
        "oracle_hue": hue,
        "oracle_direction": direction,
        "oracle_pan": pan,
        "oracle_shape": shape,
        "oracle_scene": scene,
        "sprite_intact": intact,
    }


def uniform_readings(count: int, rng: np.random.Generator) -> list[dict[str, float]]:
    return [reading(*(int(rng.integers(k)) for k in (6, 8, 3))) for _ in range(count)]


def test_miller_madow_is_the_plain_entropy_plus_its_correction() -> None:
    counts = np.array([5, 0, 3, 1])
    assert miller_madow(counts) == pytest.approx(entropy([5, 3, 1]) + 2 / 18)


def test_entropy_of_one_class_is_zero() -> None:
    assert normalised_entropy(np.full(16, 4), 6) == 0


@pytest.mark.parametrize("classes", [3, 6, 8])
def test_correction_removes_most_of_the_bias_at_16_clips(classes: int) -> None:
    rng = np.random.default_rng(0)
    draws = rng.integers(classes, size=(2000, 16))
    corrected = np.mean([normalised_entropy(row, classes) for row in draws])
    plain = np.mean([entropy(np.bincount(row)) / np.log(classes) for row in draws])
    assert abs(corrected - 1) < 0.4 * abs(plain - 1)
    assert corrected == pytest.approx(1, abs=0.04)


def test_expected_cells_equals_a_simulation() -> None:
    rng = np.random.default_rng(1)
    seen = [len(np.unique(rng.integers(CELLS, size=16))) for _ in range(4000)]
    assert expected_cells(16, np.full(CELLS, 1 / CELLS)) == pytest.approx(np.mean(seen), abs=0.05)


def test_rarefaction_equals_binomial_coefficients() -> None:
    counts = np.array([4, 1, 0, 7])
    for n in (1, 5, 9, 12):
        expected = sum(1 - comb(12 - k, n) / comb(12, n) for k in counts)
        assert rarefied_cells(n, counts) == pytest.approx(expected)
    with pytest.raises(ValueError):
        rarefied_cells(13, counts)


def test_uniform_clips_have_coverage_and_entropy_near_one() -> None:
    rng = np.random.default_rng(2)
    groups = [group(uniform_readings(16, rng), CAPTION) for _ in range(300)]
    for name in ("hue_entropy", "direction_entropy", "pan_entropy", "joint_coverage"):
        assert np.mean([g[name].value for g in groups]) == pytest.approx(1, abs=0.05), name


def test_collapsed_clips_have_no_entropy_and_one_cell() -> None:
    values = group([reading(hue=2, direction=5, pan=1)] * 16, CAPTION)
    assert values["hue_entropy"].value == values["pan_entropy"].value == 0
    assert values["joint_cells"].value == 1
    assert values["joint_coverage"].value < 0.07


def test_attributes_are_not_mixed_up() -> None:
    values = group([reading(hue=k % 6, direction=3, pan=2) for k in range(12)], CAPTION)
    assert values["hue_entropy"].value > 0.95
    assert values["direction_entropy"].value == values["pan_entropy"].value == 0


def test_only_intact_clips_count_and_n_says_how_many() -> None:
    broken = [reading(hue=-1, direction=-1, intact=0), reading(hue=5, intact=0)]
    values = group([reading(hue=1)] * 3 + broken, CAPTION)
    assert values["hue_entropy"] == (0.0, 3) and values["joint_coverage"].n == 3
    assert values["shape_accuracy"].n == 5


@pytest.mark.parametrize("intact", [0, 1])
def test_fewer_than_two_intact_clips_are_missing_not_zero(intact: int) -> None:
    values = group([reading()] * intact + [reading(intact=0)] * 4, CAPTION)
    assert not {"hue_entropy", "joint_cells", "joint_coverage"} & set(values)
    assert "prompt_accuracy" in values


def test_accuracies_compare_with_the_caption() -> None:
    box, cross = world.SHAPES.index("box"), world.SHAPES.index("cross")
    snow, city = world.SCENES.index("snow"), world.SCENES.index("city")
    clips = [(box, snow), (box, snow), (cross, snow), (box, city)]
    values = group([reading(shape=s, scene=c) for s, c in clips], CAPTION)
    assert values["shape_accuracy"] == values["scene_accuracy"] == (0.75, 4)
    assert values["prompt_accuracy"] == (0.5, 4)


def test_readings_of_rendered_clips_are_their_attributes() -> None:
    attributes = world.sample_attributes(6, seed=11, shape="cross", scene="city")
    clips = (world.render(attributes).permute(0, 2, 3, 4, 1).numpy() * 255).round()
    right = 0
    for i, frames in enumerate(clips.astype(np.uint8)):
        values = oracle.compute(Clip(frames, 8, "test", np.arange(len(frames))))
        assert values["oracle_hue"] == attributes.hue_mode[i]
        assert values["oracle_scene"] == world.SCENES.index("city")
        assert values["sprite_saturation"] == pytest.approx(
            float(attributes.saturation[i]), abs=0.1
        )
        right += values["oracle_direction"] == attributes.direction[i]
    assert right >= 5


def test_sprite_figures_are_missing_without_a_sprite() -> None:
    values = oracle.compute(Clip(np.full((9, 64, 64, 3), 128, np.uint8), 8, "test", np.arange(9)))
    assert values["sprite_intact"] == 0
    assert "sprite_saturation" not in values and "sprite_area" not in values


def test_classes_are_those_of_the_world() -> None:
    sizes = {"hue": len(world.HUES), "direction": world.DIRECTIONS, "pan": len(world.PANS)}
    assert sizes == oracle.FREE
