"""Options that are out of range, or that do not apply: refused, never taken and ignored."""

import time
from pathlib import Path

import pytest
import torch
from calls import SMALL, invoke, refused, sets

from dfdbench.distill.recipe import load_recipe
from dfdbench.generate.clips import MOST_SEEDS, parse_seeds
from dfdbench.utils.device import choose_device
from dfdbench.utils.errors import UserError

NUMBERS = {
    "dfd": [
        "dfd.p", "dfd.w", "dfd.t_min", "dfd.cfg_dfd", "teacher.cfg", "optim.lr", "optim.fake_lr",
        "optim.clip", "optim.weight_decay", "optim.ema", "schedule.shift", "schedule.t_low",
        "schedule.t_high", "gan.weight", "gan.discriminator_weight", "gan.lr", "gan.r1_weight",
        "gan.r1_alpha", "checkpoint.every_seconds",
    ],
    "dp_dmd": ["dp_dmd.lambda", "dp_dmd.anchor_time", "dp_dmd.grid_shift"],
}  # fmt: skip
COUNTS = {
    "dfd": [
        "seed", "data.count", "data.seed", "data.frames", "data.height", "data.width",
        "student.steps", "optim.batch", "optim.accumulate", "schedule.student_updates",
        "schedule.student_update_freq", "checkpoint.every_updates", "checkpoint.keep", "log.every",
        "log.probe_every", "log.decode_every", "log.decode_count", "init.updates",
    ],
    "dp_dmd": ["dp_dmd.anchor_step", "dp_dmd.grid_steps"],
}  # fmt: skip


@pytest.mark.fault("A9", "C.recipe")
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1e400", "-1", "-0.001", "'1'"])
@pytest.mark.parametrize(("method", "key"), [(m, k) for m, keys in NUMBERS.items() for k in keys])
def test_every_number_of_a_recipe_is_finite_and_in_its_range(method, key, value):
    with pytest.raises(UserError) as caught:
        load_recipe(f"toy/{method}", ["gan.weight=0.1"] * (method == "dfd") + [f"{key}={value}"])
    says = str(caught.value)
    assert key.rpartition(".")[2] in says and "correct it" in says and "\n" not in says


@pytest.mark.fault("A9", "C.recipe")
@pytest.mark.parametrize("value", ["-1", "-5", "1.5", "nan", "inf", "1e400", str(2**70), "true"])
@pytest.mark.parametrize(("method", "key"), [(m, k) for m, keys in COUNTS.items() for k in keys])
def test_every_count_of_a_recipe_is_whole_and_in_its_range(method, key, value):
    if value == str(2**70) and key not in ("seed", "data.seed", "student.steps"):
        pytest.skip("a count may be as large as one likes")
    with pytest.raises(UserError) as caught:
        load_recipe(f"toy/{method}", [f"{key}={value}"])
    assert key.rpartition(".")[2] in str(caught.value)


@pytest.mark.fault("A9", "C.recipe")
@pytest.mark.parametrize(
    "change",
    ["optim.betas=[2,2]", "optim.betas=[0.9,1]", "optim.betas=[nan,0.9]", "optim.betas=[-0.1,0.9]",
     "student.times=[nan,0.9,0.8,0.7]", "student.times=[inf,0.9,0.8,0.7]", "gan.blocks=[-1]",
     "dfd.t_min=9", "dfd.p=1.5", "dp_dmd.anchor_time=1.5", "schedule.t_high=1"],
)  # fmt: skip
def test_lists_and_upper_ends_are_checked_too(change):
    method = "dp_dmd" if change.startswith("dp_dmd") else "dfd"
    with pytest.raises(UserError, match="correct it"):
        load_recipe(f"toy/{method}", [change])


@pytest.mark.fault("A9")
@pytest.mark.parametrize(
    "change",
    ["dfd.p=0.3\nseed=7", "dfd.p=0.3\r\nseed=7", "dfd.p=0.3\rseed=7", "dfd.p=0.3\x0bseed=7",
     "dfd.p\nseed=7", "model=toy-t2v\nseed=7", "dfd.p=0.3\u2028seed=7", "dfd.p=\x1b[31m0.3",
     "'dfd.p'=0.3", "dfd..p=0.3", ".p=0.3", "dfd p=0.3", "[seed]=7",
     "dfd.p=" + "[" * 5000, "seed=" + "9" * 5000],
    ids=range(15),
)  # fmt: skip
def test_one_set_sets_one_key_to_one_value(change):
    with pytest.raises(UserError) as caught:
        load_recipe("toy/dfd", [change])
    says = str(caught.value)
    assert says.startswith("--set ") and "\n" not in says and "\x1b" not in says


@pytest.mark.fault("A9")
@pytest.mark.parametrize("key", ["frames=5", "height=32", "width=128"])
def test_a_size_that_rendered_clips_do_not_have_is_refused(key, tiny_checkpoint, tmp_path):
    words = ("distill", "--method", "dmd2", "--model", tiny_checkpoint, *sets(SMALL))
    line = refused(*words, "--set", f"data.{key}", "--out", tmp_path / "out")
    assert f"recipe key 'data.{key.partition('=')[0]}'" in line and "leave it out" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("A9")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("generate RUN --cfg 9", "--cfg 9.0: a run has its own"),
        ("generate RUN --model nope", "--model nope: a run has its own"),
        ("generate RUN --model toy-t2v", "--model toy-t2v: a run has its own"),
        ("generate RUN --out x", "--out x: a run has its own"),
        ("generate RUN --arm teacher", "name either a run folder or --arm"),
        ("generate --arm real --cfg 2", "--cfg 2.0: only --arm teacher is sampled by"),
        ("generate --arm real --compile --seeds 1", "--compile: real clips come from no network"),
        ("generate --arm teacher --cfg nan", "nan is no finite number"),
        ("generate --arm teacher --cfg inf", "inf is no finite number"),
        ("generate --arm teacher --cfg -3", "--cfg: not greater than or equal to 0"),
        ("generate RUN --images x", "--images x: only for --suite"),
        ("eval CLIPS --seeds 1", "--seeds 1: no input is a run"),
        ("data encode CLIPS --out x --fps nan", "--fps"),
        ("data encode CLIPS --out x --fps inf", "inf is no finite number"),
        ("plan --method dfd --mfu nan", "--mfu"),
        ("plan --method dfd --gpu-memory inf", "inf is no finite number"),
        ("plan --method dfd --tflops nan", "--tflops"),
        ("plan --method dfd --price nan", "--price"),
    ],
)
def test_what_does_not_apply_is_refused(words, says, finished, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": finished, "CLIPS": clips}
    assert says in refused(*(places.get(word, word) for word in words.split()))


@pytest.mark.fault("A9")
def test_a_teacher_of_another_guidance_gets_a_folder_of_its_own(tiny_checkpoint, tmp_path):
    from dfdbench.generate.clips import reference_run

    reference_run("teacher", tmp_path / "t", str(tiny_checkpoint), cfg=2.0)
    with pytest.raises(UserError, match=r"at cfg 2.0, not at --cfg 3.0"):
        reference_run("teacher", tmp_path / "t", str(tiny_checkpoint), cfg=3.0)


@pytest.mark.fault("A9")
@pytest.mark.parametrize(
    "words",
    [["generate", "RUN", "--seeds", ""], ["generate", "RUN", "--seeds="], ["eval", ""],
     ["generate", "RUN", "--shard", ""], ["distill", "--recipe", "", "--method", "dmd2"],
     ["distill", "--method", "dmd2", "--out", ""], ["distill", "--method", "dfd", "--init", ""],
     ["study", "toy/main", "--training-seeds", ""], ["report", "RUN", "--out", ""],
     ["generate", "RUN", "--suite", ""], ["distill", "--method", "dmd2", "--model="]],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_value_is_refused_by_its_option(words, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(*(finished if word == "RUN" else word for word in words))
    assert line.endswith("'': an empty value; give one, or leave it out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("D.seeds")
@pytest.mark.parametrize(
    "text",
    ["1-1000000000", "1-99999999999999999999", f"1-{MOST_SEEDS + 1}", "0-9223372036854775807",
     "1-6000,10000-16000", ",".join(["1-9000"] * 2), "9223372036854775808", "1" * 5000, "-1",
     "1--2", "1-2-3", "1,", ",1", "1.5", "1e3", "0x10", "١-٣", "1_000", "+1", "2-1", "1;2", "\n",
     "1-\n2-3", "nan"],
    ids=range(24),
)  # fmt: skip
def test_seeds_are_counted_before_they_are_made(text):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        parse_seeds(text)
    assert time.monotonic() - start < 0.5
    assert str(caught.value).startswith("--seeds ") and len(str(caught.value)) < 300


@pytest.mark.fault("D.seeds")
def test_seeds_up_to_the_limits_are_taken():
    assert len(parse_seeds(f"1-{MOST_SEEDS}")) == MOST_SEEDS
    assert parse_seeds("9223372036854775807, 0") == [0, 2**63 - 1]
    with pytest.raises(UserError, match="--training-seeds"):
        parse_seeds("x", "--training-seeds")


@pytest.mark.fault("C.device")
@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "mps", "\n"])
@pytest.mark.parametrize(
    "words",
    ["distill --method dmd2", "generate --arm real", "eval CLIPS", "data encode CLIPS --out x",
     "bench train --recipe toy/dmd2 --out x.json", "bench sample --out x.json"],
)  # fmt: skip
def test_a_device_that_there_is_not_is_one_line(words, device, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(*(clips if w == "CLIPS" else w for w in words.split()), "--device", device)
    assert line.startswith("error: --device ") and "write cpu" in line


@pytest.mark.fault("C.device")
@pytest.mark.parametrize("device", ["cuda:2", "cuda:9", "cuda:99999"])
def test_a_gpu_beyond_the_last_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=f"--device {device}"):
        choose_device(device)
    assert choose_device("cuda:1") == "cuda:1" and choose_device("auto") == "cuda"


@pytest.mark.fault("D.bench")
@pytest.mark.parametrize("kind", ["train", "sample"])
def test_a_bench_on_a_cpu_says_so_before_it_begins(kind, tiny_checkpoint, tmp_path: Path):
    result = invoke("bench", kind, "--recipe", "toy/dmd2", "--model", tiny_checkpoint,
                    "--steps", "1", "--warmup", "1", "--device", "cpu", *sets(SMALL),
                    "--out", tmp_path / "x.json")  # fmt: skip
    assert result.exit_code == 0
    first, *bars = result.stderr.splitlines()
    assert first.startswith(f"timing {tiny_checkpoint} on the CPU: a step of a large model")
    assert any(line.startswith("timing ") for line in bars)
