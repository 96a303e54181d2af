"""Reads the weights of a student that another program wrote, whatever is around them.

Used for students of other programs, whole or as LoRA. Self Forcing's public code (2506.08009), and
CausVid's before it, write a file of torch.save with the state dicts "generator" and, of the
average, "generator_ema": the original Wan's names behind "model.", some with what FSDP,
checkpointing or compilation put between. rCM's (2510.08431) have "net." before them and a linear
patch embedding. Such files also go about as safetensors, and without what is around the state dict.
Nothing that a file names is ever run.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import read_config
from dfdbench.utils.errors import UserError
from dfdbench.utils.weights import fault_of

STUDENTS = ("generator_ema.", "generator.")  # the average first: it is what the paper scores
PREFIXES = ("base_model.model.", "model.", "diffusion_model.", "transformer.", "net.")
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
REMEDY = (
    "give a Self Forcing checkpoint (.pt or .safetensors) or a diffusers folder, of the same model"
)


def read_tensors(path: Path) -> dict[str, Any]:
    """All that a file, or the safetensors files of a folder, hold: by names that tell in which
    dict it was.

    Raises:
        UserError: it cannot be read as plain tensors, or two files of the folder hold one name.
    """
    if not path.is_dir():
        return _read_file(path)
    content: dict[str, Any] = {}
    for file in sorted(path.glob("*.safetensors")):
        part = _read_file(file)
        if twice := content.keys() & part.keys():
            raise UserError(
                f"{path}: {min(twice)} is in two of its files; keep those of one precision"
            )
        content |= part
    return content


def _read_file(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # Only what torch.save packs as a zip can be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError:
        reason = "it is damaged, or names code, which is never run"
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
    else:
        return dict(_flat(content)) if isinstance(content, Mapping) else {}
    raise UserError(f"{path}: cannot be read as plain tensors ({reason}); {REMEDY}")


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def bare(name: str) -> str:
    """A weight's name without what was wrapped around its network."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name


def whole_weights(
    path: Path, content: Mapping[str, Any], family: ModelFamily, leaves_out: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The weights of a whole student in what `read_tensors` gave, by the names of the family.

    Args:
        path: named in messages.
        leaves_out: parts of names; what has one of them in its name is not looked at.

    Raises:
        UserError: it holds no network of the family, or another than the family's own: a weight
            that is absent, to spare, of another shape, or not finite.
    """
    shapes = {name: value.shape for name, value in _empty_network(family).state_dict().items()}
    names = {family.original_name(name): name for name in shapes} | {name: name for name in shapes}
    found = _student(path, content, family, leaves_out)
    weights = {names.get(name, name): value for name, value in found.items()}
    first = family.first_layer
    if first in weights and weights[first].ndim == 2:  # rCM's linear layer over flattened patches
        weights[first] = _as_convolution(weights[first], shapes[first])
    faults = [
        *(f"it has no {name}" for name in shapes.keys() - weights.keys()),
        *(f"it has {name}, which the model has not" for name in weights.keys() - shapes.keys()),
        *(
            f"{name} is {[*weights[name].shape]}, the model's is {[*shapes[name]]}"
            for name in shapes.keys() & weights.keys()
            if weights[name].shape != shapes[name]
        ),
        *(["it names a weight twice"] if len(weights) < len(found) else []),
        *filter(None, [fault_of(weights.items())]),
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {min(faults)}{more}; {REMEDY}")
    return weights


def _empty_network(family: ModelFamily) -> Any:
    """The family's denoiser without storage, by its config alone."""
    with init_empty_weights():
        return family.network.from_config(read_config(family.path / "transformer", family.network))


def _as_convolution(linear: Tensor, shape: torch.Size) -> Tensor:
    """A layer over patches flattened as (C kT kH kW), as the weight of the same convolution."""
    same = linear.shape[0] == shape[0] and linear.numel() == shape.numel()
    return linear.reshape(shape) if same else linear


def _student(
    path: Path, content: Mapping[str, Any], family: ModelFamily, leaves_out: Sequence[str]
) -> dict[str, Tensor]:
    """The student's weights by the names that they have without what is around them."""
    kind = family.name.capitalize()
    for prefix in (*STUDENTS, "model.", ""):
        named = {
            bare(name.removeprefix(prefix)): (name, value)
            for name, value in content.items()
            if name.startswith(prefix) and not any(part in name for part in leaves_out)
        }
        if not named or (prefix not in STUDENTS and family.first_layer not in named):
            continue
        for name, value in named.values():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise UserError(f"{path}: {name} is no weight of a {kind}; {REMEDY}")
        return {name: value for name, (_, value) in named.items()}
    raise UserError(
        f"{path}: holds no state dict under generator_ema or generator, and no {kind} without; "
        f"{REMEDY}"
    )
