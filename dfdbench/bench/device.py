"""Clock, memory and name of the device that a bench runs on.

Used by the benches and by generation, which reports its frame rate.
"""

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dfdbench.errors import UserError
from dfdbench.plan import GPUS
from dfdbench.run import provenance


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is a GPU.

    Raises:
        UserError: cuda without a GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: no CUDA device here; use --device cpu")
    return torch.device(name)


def now(device: torch.device) -> float:
    """Seconds on a steady clock, when all work queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def times(
    work: Callable[[int], object], device: torch.device, warmup: int, steps: int
) -> list[float]:
    """Seconds of each of `steps` calls `work(i)`, after `warmup` calls that are not timed."""
    for i in range(warmup):
        work(i)
    seconds = []
    for i in range(warmup, warmup + steps):
        start = now(device)
        work(i)
        seconds.append(now(device) - start)
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median and range of some times."""
    return {
        "median_seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
        "seconds": list(seconds),
    }


def reset_peak(device: torch.device) -> None:
    """Forget the highest use of memory so far, where that can be done."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Bytes at the highest: allocated and reserved on CUDA, the process's resident set else."""
    if device.type == "cuda":
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(device),
            "reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    unit = 1 if sys.platform == "darwin" else 1024
    return {"resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def peak_tflops(device: torch.device) -> float | None:
    """Dense bfloat16 TFLOP/s of the GPU by its name; None for others and for a CPU."""
    if device.type != "cuda":
        return None
    return named_peak(torch.cuda.get_device_name(device))


def named_peak(name: str) -> float | None:
    """That of the GPU with the most words in a driver's name, such as "NVIDIA H100 PCIe"."""
    lower = name.lower().replace(" ", "")
    found = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in lower]
    if not found:
        return None
    return max(found, key=lambda gpu: sum(word in lower for word in gpu.name.split("-"))).tflops


def describe(device: torch.device) -> dict[str, Any]:
    """Device, versions and settings that a time depends on."""
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
