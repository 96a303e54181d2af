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
    assert "`python benchmarks/gpu_suite.py wan_step --tiny`" in page and "flash_attention" in page
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
    record = gpu_suite.load(tmp_path, gpu_suite.FAILED)["wan_step"]
    assert record["failed"] == "stopped after 0 s, the time that it had"
    assert gpu_suite.load(tmp_path) == {}, "it is tried again"


def test_a_part_whose_process_dies_is_named_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    assert gpu_suite.run(["attention", "nccl"], tmp_path / "out", WHAT, False, 10) == 1
    records = gpu_suite.load(tmp_path / "out", gpu_suite.FAILED)
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
    record = gpu_suite.load(tmp_path, gpu_suite.FAILED)["nccl"]
    assert record["failed"].startswith("out of memory (CUDA out of memory. Tried to allocate 20")
    gpu_suite.write_readme(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "failed on a CPU" in page and "`python benchmarks/gpu_suite.py nccl --tiny`" in page
    assert page.count("not measured yet") == len(gpu_suite.PARTS) - 1


def test_torn_files_and_files_of_something_else_are_no_parts(tmp_path):
    (tmp_path / "nccl.json").write_text('{"part": "nccl", "res')
    (tmp_path / "attention.json").write_text('{"part": "nccl"}')
    (tmp_path / "wan_step.json").write_text("[]")
    (tmp_path / "vae_decode.json").write_text('{"part": "vae_decode", "result": {}}')
    assert gpu_suite.load(tmp_path) == {}


NCCL = {
    "backend": "nccl",
    **{
        name: {"dtypes": ["float32"], "relative_difference": 0.125, "gradient_norms": [1.5, 1.5]}
        for name in ("teacher", "trained")
    },
}
GPU = {"code": "0123", "gpu": "NVIDIA H100", "tiny": False}


def failing(_sizes, _device):
    raise RuntimeError("it broke | <b>")


def cut_off(out, _monkeypatch):
    gpu_suite.run_part("nccl", out, GPU, 0.5)


def dies(out, monkeypatch):
    dying = out / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    gpu_suite.run_part("nccl", out, GPU, 60)


def fails(out, monkeypatch):
    monkeypatch.setitem(gpu_parts.RUN, "nccl", failing)
    monkeypatch.setattr(gpu_suite, "end_with", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    gpu_suite.measure("nccl", out, GPU, os.getpid())


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (cut_off, "stopped after 0 s, the time that it had."),
        (dies, "its process ended with status -9."),
        (fails, r"RuntimeError: it broke \| &lt;b&gt;."),
    ],
)
def test_what_was_measured_outlives_a_later_try_that_fails(tmp_path, monkeypatch, later, said):
    gpu_suite.keep(tmp_path, {"part": "nccl", **GPU, "result": NCCL})
    before = (tmp_path / "nccl.json").read_bytes()
    later(tmp_path, monkeypatch)
    assert (tmp_path / "nccl.json").read_bytes() == before
    gpu_suite.write_readme(tmp_path)
    shown, missing = (tmp_path / "README.md").read_text().split("## Missing")
    assert "| teacher | float32 | 1.25e-01 | 1.5 / 1.5 |" in shown
    assert "Measured again later, it failed on NVIDIA H100, code 0123" in shown and said in shown
    assert "nccl" not in missing
    gpu_suite.keep(tmp_path, {"part": "nccl", **GPU, "result": NCCL})
    assert gpu_suite.load(tmp_path, gpu_suite.FAILED) == {}, "a new measurement ends it"


def test_a_part_that_ends_while_it_is_told_to_stop_has_not_failed(tmp_path, monkeypatch):
    quick = tmp_path / "python"
    quick.write_text("#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n")
    quick.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(quick))
    assert gpu_suite.run_part("nccl", tmp_path, GPU, 1)
    assert not (tmp_path / "nccl.failed.json").exists()


@pytest.mark.parametrize("tiny", [True, False])
def test_tiny_and_full_measurements_do_not_share_a_folder(tmp_path, monkeypatch, capsys, tiny):
    gpu_suite.keep(tmp_path, {"part": "nccl", **GPU, "tiny": not tiny, "result": NCCL})
    before = (tmp_path / "nccl.json").read_bytes()
    command = ["gpu_suite.py", "nccl", "--again", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, *(["--tiny"] if tiny else [])])
    monkeypatch.setattr(gpu_suite, "gpu_name", lambda: "NVIDIA H100")
    assert gpu_suite.main() == 2 and "give another --out" in capsys.readouterr().err
    assert (tmp_path / "nccl.json").read_bytes() == before


def test_a_file_that_this_version_cannot_show_is_named_and_the_others_are_shown(tmp_path):
    gpu_suite.keep(tmp_path, {"part": "vae_decode", **GPU, "result": {"clips": 3}})
    gpu_suite.keep(tmp_path, {"part": "nccl", **GPU, "result": NCCL})
    gpu_suite.write_readme(tmp_path)
    shown, missing = (tmp_path / "README.md").read_text().split("## Missing")
    assert "Backend nccl." in shown and "this version cannot show vae_decode.json" in missing


def test_a_page_of_tiny_networks_claims_nothing_of_a_gpu(tmp_path):
    gpu_suite.keep(tmp_path, {"part": "nccl", **WHAT, "result": NCCL})
    gpu_suite.write_readme(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# Tried in small") and "# On a GPU" not in page
    assert "No number here tells anything about a GPU" in page
    assert "a CPU, tiny networks, not the shapes named" in page
    assert "`python benchmarks/gpu_suite.py vae_decode --tiny`" in page


@pytest.mark.slow
def test_every_part_runs_in_small_by_one_command(tmp_path):
    """All of them: none needs CUDA there."""
    process = start(tmp_path, "--minutes", "60")
    assert process.wait(3600) == 0
    assert gpu_suite.load(tmp_path).keys() == gpu_suite.PARTS.keys()
    assert gpu_suite.load(tmp_path, gpu_suite.FAILED) == {}
    page = (tmp_path / "README.md").read_text()
    assert all(f"## {part.title}" in page for part in gpu_suite.PARTS.values())
    assert "Missing" not in page and "does not run on this cpu" in page
