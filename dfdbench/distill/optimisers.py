"""AdamW of the trained networks: PyTorch's fused one, or torchao's with moments in 8 bits.

Used by the loop.
"""

from collections.abc import Sequence
from typing import Any

import torch

from dfdbench.distill.sections import Optim
from dfdbench.utils.errors import UserError


def check_optimiser(options: Optim, processes: int) -> None:
    """Refuse what cannot be built, before anything is trained.

    Raises:
        UserError: the library is not installed, or the networks are cut among processes.
    """
    if options.optimiser == "adamw":
        return
    if processes > 1:
        raise UserError(
            f"recipe key 'optim.optimiser' is {options.optimiser}, which is for one GPU; with "
            f"{processes} the moments are cut among them: take adamw"
        )
    _adamw8bit()


def adamw(options: Optim, groups: Sequence[Any], lr: float) -> torch.optim.Optimizer:
    """AdamW by the recipe over parameters or groups of them.

    Raises:
        UserError: see `check_optimiser`.
    """
    shared: dict[str, Any] = {"betas": options.betas, "weight_decay": options.weight_decay}
    if options.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True, **shared)
    optimiser: torch.optim.Optimizer = _adamw8bit()(groups, lr=lr, **shared)
    return optimiser


def _adamw8bit() -> Any:
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "recipe key 'optim.optimiser' is adamw8bit, which needs torchao; pip install "
            "'dfdbench[lowmem]', or take adamw"
        ) from None
    return AdamW8bit
