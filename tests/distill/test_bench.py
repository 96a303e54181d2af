import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.bench.device import named_peak
from dfdbench.distill.bench.train import RandomClips, bench_train
from dfdbench.distill.loop import Trainer
from dfdbench.distill.plan import flops, setup_for
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.recipe import recipe_from_dict
from dfdbench.models.random_init import random_init_family
from dfdbench.models.registry import load_family
from dfdbench.utils.device import spread, times

SMALL = ["--frames", "9", "--height", "32", "--width", "32", "--steps", "2", "--warmup", "1"]
CPU = torch.device("cpu")


def bench(*arguments: str):
    return CliRunner().invoke(app, ["bench", *arguments, "--device", "cpu"])


@pytest.fixture
def configs(tiny_checkpoint, tmp_path) -> Path:
    """The tiny checkpoint without its weights."""
    for file in ("model_index.json", "transformer/config.json", "vae/config.json", "dfdbench.json"):
        (tmp_path / "configs" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tiny_checkpoint / file, tmp_path / "configs" / file)
    return tmp_path / "configs"


@pytest.mark.parametrize(
    ("method", "options"), [("dmd2", ["--gan", "fake_score"]), ("dfd", []), ("dp_dmd", [])]
)
def test_training_is_timed_from_config_files_alone(configs, tmp_path, method, options):
    out = tmp_path / "train.json"
    done = bench(
        "train", "--model", str(configs), "--method", method, "--batch", "2", *SMALL, *options,
        "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    for step in ("student_step", "fake_score_step"):
        assert len(found[step]["seconds"]) == 2 and found[step]["mfu"] is None
        assert found[step]["min_seconds"] <= found[step]["median_seconds"]
    assert bool(found["gan_blocks"]) is bool(options)
    optim = found["recipe"]["optim"]
    assert (optim["batch"], optim["accumulate"]) == (4, 2), "two rounds of what --batch says"
    assert found["peak_memory"]["resident_bytes"] > 1e8
    assert found["device"]["type"] == "cpu" and "torch" in found["versions"]


def test_the_bench_times_the_real_steps_and_counts_their_flops(configs, monkeypatch):
    roles = []
    step = Trainer.step

    def noted(self, role, iteration):
        roles.append(role)
        return step(self, role, iteration)

    monkeypatch.setattr(Trainer, "step", noted)
    data = {"frames": 9, "height": 32, "width": 32}
    optim = {"batch": 4, "accumulate": 2}
    recipe = recipe_from_dict(
        {"method": "dmd2", "model": str(configs), "data": data, "optim": optim}
    )
    found = bench_train(recipe, CPU, 3, 1, False)
    assert roles == ["student", "fake_score"] + ["student"] * 3 + ["fake_score"] * 3
    setup = setup_for(recipe)[1]
    assert found["student_step"]["flops"] == 4 * flops(setup, True)[0]
    student, fake = (found[n]["median_seconds"] for n in ("student_step", "fake_score_step"))
    assert found["student_update_seconds"] == student + 4 * fake
    assert found["samples_a_second"] == pytest.approx(20 / (student + 4 * fake))


def test_sampling_is_timed_with_and_without_the_autoencoder(configs, tmp_path):
    out = tmp_path / "sample.json"
    done = bench(
        "sample", "--model", str(configs), "--student-steps", "2", *SMALL, "--out", str(out)
    )
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    alone, decoding = (found[n]["median_seconds"] for n in ("sampling", "decoding"))
    assert found["fps"] == pytest.approx(9 / alone)
    assert found["fps_with_vae"] == pytest.approx(9 / (alone + decoding))
    assert found["student_steps"] == 2


def test_warmup_is_not_timed_and_the_spread_is_of_the_rest():
    seen = []
    assert len(times(seen.append, CPU, 2, 3)) == 3
    assert seen == [0, 1, 2, 3, 4]
    assert spread([3.0, 1.0, 2.0])["median_seconds"] == 2.0
    assert (spread([3.0, 1.0])["min_seconds"], spread([3.0, 1.0])["max_seconds"]) == (1.0, 3.0)


def test_a_random_init_model_has_the_sizes_and_dtypes_of_the_loaded_one(tiny_checkpoint):
    real = load_family(tiny_checkpoint, torch.bfloat16)
    with random_init_family(str(tiny_checkpoint), torch.bfloat16) as family:
        kinds = [
            {name: (p.shape, p.dtype) for name, p in module.named_parameters()}
            for module in (family.teacher, real.teacher)
        ]
        assert kinds[0] == kinds[1] and len({dtype for _, dtype in kinds[1].values()}) == 2
        assert family.new_module().get_parameter("proj_out.weight").dtype is torch.float32
        tokens, width = family.text_shape
    assert real.encode_prompt(["a ball"]).prompt_embeds.shape == (1, tokens, width)


def test_random_clips_are_as_many_as_asked_for_and_give_first_frames():
    clips = RandomClips(Shape((4, 3, 8, 8), (5, 7), conditioning_frames=1), 2, CPU)
    batch = clips.batch(10, 2)
    assert batch.latents.shape == (2, 4, 3, 8, 8)
    assert torch.equal(batch.conditioning.image_latents, batch.latents[:, :, :1])
    assert clips.negative("x").prompt_embeds.shape == (1, 5, 7)


def test_faults_are_one_line(tmp_path):
    out = ["--out", str(tmp_path / "x.json")]
    for arguments, says in [
        (["train", "--method", "dmd2", "--gan", "critic"], "unknown --gan 'critic'"),
        (["train"], "name what to train"),
        (["sample", "--model", "wan2.1-t2v-13b"], "did you mean wan2.1-t2v-1.3b"),
    ]:
        done = bench(*arguments, *out)
        assert done.exit_code == 2 and says in done.output
    if not torch.cuda.is_available():
        done = CliRunner().invoke(app, ["bench", "sample", *out, "--device", "cuda"])
        assert done.exit_code == 2 and "no CUDA device here" in done.output


def test_a_driver_s_name_finds_the_peak_of_its_own_form_factor():
    names = {
        "NVIDIA H100 PCIe": 756,
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H200": 989,
        "NVIDIA A100-SXM4-80GB": 312,
        "NVIDIA GeForce RTX 4090": 165,
        "Tesla T4": None,
    }
    assert {name: named_peak(name) for name in names} == names
