"""The device that work runs on: choice, clock, memory, description.

The only place that decides between CPU and GPU; every room asks here. torch alone knows whether it
can use a GPU, and is imported to be asked; so a command that needs no network must not ask.
"""

import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dfdbench.utils.errors import UserError
from dfdbench.utils.progress import Bar
from dfdbench.utils.run import provenance

if TYPE_CHECKING:
    import torch

LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")
VISIBLE = "CUDA_VISIBLE_DEVICES"  # the GPUs that a process may use, by number or name


def choose_device(name: str = "auto") -> str:
    """`name` as torch takes it; for "auto" the GPU where there is one, else the CPU.

    Raises:
        UserError: another name than auto, cpu, cuda or cuda:N, or a GPU that torch does not find.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", name):
        raise UserError(f"--device {name}: unknown; write cpu, cuda or auto")
    if name == "cpu":
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


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that torch finds, as VISIBLE names each of them to a process of its own."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


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


def memory_in_use(device: "torch.device") -> int | None:
    """Bytes of a GPU that tensors of this process take; None on a CPU."""
    import torch

    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def free_memory(device: "torch.device") -> int | None:
    """Bytes of a GPU that tensors of this process can still take; None on a CPU."""
    if device.type != "cuda":
        return None
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds of the GPU and no tensor takes is free too.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def release_memory() -> None:
    """Give back what torch holds of the GPUs and no tensor takes, for other processes."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def uses_tf32(device: "torch.device") -> bool:
    """Whether float32 convolutions or matrix products are computed there with TF32's 10 bits."""
    import torch

    if device.type != "cuda":
        return False
    return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32


@contextmanager
def whole_float32(device: str) -> Iterator[None]:
    """No TF32 on a GPU in the body, as long as it runs: float32 means float32."""
    if not device.startswith("cuda"):
        yield
        return
    import torch

    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


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
            "tf32": uses_tf32(device),
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
