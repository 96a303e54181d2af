"""What weights must be before a network runs on them: floating point, and finite.

Used by the model families, checkpoints and metric families, once where weights are loaded. Of NaN
or whole numbers a network makes black clips, which would be scored like any other.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

WHOLE = ("I", "U", "B")  # begins of safetensors' names of dtypes without fractions; but BF16


def fault_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """What is wrong with the first tensor that holds NaN or infinity; empty if none does."""
    for name, tensor in tensors:
        wide = tensor.is_floating_point() and tensor.element_size() > 1  # float8 knows no isfinite
        if wide and not tensor.is_meta and not torch.isfinite(tensor).all():
            return f"{name} holds NaN or infinity"
    return ""


def whole_numbers(folder: Path, floating: Iterable[str]) -> str:
    """What is wrong with the first of the weights `floating` that a file has as whole numbers.

    Loading would turn them into floats without a word.
    """
    names = set(floating)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for key in names.intersection(opened.keys()):
                dtype = opened.get_slice(key).get_dtype()
                if dtype.startswith(WHOLE) and dtype != "BF16":
                    return f"{key} is of {dtype}, where floating point is needed"
    return ""
