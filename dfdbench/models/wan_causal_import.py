"""Reads causal Wan students as Self Forcing's public code (2506.08009) writes them.

A file of torch.save with the state dicts "generator" and, of the average, "generator_ema": the
original Wan's names behind "model.", some with what FSDP puts between. Write the module as a
diffusers folder with the family's `save_student`.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from torch import Tensor, nn

from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import UserError
from dfdbench.utils.weights import fault_of

STUDENTS = ("generator_ema", "generator")  # the average first: it is what the paper scores
PREFIX = "model."
WRAPPED = "_fsdp_wrapped_module."
REMEDY = "give a Self Forcing checkpoint (.pt with 'generator') of the same model"


def read_self_forcing(path: Path, family: ModelFamily, layout: Layout | None = None) -> nn.Module:
    """The causal student (float32, trainable) in a checkpoint of Self Forcing.

    Args:
        family: of the bidirectional checkpoint that the student was made from.
        layout: the file does not say it; by default blocks of 3 without a window, as released.

    Raises:
        UserError: the file cannot be read as plain tensors, has another layout, is of a model of
            another size or holds what is not finite.
    """
    module = family.new_causal_module(layout or Layout())
    weights: dict[str, Tensor] = convert_wan_transformer_to_diffusers(_original_names(path))
    wanted = module.state_dict()
    faults = [
        *(f"lacks {name}" for name in wanted.keys() - weights.keys()),
        *(f"has {name}, which the model has not" for name in weights.keys() - wanted.keys()),
        *(
            f"{name} is {[*weights[name].shape]}, the model's is {[*wanted[name].shape]}"
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ),
        *filter(None, [fault_of(weights.items())]),
    ]
    if faults:
        raise UserError(f"{path}: {min(faults)}; {REMEDY}")
    module.load_state_dict(weights)
    return module


def _original_names(path: Path) -> dict[str, Tensor]:
    """Weights of the student by the original Wan's names."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UserError(f"{path}: cannot be read as plain tensors ({reason}); {REMEDY}") from None
    there = content if isinstance(content, dict) else {}
    named = next((there[key] for key in STUDENTS if isinstance(there.get(key), dict)), None)
    if named is None:
        raise UserError(f"{path}: holds no state dict under {' or '.join(STUDENTS)}; {REMEDY}")
    weights = {}
    for key, value in named.items():
        name = str(key).replace(WRAPPED, "")
        floating = isinstance(value, Tensor) and value.is_floating_point()
        if not floating or not name.startswith(PREFIX):
            raise UserError(f"{path}: {key} is no weight of a Wan under '{PREFIX}'; {REMEDY}")
        weights[name.removeprefix(PREFIX)] = value
    return weights
