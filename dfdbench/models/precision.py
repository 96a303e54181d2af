"""Keeps parts of a trained network in the precision that their pipeline gives them, under autocast.

Used by the families. Autocast alone would compute embeddings of time in bfloat16, which cannot tell
time 999 from 1000, and root-mean-square norms in float32, at twice the memory and traffic of what
the attention after them takes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def keep_float32(part: nn.Module) -> None:
    """Let `part` compute in float32, whatever autocast says and its inputs are in."""
    part.forward = partial(_float32, type(part).forward, part)  # type: ignore[method-assign]


def _float32(own: Callable[..., Any], part: nn.Module, *inputs: Tensor) -> Any:
    with torch.autocast(inputs[0].device.type, enabled=False):
        return own(part, *(x.float() for x in inputs))


def norm_as_given(module: nn.Module) -> None:
    """Let every RMS norm within give what it is given: bfloat16 for bfloat16, summed in float32.

    Norms whose weights have their input's dtype compute as they always did.
    """
    from diffusers.models.normalization import RMSNorm

    for part in module.modules():
        if isinstance(part, nn.RMSNorm | RMSNorm):
            part.forward = partial(_rms_norm, type(part).forward, part)  # type: ignore[method-assign]


def _rms_norm(own: Callable[..., Tensor], norm: Any, x: Tensor) -> Tensor:
    if x.dtype == norm.weight.dtype:
        return own(norm, x)
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, norm.weight.shape, norm.weight.to(x.dtype), norm.eps)
