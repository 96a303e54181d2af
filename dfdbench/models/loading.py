"""Loads and saves the parts of a diffusers folder: strictly, with one clear line for what is wrong.

Used by the families. The libraries fill weights that a file lacks with random numbers and only
warn; here every weight comes from safetensors, or the part is refused.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from dfdbench.utils.errors import UserError, pass_out_of_memory
from dfdbench.utils.reading import read_json
from dfdbench.utils.weights import fault_of, whole_numbers

MEND = "copy or download it again"
PartLoader = Callable[[Any, Path, torch.dtype], Any]  # of class, folder and dtype: a network


def read_config(folder: Path, cls: Any) -> dict[str, Any]:
    """The config.json of a part that diffusers class `cls` is to load.

    Raises:
        UserError: it is absent, broken, or of another class.
    """
    config = read_json(folder / "config.json", dict[str, Any], MEND)
    kind = config.get("_class_name")
    if kind != cls.__name__:
        raise UserError(
            f"{folder / 'config.json'} is of the class {kind}, where {cls.__name__} is needed; "
            f"{MEND}, or give the folder of another model"
        )
    return config


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise over a broken `folder` into one line that names it."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        remedy = "safetensors reads no path that is not UTF-8; rename it"
        raise UserError(f"{folder}: {remedy}") from None
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        pass_out_of_memory(error)
        raise UserError(f"{folder} cannot be loaded ({_first_line(error)}); {MEND}") from None


def draw_part(cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """An untrained network of class `cls` on `device`, from the config.json in `folder` alone.

    In the dtypes that loading its weights would give. For networks whose size matters and whose
    values do not: plans and benches.
    """
    config = read_config(folder, cls)
    with device:
        module = cls.from_config(config)
    return cast_part(cls, module, dtype)


def cast_part(cls: Any, module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Put a network into the dtypes that loading its weights in `dtype` would give, in place."""
    float32 = set(cls._keep_in_fp32_modules or ()) if dtype is not torch.float32 else set()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not float32 & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)
    return module


def load_part(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The network of class `cls` in `folder`, on the CPU, in `dtype`, with all weights its own.

    Memory holds the network once: it is built without storage and filled tensor by tensor.

    Args:
        cls: of diffusers, or a pretrained model of transformers.

    Raises:
        UserError: the folder lacks its config or weights, is damaged or of another class, or
            weights are not finite floating-point numbers.
    """
    from diffusers import ModelMixin  # takes seconds, which a report need not wait for

    native = issubclass(cls, ModelMixin)
    if native:
        read_config(folder, cls)
        options = {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    else:
        read_json(folder / "config.json", dict[str, Any], MEND)
        options = {"dtype": dtype}
    with loading(folder):
        module, faults = cls.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
        )
    # A whole T5 in place of its encoder has weights to spare, which changes nothing.
    for fault in ("missing", "mismatched", *(["unexpected"] if native else [])):
        if keys := sorted(map(str, faults[f"{fault}_keys"])):
            raise UserError(
                f"{folder}: weights and config.json disagree ({len(keys)} {fault}, such as "
                f"{keys[0]}); {MEND}"
            )
    named = [*module.named_parameters(), *module.named_buffers()]
    with loading(folder):
        floating = (name for name, tensor in named if tensor.is_floating_point())
        fault = whole_numbers(folder, floating) or fault_of(named)
    if fault:
        raise UserError(f"{folder}: {fault}; {MEND}")
    return module


def channels_last(module: nn.Module) -> nn.Module:
    """Lay out on a CPU the weights of convolutions with channels last, in place.

    Small clips decode 1.3 times as fast so, and an autoencoder is trained a quarter faster; values
    differ in the last bits.
    """
    layouts = {nn.Conv2d: torch.channels_last, nn.Conv3d: torch.channels_last_3d}
    for layer in module.modules():
        for kind, layout in layouts.items():
            if isinstance(layer, kind) and layer.weight.device.type == "cpu":
                layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
    return module


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def save_part(module: nn.Module, folder: Path) -> None:
    """Write a network and its config, without a trace of this machine."""
    module.save_pretrained(folder)  # type: ignore[operator]
    forget_origin(folder / "config.json")


def forget_origin(path: Path) -> None:
    """Leave out of a config what diffusers adds at load time: a local path, which would leak."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def quiet_libraries() -> None:
    """Their bars for loading and writing files would run through ours."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
