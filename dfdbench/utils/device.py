"""The device that work runs on: choice, clock, memory, description.

The only place that decides between CPU and GPU; every room asks here. torch is imported only where
a GPU may be, so that a command that needs no network starts at once.
"""

import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfdbench.utils.errors import UserError
from dfdbench.utils.progress import Bar
from dfdbench.utils.run import provenance

if TYPE_CHECKING:
    import torch

DRIVERS = ("/proc/driver/nvidia", "/dev/dxg")  # of NVIDIA on Linux, and under Windows
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


def choose_device(name: str = "auto") -> str:
    """`name` as torch takes it; for "auto" the GPU where there is one, else the CPU.

    Raises:
        UserError: another name than auto, cpu, cuda or cuda:N, or a GPU that torch does not find.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", name):
        raise UserError(f"--device {name}: unknown; write cpu, cuda or auto")
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        count, (_, _, index) = torch.cuda.device_count(), name.partition(":")
        if index and int(index) >= count:
            raise UserError(f"--device {name}: there are {count} GPUs here; write cuda:{count - 1}")
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise UserError(f"--device {name}: no CUDA device here; write cpu or auto")


def _may_have_gpu() -> bool:
    return "torch" in sys.modules or any(Path(path).exists() for path in DRIVERS)


def compute_dtype(device: str) -> "torch.dtype":
    """Of frozen networks: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    return torch.bfloat16 if device.startswith("cuda") else torch.float32


def now(device: "torch.device") -> float:
    """Seconds on a steady clock, when all work queued on `device` is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def times(
    work: Callable[[int], object], device: "torch.device", warmup: int, steps: int, label: str = ""
) -> list[float]:
    """Seconds of each of `steps` calls `work(i)`, after `warmup` calls that are not timed.

    label: of a bar that counts all of them.
    """
    seconds = []
    with Bar(warmup + steps, label, quiet=not label) as bar:
        for i in range(warmup + steps):
            start = now(device)
            work(i)
            seconds.append(now(device) - start)
            bar.step()
    return seconds[warmup:]


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and range of some times."""
    return {
        "median_seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "seconds": list(seconds),
    }


def reset_peak(device: "torch.device") -> None:
    """Forget the highest use of memory so far, where that can be done."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: "torch.device") -> dict[str, Any]:
    """Bytes at the highest: allocated and reserved on CUDA, the process's resident set else."""
    import torch

    if device.type == "cuda":
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(device),
            "reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    unit = 1 if sys.platform == "darwin" else 1024
    return {"resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def describe(device: "torch.device") -> dict[str, Any]:
    """Device, versions and settings that a time depends on."""
    import torch

    about: dict[str, Any] = {"type": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    else:
        about |= {"name": platform.processor() or platform.machine()}
    return {"device": about, **provenance()}


def local_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """`device`, or for "auto" and "cuda" the GPU of this process among those of its machine."""
    local = next((environment[name] for name in LOCAL_RANKS if name in environment), None)
    if device not in ("auto", "cuda") or local is None:
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(local) % count}" if count else device
