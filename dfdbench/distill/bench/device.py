"""The peak of a GPU by its name: what a measured time is a share of."""

import torch

from dfdbench.distill.plan import GPUS


def peak_tflops(device: torch.device) -> float | None:
    """Dense bfloat16 TFLOP/s of the GPU by its name; None for others and for a CPU."""
    if device.type != "cuda":
        return None
    return named_peak(torch.cuda.get_device_name(device))


def named_peak(name: str) -> float | None:
    """That of the GPU with the most words in a driver's name, such as "NVIDIA H100 PCIe"."""
    lower = name.lower().replace(" ", "")
    alike = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in lower]
    if not alike:
        return None
    return max(alike, key=lambda gpu: sum(word in lower for word in gpu.name.split("-"))).tflops
