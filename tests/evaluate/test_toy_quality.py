"""What `dfdbench toy quality` writes for text to video."""

import json

import numpy as np
from PIL import Image

from dfdbench.evaluate.toy_quality import LARGER, PICTURED, measure, to_frames, write_picture
from dfdbench.toy import world
from dfdbench.toy.train import held_out


def test_a_picture_holds_its_rows_in_order_and_ends_short_ones_white(tmp_path):
    long = np.stack([np.full((2, 3, 3), 10 * i, np.uint8) for i in range(4)])
    write_picture(tmp_path / "p.png", [long, long[:1] + 7])
    drawn = np.asarray(Image.open(tmp_path / "p.png"))[::LARGER, ::LARGER]
    assert drawn.shape == (4, 12, 3)
    assert drawn[0, ::3, 0].tolist() == [0, 10, 20, 30]
    assert drawn[2, ::3, 0].tolist() == [7, 255, 255, 255]


def test_quality_of_a_random_teacher_is_low_and_of_rendered_clips_one(tiny_checkpoint, tmp_path):
    out = tmp_path / "quality.json"
    result = measure(tiny_checkpoint, out, samples=16, clips=16)
    assert json.loads(out.read_text()) == result
    assert result["vae"]["oracle_on_rendered"]["shape"] == 1
    assert set(result["teacher"]) >= {"cfg_1", "cfg_3"}
    assert result["teacher"]["cfg_1"]["sprite_intact"] < 0.5
    drawn = np.asarray(Image.open(tmp_path / "quality.png"))[::LARGER, ::LARGER]
    side = world.SIZE
    assert drawn.shape == ((2 + len(result["teacher"])) * side, PICTURED * side, 3)
    first = to_frames(world.render(held_out(PICTURED)[:1]) * 2 - 1)[0]
    assert (drawn[:side, :side] == first[len(first) // 2]).all()
