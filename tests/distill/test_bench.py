import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.bench.device import named_peak
from dfdbench.distill.bench.stream import _summary as stream_summary
from dfdbench.distill.bench.stream import bench_stream, rollout_layout
from dfdbench.distill.bench.train import RandomClips, bench_train
from dfdbench.distill.loop import Trainer
from dfdbench.distill.plan import flops, setup_for
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.recipe import load_recipe, recipe_from_dict
from dfdbench.models.random_init import random_init_family
from dfdbench.models.registry import load_family
from dfdbench.models.wan_causal import CausalWan
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


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("toy-ar/dfd", {"student_step", "fake_score_step"}),
        ("toy-ar/ode_init", {"student_step"}),
    ],
)
def test_training_of_causal_students_is_timed_with_the_steps_that_it_has(
    configs, tmp_path, recipe, steps
):
    out = tmp_path / "train.json"
    done = bench(
        "train", "--model", str(configs), "--recipe", recipe, "--batch", "1", *SMALL,
        "--set", "student.steps=2", "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert {name for name in found if name.endswith("_step")} == steps
    medians = [found[name]["median_seconds"] for name in sorted(steps, reverse=True)]
    freq = found["recipe"]["schedule"]["student_update_freq"]
    assert found["student_update_seconds"] == pytest.approx(
        medians[0] + (freq - 1) * sum(medians[1:])
    )
    assert all(f"{name}: " in done.output for name in steps)


STREAM = ["--recipe", "toy-ar/dmd", "--height", "32", "--width", "32", "--steps", "2"]


def test_a_stream_is_timed_from_its_first_block_on(configs, tmp_path):
    out = tmp_path / "stream.json"
    done = bench(
        "stream", "--model", str(configs), *STREAM, "--set", "student.steps=2",
        "--set", "student.block_frames=2", "--frames", "33", "--window", "4", "--sinks", "1",
        "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    blocks = found["blocks"]
    assert [block["frames"] for block in blocks] == [9, 8, 8, 8], "9 latent frames: 3, 2, 2, 2"
    assert (found["window_frames"], found["sink_frames"], found["frames"]) == (4, 1, 33)
    assert len(found["latency"]["seconds"]) == 2
    first = blocks[0]["sampling_seconds"] + blocks[0]["decoding_seconds"]
    assert found["latency"]["seconds"][-1] == first
    assert 0 < found["fps_with_vae"] < found["fps"]
    assert found["peak_memory"]["half"] == blocks[1]["peak_memory"]
    assert found["peak_memory"]["whole"] == blocks[-1]["peak_memory"]
    assert "first block after" in done.output


def test_rates_of_a_stream_are_of_the_blocks_after_the_first():
    def block(frames, sampling, decoding):
        return {"frames": frames, "sampling_seconds": sampling, "decoding_seconds": decoding,
                "peak_memory": {}}  # fmt: skip

    clip = [block(9, 5.0, 1.0), block(12, 2.0, 1.0), block(12, 4.0, 1.0)]
    found = stream_summary([clip], True)
    assert found["latency"]["median_seconds"] == 6.0
    assert (found["fps"], found["fps_with_vae"]) == (24 / 6, 24 / 8)
    assert stream_summary([clip], False)["fps_with_vae"] is None
    assert stream_summary([clip[:1]], True)["fps"] == 9 / 5, "where there is no other"


def test_a_stream_in_a_window_holds_no_more_however_long_it_is(configs):
    """Bytes of the caches that are alive, block after block."""
    recipe = load_recipe("toy-ar/dmd", [f"model={configs}", "student.steps=1", "data.height=32",
                                        "data.width=32"])  # fmt: skip
    layout = rollout_layout(recipe, 3, 1)
    held = []

    def noted(self, module, clean, conditioning, past):
        cache = remember(self, module, clean, conditioning, past)
        tensors = [x for layer in cache.layers for pair in layer for x in pair]
        sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        held.append(sum(sizes.values()))
        return cache

    remember = CausalWan.remember
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalWan, "remember", noted)
        found = bench_stream(recipe, CPU, 161, layout, 1, False, False)
    assert len(found["blocks"]) == 41 and len(held) == 2 * 40
    assert len({*held[2:40]}) == 1 and held[0] < held[2]


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
        (["sample", "--recipe", "toy-ar/dmd"], "take bench stream"),
        (["stream", "--recipe", "toy/dmd2"], "or take bench sample"),
        (["stream", "--frames", "241"], "--frames 241: more than the recipe's 81"),
        (
            ["stream", "--recipe", "toy-ar/dmd", "--window", "1", "--sinks", "1"],
            "set window_frames",
        ),
        (["stream", "--recipe", "toy-ar/dmd", "--frames", "10"], "does not fit"),
        (["stream", "--recipe", "toy-ar/dmd", "--window", "3", "--frames", "8193"], "reach 1024"),
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
