import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from vbench_suites import LAKE, image_suite

from dfdbench.distill.sections import Recipe
from dfdbench.generate.clips import Item, _items, generate, parse_seeds, reference_run
from dfdbench.generate.real import attribute_seed
from dfdbench.generate.suites import choose_suite, get_suite
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.models.registry import load_family
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run
from dfdbench.utils.video import read_video, to_uint8, write_video

PROMPTS = (
    Prompt("ball-desert", "a ball moving over the desert", {"shape": "ball", "scene": "desert"}),
    Prompt("cross-snow", "a bar moving over snowy hills", {"shape": "cross", "scene": "snow"}),
)
SUITE = Suite("two", 1, "two prompts", PROMPTS, (1, 2, 3), ())


@pytest.fixture
def student_run(tmp_path, tiny_family, tiny_checkpoint):
    """A finished run whose student is the untouched copy of the tiny teacher."""

    def make(name: str = "run", sampler: str = "ode") -> Run:
        recipe = Recipe(method="dfd", model=str(tiny_checkpoint)).as_dict()
        recipe["student"].update(steps=2, sampler=sampler)
        run = Run.create(
            tmp_path / name,
            {"arm": "dfd", "method": "dfd", "training_seed": 0, "recipe": recipe},
        )
        tiny_family.save_student(tiny_family.new_module(), run.student)
        return run

    return make


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("sampler", ["ode", "sde"])
@pytest.mark.fault("A15")
def test_batch_size_order_and_resume_change_no_clip_but_by_rounding(
    student_run, tiny_family, sampler, monkeypatch
):
    made: dict[str, np.ndarray] = {}

    def remember(path, frames, fps):
        made["/".join(path.parts[-5:])] = frames
        write_video(path, frames, fps)

    monkeypatch.setattr("dfdbench.generate.clips.write_video", remember)
    whole, parts = student_run("whole", sampler), student_run("parts", sampler)
    generate(whole, SUITE, batch_size=4, family=tiny_family)
    generate(parts, SUITE, seeds=[3], batch_size=1, family=tiny_family)
    generate(parts, SUITE, seeds=[2, 1, 3], batch_size=3, family=tiny_family)
    assert len(made) == 12
    for prompt in ("ball-desert", "cross-snow"):
        for seed in (1, 2, 3):
            a, b = (made[f"{r}/videos/two/{prompt}/{seed}.mp4"] for r in ("whole", "parts"))
            # Batched matrix products round differently: few pixels, a grey level; H.264 spreads it.
            difference = np.abs(a.astype(int) - b.astype(int))
            assert difference.max() <= 1 and difference.mean() < 1e-3
            files = (run.videos / "two" / prompt / f"{seed}.mp4" for run in (whole, parts))
            c, d = (read_video(file).frames.astype(int) for file in files)
            assert np.abs(c - d).mean() < 3 and abs(c.mean() - d.mean()) < 0.1
    one, two = (made[f"whole/videos/two/cross-snow/{seed}.mp4"] for seed in (1, 2))
    assert np.abs(one.astype(int) - two.astype(int)).mean() > 1


def test_finished_clips_are_never_made_again_but_damaged_and_stale_ones_are(
    student_run, tiny_family
):
    run = student_run()
    generate(run, SUITE, family=tiny_family)
    folder = run.videos / "two"
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4")}
    generate(run, SUITE, family=tiny_family)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.mp4")} == times
    damaged = folder / "cross-snow" / "2.mp4"
    damaged.write_bytes(b"half a file")
    generate(run, SUITE, family=tiny_family)
    changed = [p for p in times if p.stat().st_mtime_ns != times[p]]
    assert changed == [damaged]
    module = tiny_family.load_student(run.student)
    with torch.no_grad():
        next(module.parameters()).add_(0.1)
    tiny_family.save_student(module, run.student)
    generate(run, SUITE, family=tiny_family)
    assert all(p.stat().st_mtime_ns != times[p] for p in times)


def test_another_autoencoder_makes_clips_anew(student_run, tiny_family, tiny_checkpoint, tmp_path):
    run = student_run()
    generate(run, SUITE, seeds=[1], family=tiny_family)
    before = {p: p.read_bytes() for p in run.videos.rglob("*.mp4")}
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    vae = AutoencoderKLWan.from_pretrained(copy / "vae")
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(-1)
    vae.save_pretrained(copy / "vae")
    generate(run, SUITE, seeds=[1], family=load_family(copy))
    assert len(before) == 2 and all(p.read_bytes() != clip for p, clip in before.items())


def test_the_manifest_names_every_clip_with_its_hash_and_settings(student_run, tiny_family):
    run = student_run()
    manifest = generate(run, SUITE, seeds=[5, 4], family=tiny_family)
    lines = rows(manifest)
    assert [(r["prompt_id"], r["seed"]) for r in lines] == [
        ("ball-desert", 5),
        ("ball-desert", 4),
        ("cross-snow", 5),
        ("cross-snow", 4),
    ]
    first = lines[0]
    assert first["method"] == "dfd" and first["frames"] == 17 and first["fps"] == 8
    assert len(first["sha256"]) == 64 and len(first["student_sha256"]) == 64
    assert first["settings"]["times"] == [0.999, pytest.approx(0.8333, abs=1e-4), 0.0]


def test_a_killed_generation_keeps_its_finished_batches(student_run, tiny_family, monkeypatch):
    run, calls = student_run(), []
    decode = type(tiny_family).decode_latents

    def dies_at_the_third(self, latents):
        calls.append(len(latents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(self, latents)

    monkeypatch.setattr(type(tiny_family), "decode_latents", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        generate(run, SUITE, batch_size=2, family=tiny_family)
    assert len(rows(run.videos / "two" / "samples.jsonl")) == 4
    generate(run, SUITE, batch_size=2, family=tiny_family)
    assert calls == [2] * 4
    assert len(rows(run.videos / "two" / "samples.jsonl")) == 6


def test_the_real_arm_shows_what_its_prompt_fixes_and_varies_the_rest(tmp_path, tiny_checkpoint):
    from dfdbench.toy.world import SHAPES, sample_attributes

    run = reference_run("real", tmp_path / "real", str(tiny_checkpoint))
    lines = rows(generate(run, SUITE, device="cpu"))
    assert len(lines) == 6 and {r["method"] for r in lines} == {"real"}
    drawn = [
        sample_attributes(1, attribute_seed("cross-snow", s), "cross", "snow") for s in range(1, 30)
    ]
    assert {SHAPES[int(a.shape)] for a in drawn} == {"cross"}
    assert len({int(a.hue_mode) for a in drawn}) == 6
    assert attribute_seed("cross-snow", 1) != attribute_seed("cross-snow", 2)


def test_the_teacher_arm_takes_the_checkpoints_own_sampling(tmp_path, tiny_checkpoint):
    run = reference_run("teacher", tmp_path / "teacher", str(tiny_checkpoint), cfg=1.0)
    suite = Suite("two", 1, "", PROMPTS[:1], (1,), ())
    (row,) = rows(generate(run, suite, device="cpu"))
    assert row["settings"]["steps"] == 50 and row["settings"]["cfg"] == 1.0
    assert reference_run("teacher", run.path, str(tiny_checkpoint)).info["cfg"] == 1.0
    few = reference_run("teacher", tmp_path / "few", str(tiny_checkpoint), steps=4, name="few")
    (row,) = rows(generate(few, suite, device="cpu"))
    assert row["settings"]["steps"] == 4 and row["method"] == few.arm == "few"
    with pytest.raises(UserError, match="at --steps 5"):
        reference_run("teacher", few.path, str(tiny_checkpoint), steps=5, name="few")
    with pytest.raises(UserError, match="--steps 4: only --arm teacher"):
        reference_run("real", tmp_path / "r", str(tiny_checkpoint), steps=4)


def test_pixels_round_to_the_nearest_level():
    video = torch.tensor([-1.0, -0.997, 0.0, 0.9985, 1.0, 7.0]).view(1, 1, 1, 6).expand(3, 1, 1, 6)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]
    assert Item(PROMPTS[0], 3).path == "ball-desert/3.mp4"


@pytest.mark.parametrize(
    ("text", "seeds"), [("1-4", [1, 2, 3, 4]), ("3,1", [1, 3]), ("1-2, 2-3", [1, 2, 3])]
)
def test_seed_lists(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "5-1", "1..4"])
def test_bad_seed_lists_are_refused(text):
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


def test_faults_of_the_user_are_named(tmp_path, tiny_checkpoint, student_run, tiny_family):
    with pytest.raises(UserError, match="unknown arm 'teachr'; did you mean teacher"):
        reference_run("teachr", tmp_path / "x")
    run = reference_run("real", tmp_path / "r", str(tiny_checkpoint))
    with pytest.raises(UserError, match="holds arm real"):
        reference_run("teacher", tmp_path / "r", str(tiny_checkpoint))
    with pytest.raises(UserError, match="brings no prompts"):
        generate(run, get_suite("released-clips"))
    with pytest.raises(UserError, match="needs a prompt with shape and scene"):
        generate(run, Suite("s", 1, "", (Prompt("p", "a cat"),), (1,), ()), family=tiny_family)
    empty = Run.create(
        tmp_path / "e",
        {"arm": "dfd", "method": "dfd", "recipe": Recipe(method="dfd").as_dict()},
    )
    with pytest.raises(UserError, match="no student in it"):
        generate(empty, SUITE, family=tiny_family)


def test_prompts_of_the_static_filter_are_generated_with_more_seeds(tmp_path):
    still = Prompt("still", "a still frame", dimensions=("temporal_flickering",))
    suite = Suite("s", 1, "", (still, PROMPTS[0]), (0, 1), (), static_filter=True)
    items = _items(suite, None, tmp_path, (17, 64, 64))
    assert [(i.prompt.id, i.seed) for i in items] == [
        *(("still", seed) for seed in range(25)),
        ("ball-desert", 0),
        ("ball-desert", 1),
    ]
    assert len(_items(suite, [7], tmp_path, (17, 64, 64))) == 2


def test_items_name_the_crop_of_the_runs_own_ratio(tmp_path):
    suite = choose_suite("vbench-i2v", images=image_suite(tmp_path / "i2v"))
    for (height, width), ratio in {(64, 64): "1-1", (480, 832): "7-4"}.items():
        images = {i.image for i in _items(suite, [0], tmp_path, (17, height, width))}
        folder = tmp_path / "i2v" / "data" / "crop" / ratio
        assert images == {folder / f"{LAKE}.jpg", folder / "a dog on a sofa.jpg"}
