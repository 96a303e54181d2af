"""What the oracle family makes of clips and of a prompt's readings."""

import numpy as np
import pytest

from dfdbench.evaluate.metrics import oracle
from dfdbench.evaluate.metrics.oracle import group, versus
from dfdbench.toy import scenes, world
from dfdbench.utils.video import Clip

CAPTION = {"shape": "triangle", "scene": "snow"}


def reading(
    hue: int = 0,
    direction: int = 0,
    pan: int = 0,
    size: int = 0,
    shape: int = 1,
    scene: int = 2,
    intact: int = 1,
) -> dict[str, float]:
    return {
        "oracle_hue": hue,
        "oracle_direction": direction,
        "oracle_pan": pan,
        "oracle_size": size,
        "oracle_shape": shape,
        "oracle_scene": scene,
        "sprite_intact": intact,
    }


def test_only_whole_clips_count_in_spreads_and_all_in_modes_and_accuracies() -> None:
    broken = [reading(hue=-1, direction=-1, intact=0), reading(hue=5, intact=0)] * 12
    values = group([reading(hue=1)] * 10 + broken, CAPTION)
    assert values["hue_gini"] == values["hue_entropy"] == (0.0, 10)
    assert values["modes"].n == values["shape_accuracy"].n == 34
    assert 0 < values["modes"].value <= 1


def test_what_the_caption_fixes_is_judged_and_not_counted_as_spread() -> None:
    clips = [reading(hue=4, direction=d % 8, size=d % 2) for d in range(16)]
    values = group(clips, CAPTION | {"hue": "blue"})
    assert "hue_gini" not in values and values["direction_gini"].value > 0.99
    assert values["hue_accuracy"] == values["prompt_accuracy"] == (1.0, 16)
    both = group(clips, CAPTION | {"hue": "blue", "direction": "south"})
    assert "direction_gini" not in both and both["direction_accuracy"] == (0.125, 16)
    assert both["prompt_accuracy"] == (0.125, 16)


def test_accuracies_compare_with_the_caption() -> None:
    triangle, cross = world.SHAPES.index("triangle"), world.SHAPES.index("cross")
    snow, city = scenes.SCENES.index("snow"), scenes.SCENES.index("city")
    clips = [(triangle, snow), (triangle, snow), (cross, snow), (triangle, city)]
    values = group([reading(shape=s, scene=c) for s, c in clips], CAPTION)
    assert values["shape_accuracy"] == values["scene_accuracy"] == (0.75, 4)
    assert values["prompt_accuracy"] == (0.5, 4)
    assert not any(name.endswith("accuracy") for name in group([reading()] * 4, {}))


def test_recall_is_the_share_of_the_references_modes_that_are_found() -> None:
    teacher = [reading(hue=h, pan=p) for h in range(4) for p in range(2)]
    teacher += [reading(hue=5, intact=0)]
    ours = [reading(hue=0), reading(hue=1), reading(hue=1, pan=1), reading(hue=2, intact=0)]
    assert versus(ours, teacher)["mode_recall"] == (3 / 8, 4)
    assert versus(teacher, ours)["mode_recall"] == (1.0, 9)
    assert versus(ours, [reading(intact=0)]) == {}
    assert versus([reading(intact=0)], teacher)["mode_recall"].value == 0


def test_readings_of_rendered_clips_are_their_attributes() -> None:
    attributes = world.sample_attributes(6, seed=11, shape="cross", scene="city")
    clips = (world.render(attributes).permute(0, 2, 3, 4, 1).numpy() * 255).round()
    for i, frames in enumerate(clips.astype(np.uint8)):
        values = oracle.compute(Clip(frames, 8, "test", np.arange(len(frames))))
        assert values["oracle_hue"] == attributes.hue_mode[i]
        assert values["oracle_direction"] == attributes.direction[i]
        assert values["oracle_size"] == attributes.size[i]
        assert values["oracle_scene"] == scenes.SCENES.index("city")
        assert values["sprite_saturation"] == pytest.approx(
            float(attributes.saturation[i]), abs=0.02
        )


def test_sprite_figures_are_missing_without_a_sprite() -> None:
    values = oracle.compute(Clip(np.full((9, 64, 64, 3), 128, np.uint8), 8, "test", np.arange(9)))
    assert values["sprite_intact"] == 0
    assert "sprite_saturation" not in values and "sprite_area" not in values


def test_every_value_is_declared() -> None:
    declared = {level: {m.name for m in oracle.FAMILY.at(level)} for level in ("video", "prompt")}
    frames = (world.render(world.sample_attributes(1, 1))[0] * 255).round().byte()
    values = oracle.values_of(frames.permute(1, 2, 3, 0).numpy())
    assert set(values) == declared["video"]
    open_prompt = group([reading()] * 40, CAPTION)
    fixed = group([reading()] * 40, CAPTION | {"hue": "red", "direction": "east"})
    found = set(open_prompt) | set(fixed) | set(versus([reading()], [reading()]))
    assert found == declared["prompt"]
