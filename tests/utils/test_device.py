"""Which device a name means, with and without a GPU, and which GPU a process of several takes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dfdbench.utils import device
from dfdbench.utils.device import (
    choose_device,
    compute_dtype,
    describe,
    free_memory,
    local_device,
    memory_in_use,
    uses_tf32,
    visible_gpus,
    whole_float32,
)
from dfdbench.utils.errors import UserError


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let torch find so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose_device() == choose_device("auto") == choose_device("cpu") == "cpu"
    gpus(monkeypatch, 2)
    assert choose_device("auto") == "cuda" and choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"


def test_torch_alone_says_whether_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container or under Windows the driver has no folder that could be looked for."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    monkeypatch.setattr(device, "sys", SimpleNamespace(modules={}, platform="linux"))
    gpus(monkeypatch, 1)
    assert choose_device("auto") == "cuda"


def test_each_gpu_has_the_name_by_which_a_process_may_see_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus(monkeypatch, 2)
    assert visible_gpus({}) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "6, GPU-8932f937"}) == ["6", "GPU-8932f937"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "4,5,-1,7"}) == ["4", "5"]
    gpus(monkeypatch, 0)
    assert visible_gpus({}) == visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_float32_is_whole_only_while_the_body_runs() -> None:
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    with pytest.raises(KeyError), whole_float32("cuda:1"):
        assert not uses_tf32(torch.device("cuda"))
        raise KeyError
    assert [flag.allow_tf32 for flag in flags] == before
    assert uses_tf32(torch.device("cuda")) == any(before)
    with whole_float32("cpu"):
        assert [flag.allow_tf32 for flag in flags] == before
    assert not uses_tf32(torch.device("cpu"))


def test_what_torch_holds_and_no_tensor_takes_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"mem_get_info": (30, 80), "memory_reserved": 40, "memory_allocated": 25}
    for name, value in sizes.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 30 + 40 - 25
    assert memory_in_use(torch.device("cuda")) == 25
    assert free_memory(torch.device("cpu")) is memory_in_use(torch.device("cpu")) is None


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpus(monkeypatch, 0)
    with pytest.raises(UserError, match=f"--device {name}: no CUDA device here; write cpu or auto"):
        choose_device(name)


@pytest.mark.parametrize("name", ["tpu", "", "gpu", "cpu:zero", "cuda:", "cuda:one"])
def test_an_unknown_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpus(monkeypatch, 1)
    with pytest.raises(UserError, match="unknown; write cpu, cuda or auto"):
        choose_device(name)


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_LOCALID"])
def test_each_process_of_a_machine_takes_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    gpus(monkeypatch, 2)
    chosen = [local_device("auto", {variable: str(rank)}) for rank in range(3)]
    assert chosen == ["cuda:0", "cuda:1", "cuda:0"]
    assert local_device("cuda", {variable: "1"}) == "cuda:1"
    assert local_device("cpu", {variable: "1"}) == "cpu"
    assert local_device("cuda:0", {variable: "1"}) == "cuda:0"
    assert local_device("auto", {}) == "auto"
    gpus(monkeypatch, 0)
    assert local_device("auto", {variable: "1"}) == "auto"


def test_frozen_networks_are_half_as_large_on_a_gpu_only() -> None:
    assert compute_dtype("cuda:1") == torch.bfloat16 and compute_dtype("cpu") == torch.float32


def test_a_description_names_device_versions_and_code() -> None:
    about = describe(torch.device("cpu"))
    assert about["device"]["type"] == "cpu" and about["device"]["threads"] >= 1
    assert {"versions", "code", "platform"} <= about.keys()
