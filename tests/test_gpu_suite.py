"""`make gpu-bench` on a CPU with tiny networks: every part, its page, and being cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from dfdbench.utils.errors import UserError

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))
import gpu_parts  # noqa: E402
import gpu_readme  # noqa: E402
import gpu_suite  # noqa: E402
import gpu_toy  # noqa: E402

CPU = torch.device("cpu")
WHAT = {"code": "0123", "gpu": "cpu", "tiny": True}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    return gpu_parts.tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def part(sizes):
    """Runs a part; its result went through JSON, and the page shows it."""

    def run(name):
        result = json.loads(json.dumps(gpu_parts.RUN[name](sizes, CPU), allow_nan=False))
        return result, "\n".join(gpu_readme.SHOW[name](result))

    return run


def test_every_part_has_a_function_a_limit_and_a_page():
    assert [*gpu_suite.PARTS] == [*gpu_parts.RUN] == [*gpu_readme.SHOW]


def test_attention_is_timed_by_kernel_and_a_kernel_that_does_not_run_says_why(part):
    result, page = part("attention")
    batch, heads, tokens, width = result["shape"]
    for name in ("auto", "flash", "math"):
        row = result["kernels"][name]
        for way, products in (("forward", 2), ("backward", 4)):
            work = products * 2 * batch * heads * tokens**2 * width
            rate = work / row[way]["median_seconds"] / 1e12
            assert row[f"{way}_tflops_a_second"] == pytest.approx(rate)
    assert "does not run on this cpu" in result["kernels"]["cudnn"]["reason"]
    assert result["choice"] == "flash_attention" and "PyTorch chooses flash_attention" in page


def test_the_toy_is_compared_with_a_cpu_in_float32_and_its_dtypes_are_named(part, monkeypatch):
    result, page = part("toy_prediction")
    for name in ("teacher", "trained"):
        assert result[name]["dtypes"]["q"] == result[name]["dtypes"]["k"] == ["bfloat16"]
        assert 0 < result[name]["relative_difference"] < 2e-2
    assert result["trained"]["dtypes"]["time_embedding"] == ["float32"]
    assert result["within"] and "within 0.02" in page
    monkeypatch.setattr(gpu_toy, "TOLERANCE", 1e-6)
    assert "**beyond**" in part("toy_prediction")[1]


def test_the_toys_run_is_killed_for_real_and_resumed(part):
    result, page = part("toy_resume")
    assert result["bit_equal"] and result["killed_after_updates"] in (1, 2)
    assert "equal bit for bit" in page


@pytest.mark.parametrize(
    ("differences", "reason"),
    [([0.5, 0.25], "two runs that nothing stopped differ by 0.25 too"), ([0.5, 0], "resuming")],
)
def test_a_run_that_differs_after_its_resumption_is_told_with_the_reason(
    sizes, monkeypatch, differences, reason
):
    monkeypatch.setattr(gpu_toy, "_kill", lambda *_: 1)
    monkeypatch.setattr(gpu_toy, "distill", lambda *_, **__: None)
    monkeypatch.setattr(gpu_toy, "_largest_difference", lambda *_: differences.pop(0))
    result = gpu_toy.toy_resume(sizes.toy, 3, CPU)
    assert not result["bit_equal"] and result["largest_difference"] == 0.5
    assert result["reason"].startswith(reason)
    assert "not equal (largest difference 0.5)" in gpu_readme.SHOW["toy_resume"](result)[0]


@pytest.mark.parametrize(
    ("name", "method", "batch", "compiled"),
    [
        ("wan_step", "dmd2", (4, 2), False),
        ("wan_step_compiled", "dmd2", (4, 2), True),
        ("cosmos_step", "dfd", (2, 2), False),
    ],
)
def test_steps_are_those_of_training(part, monkeypatch, name, method, batch, compiled):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    result, page = part(name)
    recipe = result["recipe"]
    assert (recipe["optim"]["batch"], recipe["optim"]["accumulate"]) == batch
    assert (recipe["method"], result["compile"], result["gan_blocks"]) == (method, compiled, [])
    seconds = result["student_step"]["median_seconds"]
    assert f"| student step | {seconds:.3f} |" in page and "no plan on a CPU" in page


def test_the_page_shows_mfu_and_planned_memory_of_a_step():
    row = {"median_seconds": 2.0, "tflops_a_second": 400.0, "mfu": 0.404}
    gib = 2**30
    result = {
        "student_step": row, "fake_score_step": row, "samples_a_second": 0.2,
        "peak_memory": {"allocated_bytes": 50 * gib, "reserved_bytes": 60 * gib},
        "planned_bytes": {"weights": 30 * gib, "activations": 18 * gib},
    }  # fmt: skip
    page = "\n".join(gpu_readme.SHOW["wan_step"](result))
    assert "| student step | 2.000 | 400.0 | 40.4% |" in page
    assert "allocated 50.00 GiB, reserved 60.00 GiB; planned 48.00 GiB" in page


def test_a_block_alone_is_profiled_forward_and_backward(part):
    result, page = part("block_profile")
    assert result["tokens"] == 3 * 2 * 2
    spent = [row["microseconds"] for row in result["rows"]]
    assert spent == sorted(spent, reverse=True) and len(spent) == 25
    assert "Backward" in result["table"] or "backward" in result["table"]
    assert "12 tokens" in page


def test_fsdp_in_one_process_changes_nothing_with_weights_of_mixed_dtypes(part):
    result, page = part("nccl")
    assert result["teacher"]["dtypes"] == ["bfloat16", "float32"]
    assert result["teacher"]["relative_difference"] == result["trained"]["relative_difference"] == 0
    whole, cut = result["trained"]["gradient_norms"]
    assert whole == pytest.approx(cut, rel=1e-6) and whole > 0
    assert "Backend gloo" in page and not torch.distributed.is_initialized()


def test_decoding_is_measured_by_the_number_of_clips(part, sizes):
    result, page = part("vae_decode")
    assert [*result["clips"]] == [str(count) for count in sizes.decodes]
    assert not result["tiled"] and "Clips of 9×32×32." in page


def test_a_checkpoint_of_the_run_is_written_and_read_back(part, monkeypatch, sizes):
    result, page = part("save_restore")
    state = sum(
        torch.Size(tensor).numel() for tensor in _shapes(sizes.wan) for _ in ("weight", "m", "v")
    )
    assert result["equal"] and result["bytes"] > 2 * 4 * state and "as they were" in page
    full = lambda _: gpu_parts.shutil._ntuple_diskusage(10**6, 10**6, 1000)  # noqa: E731
    monkeypatch.setattr(gpu_parts.shutil, "disk_usage", full)
    with pytest.raises(UserError, match="set TMPDIR"):
        part("save_restore")


def _shapes(model):
    from safetensors.torch import load_file

    files = Path(model, "transformer").glob("*.safetensors")
    return [tensor.shape for file in files for tensor in load_file(file).values()]


def test_without_a_gpu_it_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu_suite.py", "--out", str(tmp_path)])
    assert gpu_suite.gpu_name() == "" and gpu_suite.main() == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no GPU here" in said.err
    assert [*tmp_path.iterdir()] == []


def start(out, *parts):
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, FOLDER / "gpu_suite.py", *parts, "--tiny", "--out", out]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(out):
    """Processes of parts that write to `out`."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes())
        except OSError:
            continue
    return [line for line in lines if b"--child" in line and str(out).encode() in line]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_cut_off_in_the_middle_it_leaves_what_is_finished_and_goes_on_from_there(
    tmp_path, monkeypatch, number
):
    names = ["attention", "wan_step", "nccl"]
    process = start(tmp_path, *names)
    wait_for(lambda: (tmp_path / "attention.json").exists())
    wait_for(lambda: any(b"wan_step" in line for line in children(tmp_path)))
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not children(tmp_path), 60)
    assert [file.name for file in tmp_path.glob("*.json")] == ["attention.json"]
    assert [*gpu_suite.load(tmp_path)] == ["attention"]
    page = (tmp_path / "README.md").read_text()
    assert "`python benchmarks/gpu_suite.py wan_step`" in page and "flash_attention" in page
    called = []
    monkeypatch.setattr(gpu_suite, "run_part", lambda name, *_: called.append(name) or True)
    what = {"code": gpu_suite.code(), "gpu": "cpu", "tiny": True}
    assert gpu_suite.run(names, tmp_path, what, False, 10) == 0
    assert called == ["wan_step", "nccl"], "what this code measured on this GPU is left alone"
    for others, again in [(what | {"code": "other"}, False), (what | {"gpu": "B"}, False),
                          (what, True)]:  # fmt: skip
        called.clear()
        gpu_suite.run(names, tmp_path, others, again, 10)
        assert called == names


def test_a_part_beyond_its_time_is_ended_and_named(tmp_path):
    started = time.monotonic()
    assert not gpu_suite.run_part("wan_step", tmp_path, WHAT, 0.5)
    assert time.monotonic() - started < gpu_suite.PATIENCE and not children(tmp_path)
    record = gpu_suite.load(tmp_path)["wan_step"]
    assert record["failed"] == "stopped after 0 s, the time that it had"
    assert not gpu_suite.is_done(record, WHAT), "it is tried again"


def test_a_part_whose_process_dies_is_named_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    assert gpu_suite.run(["attention", "nccl"], tmp_path / "out", WHAT, False, 10) == 1
    records = gpu_suite.load(tmp_path / "out")
    assert [*records] == ["attention", "nccl"]
    assert {record["failed"] for record in records.values()} == {"its process ended with status -9"}
    assert "missing: attention, nccl" in capsys.readouterr().err


def test_no_part_begins_when_the_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "run_part", lambda *_: pytest.fail("time was up"))
    assert gpu_suite.run(["attention"], tmp_path, WHAT, False, 0) == 1
    assert "Versions, and attention" in (tmp_path / "README.md").read_text().split("Missing")[1]


def test_a_part_that_fails_says_why_in_a_line(tmp_path, monkeypatch):
    def fail(_sizes, _device):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")

    monkeypatch.setitem(gpu_parts.RUN, "nccl", fail)
    monkeypatch.setattr(gpu_suite, "end_with", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert gpu_suite.measure("nccl", tmp_path, WHAT, os.getpid()) == gpu_suite.TOLD
    finally:
        signal.signal(signal.SIGTERM, before)
    record = gpu_suite.load(tmp_path)["nccl"]
    assert record["failed"].startswith("out of memory (CUDA out of memory. Tried to allocate 20")
    gpu_suite.write_readme(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "failed (cpu" in page and "`python benchmarks/gpu_suite.py nccl`" in page
    assert page.count("not measured yet") == len(gpu_suite.PARTS) - 1


def test_torn_files_and_files_of_something_else_are_no_parts(tmp_path):
    (tmp_path / "nccl.json").write_text('{"part": "nccl", "res')
    (tmp_path / "attention.json").write_text('{"part": "nccl"}')
    (tmp_path / "wan_step.json").write_text("[]")
    assert gpu_suite.load(tmp_path) == {}
