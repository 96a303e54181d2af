"""Reads causal Wan students that other programs made.

Self Forcing's public code (2506.08009) writes a file of torch.save with the state dicts "generator"
and, of the average, "generator_ema": the original Wan's names behind "model.", some with what FSDP,
checkpointing or compilation put between. Such files also go about as safetensors, and without what
is around the state dict. A diffusers folder is read as it is. Write the module as a diffusers
folder with the family's `save_student`.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import read_config
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import read_json
from dfdbench.utils.weights import fault_of

STUDENTS = ("generator_ema.", "generator.")  # the average first: it is what the paper scores
PREFIXES = ("model.", "diffusion_model.")
WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")
FIRST = "patch_embedding.weight"  # has this name in the original Wan and in diffusers
REMEDY = (
    "give a Self Forcing checkpoint (.pt or .safetensors) or a diffusers folder, of the same model"
)
FREE = ("rope_max_seq_len", *vars(Layout()))  # of a config: may differ from the model's


def read_student(path: Path, family: ModelFamily, layout: Layout | None = None) -> nn.Module:
    """The causal student (float32, trainable) in a diffusers folder or a checkpoint file.

    Args:
        family: of the bidirectional checkpoint that the student was made from.
        layout: where `path` does not say it, by default blocks of 3 without a window, as released.

    Raises:
        UserError: see `read_self_forcing` and `read_folder`.
    """
    read = read_folder if path.is_dir() else read_self_forcing
    return read(path, family, layout)


def read_folder(path: Path, family: ModelFamily, layout: Layout | None = None) -> nn.Module:
    """The student in a diffusers folder, or in its transformer/ alone.

    A bidirectional Wan becomes causal with the weights that it has.

    Raises:
        UserError: the folder holds no Wan, is damaged, is of a model of another size, or is causal
            with another layout than the given one.
    """
    parts = [
        folder for folder in (path / "transformer", path) if (folder / "config.json").is_file()
    ]
    if not parts:
        raise UserError(f"{path}: no diffusers folder, it has no transformer/config.json; {REMEDY}")
    kind = read_json(parts[0] / "config.json", dict[str, Any], REMEDY).get("_class_name")
    assert family.causal is not None
    if kind not in (family.network.__name__, family.causal.network.__name__):
        raise UserError(f"{path}: its transformer is a {kind}, no Wan text-to-video's; {REMEDY}")
    module = family.load_network(parts[0])
    _same_model(path, module, family)
    if kind == family.network.__name__:
        return family.as_causal(module, layout or Layout())
    if layout not in (None, family.causal.layout(module)):
        raise UserError(
            f"{path}: was made with {family.causal.layout(module)}, asked for is {layout}; leave "
            "out --block-frames, --window and --sinks"
        )
    return module


def _same_model(path: Path, module: nn.Module, family: ModelFamily) -> None:
    """Refuse a network with another config than the model's, which its run would name."""
    own = family.path / "transformer"
    with init_empty_weights():
        model: Any = family.network.from_config(read_config(own, family.network))
    theirs: Any = module.config
    for key, value in model.config.items():
        if not key.startswith("_") and key not in FREE and theirs.get(key) != value:
            raise UserError(
                f"{path}: its {key} is {theirs.get(key)}, the model's {value}; {REMEDY}"
            )


def read_self_forcing(path: Path, family: ModelFamily, layout: Layout | None = None) -> nn.Module:
    """The causal student (float32, trainable) in a checkpoint of Self Forcing.

    Args:
        family: of the bidirectional checkpoint that the student was made from.
        layout: the file does not say it; by default blocks of 3 without a window, as released.

    Raises:
        UserError: the file cannot be read as plain tensors, has another layout, is of a model of
            another size or holds what is not finite.
    """
    weights = _diffusers_names(path, _student(path, _tensors(path)))
    module = family.new_causal_module(layout or Layout())
    wanted = module.state_dict()
    faults = [
        *(f"it has no {name}" for name in wanted.keys() - weights.keys()),
        *(f"it has {name}, which the model has not" for name in weights.keys() - wanted.keys()),
        *(
            f"{name} is {[*weights[name].shape]}, the model's is {[*wanted[name].shape]}"
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ),
        *filter(None, [fault_of(weights.items())]),
    ]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {min(faults)}{more}; {REMEDY}")
    module.load_state_dict(weights)
    return module


def _tensors(path: Path) -> dict[str, Any]:
    """All that a file holds, by names that say in which dict it was."""
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


def _student(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The student's weights by a Wan's names, original or diffusers'."""
    if lora := next((name for name in content if "lora" in name.lower()), None):
        raise UserError(
            f"{path}: is a LoRA (it has {lora}), no whole student; merge it into its base and give "
            "that"
        )
    for prefix in (*STUDENTS, "model.", ""):
        named = {
            _bare(name.removeprefix(prefix)): (name, value)
            for name, value in content.items()
            if name.startswith(prefix)
        }
        if not named or (prefix not in STUDENTS and FIRST not in named):
            continue
        for name, value in named.values():
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise UserError(f"{path}: {name} is no weight of a Wan; {REMEDY}")
        return {bare: value for bare, (_, value) in named.items()}
    raise UserError(
        f"{path}: holds no state dict under generator_ema or generator, and no Wan without; "
        f"{REMEDY}"
    )


def _bare(name: str) -> str:
    """A weight's name without what was wrapped around its network."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    while prefix := next((p for p in PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name


def _diffusers_names(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith("condition_embedder.") for name in weights):
        return weights
    try:
        return dict(convert_wan_transformer_to_diffusers(weights))
    except (KeyError, IndexError, RuntimeError) as error:
        raise UserError(f"{path}: its names are no Wan's ({error}); {REMEDY}") from None
