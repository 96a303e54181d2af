"""How far a student's weights are from its base's: ‖W − W₀‖ / ‖W₀‖ over all parameters.

Used where a student is imported; 0 tells that nothing was imported at all.
"""

from math import sqrt
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn


@torch.no_grad()
def relative_difference(module: nn.Module, base: Path) -> float:
    """Relative Frobenius norm of the difference to the safetensors in `base`, in float64.

    Args:
        module: has every weight of the base under the same name and with the same shape.
        base: folder of the base's denoiser, read weight by weight.
    """
    weights = module.state_dict()
    apart = whole = 0.0
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - the file's own method
                own = opened.get_tensor(name).double()
                apart += float((weights[name].cpu().double() - own).square().sum())
                whole += float(own.square().sum())
    return sqrt(apart / whole) if whole else 0.0
