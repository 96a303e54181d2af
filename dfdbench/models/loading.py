"""Loads the parts of a diffusers folder strictly, with one clear line for what is wrong with them.

Used by the families. The libraries fill weights that a file lacks with random numbers and only
warn; here every weight comes from safetensors, or the part is refused.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError

from dfdbench.utils.errors import UserError

MEND = "copy or download it again"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it is absent or broken.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({_first_line(error)}); {MEND}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object; {MEND}")
    return values


def read_config(folder: Path, cls: Any) -> dict[str, Any]:
    """The config.json of a part that diffusers class `cls` is to load.

    Raises:
        UserError: it is absent, broken, or of another class.
    """
    config = read_json(folder / "config.json")
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
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be loaded ({_first_line(error)}); {MEND}") from None


_random: ContextVar[torch.device | None] = ContextVar("random", default=None)


@contextmanager
def random_weights(device: torch.device | str) -> Iterator[None]:
    """Within, `load_part` reads config.json only and draws the weights anew on `device`.

    For networks whose size matters and whose values do not: plans and benches.
    """
    token = _random.set(torch.device(device))
    try:
        yield
    finally:
        _random.reset(token)


def _draw_part(cls: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """An untrained network of class `cls`, in the dtypes that loading its weights would give."""
    config = read_config(folder, cls)
    with device:
        module = cls.from_config(config)
    kept = tuple(cls._keep_in_fp32_modules or ()) if dtype is not torch.float32 else ()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not set(kept) & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)
    return module


def load_part(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The network of class `cls` in `folder`, on the CPU, in `dtype`, with all weights its own.

    Memory holds the network once: it is built without storage and filled tensor by tensor.

    Args:
        cls: of diffusers, or a pretrained model of transformers.

    Raises:
        UserError: the folder lacks its config or weights, is damaged or of another class.
    """
    native = issubclass(cls, ModelMixin)
    if native and (device := _random.get()):
        return _draw_part(cls, folder, dtype, device)
    if native:
        read_config(folder, cls)
        options = {"torch_dtype": dtype, "low_cpu_mem_usage": True}
    else:
        read_json(folder / "config.json")
        options = {"dtype": dtype}
    with loading(folder):
        module, found = cls.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
        )
    # A whole T5 in place of its encoder has weights to spare, which changes nothing.
    for fault in ("missing", "mismatched", *(["unexpected"] if native else [])):
        if keys := sorted(map(str, found[f"{fault}_keys"])):
            raise UserError(
                f"{folder}: weights and config.json disagree ({len(keys)} {fault}, such as "
                f"{keys[0]}); {MEND}"
            )
    return module


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
