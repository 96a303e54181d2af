"""Clips meet VBench's suites: ids for texts, its own words, first frames, own dimensions."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import random_clip
from PIL import Image
from vbench_suites import LAKE, STILL, STYLE, TWICE, image_suite, install, named_clips

from dfdbench.evaluate.match import Matched, asks, match
from dfdbench.evaluate.metrics import MetricFamily, get_family
from dfdbench.generate.suites import choose_suite, get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.images import RATIOS, nearest_ratio
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import collect
from dfdbench.utils.video import write_video

SEES = get_family("vbench_i2v_subject")  # a family that needs an image
BLIND = get_family("flicker")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


def meet(source: Path, suite: Suite, *families: MetricFamily) -> Matched:
    return match([collect(source, suite.name, "m")], suite, families or (BLIND,))


def manifest(folder: Path, *rows: dict) -> Path:
    for i, row in enumerate(rows):
        row.setdefault("path", f"{i}.mp4")
        write_video(folder / row["path"], random_clip(i, 5), fps=8)
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_names_of_vbench_give_the_prompt_in_either_spelling_of_an_accent(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", STYLE)
    assert apart != STYLE
    folder = named_clips(tmp_path / "clips", [apart, TWICE], clips=2)
    found = meet(folder, get_suite("vbench"))
    assert {(s.prompt_id, s.prompt, s.seed) for s in found.samples} == {
        ("a-facade-at-dusk-oil-painting", STYLE, 0),
        ("a-facade-at-dusk-oil-painting", STYLE, 1),
        ("a-red-kite", TWICE, 0),
        ("a-red-kite", TWICE, 1),
    }
    assert json.loads(found.facts["prompts vbench m"]) == {"raw": 4}


def test_clips_of_extended_prompts_are_scored_by_vbenchs_words_and_counted(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"prompt_id": "a-red-kite", "prompt": "A crimson kite, cinematic, 8k", "seed": 1},
        {"prompt_id": "a-red-kite", "prompt": TWICE, "seed": 2},
        {"prompt_id": "a-red-kite", "seed": 3},
    )
    found = meet(path, get_suite("vbench"))
    assert {s.prompt for s in found.samples} == {TWICE}
    counts = json.loads(found.facts["prompts vbench m"])
    assert counts == {"other": 1, "raw": 1, "unknown": 1}


def test_a_clip_named_by_its_id_and_again_by_its_text_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, {"prompt_id": "a-red-kite", "seed": 1}, {"prompt": TWICE, "seed": 1})
    with pytest.raises(UserError, match=r"1.mp4 is the second clip of method m, prompt a-red-kite"):
        meet(path, get_suite("vbench"))


def test_a_text_that_vbench_lacks_is_refused_with_near_ones(tmp_path: Path) -> None:
    folder = named_clips(tmp_path / "clips", ["a-red-kit"])
    with pytest.raises(UserError, match="suite vbench 'a-red-kit'; did you mean a-red-kite"):
        meet(folder, get_suite("vbench"))


def test_a_prompt_asks_for_its_own_dimensions_and_their_stand_ins() -> None:
    suite = get_suite("vbench")
    wanted = {
        prompt.text: {name for name in suite.metrics if asks(suite, prompt.id, get_family(name))}
        for prompt in suite.prompts
    }
    assert wanted[STILL] == {"flicker", "vbench_static_filter"}
    assert wanted[STYLE] == {"vbench_appearance_style"}
    assert wanted[TWICE] == {
        "vbench_subject_consistency", "vbench_imaging_quality", "vbench_bridge", "brisque",
    }  # fmt: skip
    assert wanted["A person is juggling balls"] == {"vbench_human_action"}
    assert asks(suite, "a-red-kite", get_family("colour"))  # no dimension of VBench
    assert asks(get_suite("vbench-custom"), "anything", get_family("flicker"))
    moving = replace(suite.prompts[0], dimensions=("motion_smoothness", "dynamic_degree"))
    suite = replace(suite, prompts=(moving,))
    assert {n for n in suite.metrics if asks(suite, moving.id, get_family(n))} == {
        "vbench_motion_smoothness", "rife39", "vbench_dynamic_degree", "dis_flow",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ((512, 512), "1-1"),
        ((480, 832), "1-1"),
        ((576, 384), "8-5"),
        ((1280, 768), "8-5"),
        ((1280, 720), "16-9"),
        ((832, 480), "7-4"),
        ((1024, 576), "16-9"),
        ((2000, 500), "16-9"),
    ],
)
def test_the_crop_is_the_next_ratio(size, ratio) -> None:
    assert nearest_ratio(*size) == ratio
    assert all(nearest_ratio(round(720 * value), 720) == name for name, value in RATIOS.items())


def test_the_middle_between_two_ratios_is_the_geometric_one() -> None:
    middle = (1.0 * 1.6) ** 0.5
    assert nearest_ratio(round(10000 * middle) - 5, 10000) == "1-1"
    assert nearest_ratio(round(10000 * middle) + 5, 10000) == "8-5"


def test_each_method_is_compared_with_the_crops_of_its_own_ratio(tmp_path: Path) -> None:
    suite = choose_suite("vbench-i2v", images=image_suite(tmp_path / "i2v"))
    wide, square = tmp_path / "wide", tmp_path / "square"
    texts = [LAKE, f"{LAKE}, camera pans left"]
    for folder, width in ((wide, 64), (square, 36)):
        for text in texts:
            write_video(folder / f"{text}-0.mp4", random_clip(1, 5, 36, width), fps=8)
    (wide / f"{LAKE}-0.mp4").write_bytes(b"cut short")  # the next clip tells the ratio
    inputs = [collect(folder, suite.name) for folder in (wide, square)]
    found = match(inputs, suite, [BLIND, SEES])
    crops = tmp_path / "i2v" / "data" / "crop"
    assert {(s.method, s.image) for s in found.samples} == {
        ("wide", crops / "16-9" / f"{LAKE}.jpg"),
        ("square", crops / "1-1" / f"{LAKE}.jpg"),
    }
    assert found.facts["crop vbench-i2v wide"] == "16-9"
    assert found.facts["crop vbench-i2v square"] == "1-1"
    assert found.facts["conditions vbench-i2v"] == "vbench-i2v"


def test_images_are_asked_for_only_if_a_metric_will_look_at_them(tmp_path: Path) -> None:
    suite = choose_suite("vbench-i2v", images=image_suite(tmp_path / "i2v", ratios=("16-9",)))
    folder = named_clips(tmp_path / "clips", [LAKE])  # 48 × 32: ratio 8-5
    assert [s.image for s in meet(folder, suite, BLIND).samples] == [None]
    with pytest.raises(UserError, match="no crops of ratio 8-5"):
        meet(folder, suite, SEES)


def test_what_the_image_folder_lacks_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        choose_suite("vbench-i2v", images=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no vbench2_i2v_full_info.json in it"):
        choose_suite("vbench-i2v", images=tmp_path / "empty")
    folder = image_suite(tmp_path / "i2v")
    image = folder / "data" / "crop" / "8-5" / f"{LAKE}.jpg"
    image.unlink()
    with pytest.raises(UserError) as caught:
        meet(
            named_clips(tmp_path / "clips", [LAKE]), choose_suite("vbench-i2v", images=folder), SEES
        )
    assert str(image) in str(caught.value)
    with pytest.raises(UserError, match="only for --suite vbench-i2v or vbench-custom"):
        choose_suite("toy-t2v", images=folder)


def test_a_clone_of_vbench_is_a_folder_of_images_too(tmp_path: Path) -> None:
    image_suite(tmp_path / "clone" / "vbench2_beta_i2v")
    suite = choose_suite("vbench-i2v", images=tmp_path / "clone")
    (sample,) = meet(named_clips(tmp_path / "clips", [LAKE]), suite, SEES).samples
    assert sample.image == (
        tmp_path / "clone" / "vbench2_beta_i2v" / "data" / "crop" / "8-5" / f"{LAKE}.jpg"
    )


def picture(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    return folder / name


def test_pictures_of_ones_own_belong_to_a_clip_a_prompt_id_or_a_prompt(tmp_path: Path) -> None:
    images = tmp_path / "first"
    of_clip, of_id = picture(images, "0.png"), picture(images, "kite-id.jpg")
    of_text = picture(images, "a green kite.webp")
    path = manifest(
        tmp_path,
        {"prompt_id": "kite-id", "prompt": "a green kite", "seed": 1},
        {"prompt_id": "kite-id", "prompt": "a green kite", "seed": 2},
        {"prompt_id": "other", "prompt": "a green kite", "seed": 3},
        {"prompt_id": "none", "prompt": "a blue kite", "seed": 4},
    )
    suite = choose_suite("vbench-custom", images=images)
    found = meet(path, suite, SEES)
    assert [s.image for s in found.samples] == [of_clip, of_id, of_text, None]
    assert found.suite.conditions == "custom"
    assert found.notes[-1] == "1 of 4 clips have no first frame"


def test_an_image_that_the_manifest_names_goes_first(tmp_path: Path) -> None:
    own, images = picture(tmp_path / "own", "x.png"), tmp_path / "first"
    picture(images, "0.png")
    path = manifest(tmp_path, {"image": "own/x.png", "seed": 1})
    found = meet(path, choose_suite("vbench-custom", images=images), SEES)
    assert [s.image for s in found.samples] == [own]
    alone = meet(path, get_suite("vbench-custom"), SEES)
    assert alone.suite.conditions == "custom" and [s.image for s in alone.samples] == [own]


def test_a_folder_of_other_pictures_is_refused(tmp_path: Path) -> None:
    path, images = manifest(tmp_path, {"seed": 1}), tmp_path / "first"
    picture(images, "holiday.png")
    suite = choose_suite("vbench-custom", images=images)
    with pytest.raises(UserError, match=r"no picture is called after a clip.*like 0.png"):
        meet(path, suite, SEES)
    picture(images, "holiday.jpg")
    with pytest.raises(UserError, match=r"holiday.jpg and holiday.png; remove one"):
        meet(path, suite, SEES)
    with pytest.raises(UserError, match="no such folder"):
        choose_suite("vbench-custom", images=tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare: no picture in it"):
        meet(path, choose_suite("vbench-custom", images=tmp_path / "bare"), SEES)


def test_other_suites_keep_the_prompts_that_clips_bring(tmp_path: Path) -> None:
    texts = {p.text: p.id for p in get_suite("t2v-mixed").prompts}
    text = next(iter(texts))
    path = manifest(tmp_path, {"prompt": text, "seed": 1})
    found = meet(path, get_suite("t2v-mixed"))
    assert [(s.prompt_id, s.prompt) for s in found.samples] == [(texts[text], text)]
    assert found.facts == {} and found.notes == []


def test_toys_are_not_scored_beside_other_models_or_with_other_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="score them apart"):
        choose_suite("vbench-i2v", models=["toy-t2v", "other/model"])
    with pytest.raises(UserError, match="a toy's first frames are its own"):
        choose_suite("vbench-i2v", images=tmp_path, models=["toy-t2v"])
    toy = choose_suite("vbench-i2v", models=["toy-t2v", "toy-t2v"])
    assert toy.conditions == "toy-i2v" and toy.entries() is None
    assert sum("toy-t2v takes no image" in note for note in toy.notes) == 1
    with pytest.raises(UserError, match=r"no vbench2_i2v_full_info.json"):
        choose_suite("vbench-i2v", models=["other/model"])
