"""Which device a name means, with and without a GPU, and which GPU a process of several takes."""

import sys
from pathlib import Path

import pytest
import torch

from dfdbench.utils import device
from dfdbench.utils.device import choose_device, compute_dtype, describe, local_device
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


def test_auto_without_a_driver_does_not_import_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "DRIVERS", (str(tmp_path / "none"),))
    monkeypatch.delitem(sys.modules, "torch")
    assert choose_device("auto") == "cpu" and "torch" not in sys.modules


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
