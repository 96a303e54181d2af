"""Resume points: networks, optimisers and position, written whole or not at all.

Used by the loop. Random numbers need no saving: they follow from the iteration (streams.py).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dfdbench.errors import UserError
from dfdbench.files import write_json
from dfdbench.folders import atomic_folder, sweep

PREFIX = "step-"


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    updates: int = 0  # student updates done
    seconds: float = 0.0  # of training, over all its parts


def found(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    names = [p for p in folder.glob(f"{PREFIX}*") if (p / "state.json").is_file()]
    return sorted(names, key=lambda p: int(p.name.removeprefix(PREFIX)))


def save(
    folder: Path,
    position: Position,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    keep: int,
) -> Path:
    """Write checkpoint step-N (N student updates) and delete all but the `keep` newest."""
    target = folder / f"{PREFIX}{position.updates}"
    with atomic_folder(target) as temporary:
        for name, module in modules.items():
            weights = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            save_file(weights, temporary / f"{name}.safetensors")
        for name, optimiser in optimisers.items():
            torch.save(optimiser.state_dict(), temporary / f"{name}.optimiser.pt")
        write_json(temporary / "state.json", vars(position))
    for old in found(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def restore(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
) -> Position:
    """Load the newest checkpoint into `modules` and `optimisers`; position 0 if there is none.

    Raises:
        UserError: a checkpoint is there but does not fit this run's networks.
    """
    sweep(folder)
    steps = found(folder)
    if not steps:
        return Position()
    newest = steps[-1]
    try:
        for name, module in modules.items():
            module.load_state_dict(load_file(newest / f"{name}.safetensors"))
        for name, optimiser in optimisers.items():
            file = newest / f"{name}.optimiser.pt"
            optimiser.load_state_dict(torch.load(file, map_location=device, weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"checkpoint {newest} does not fit ({line}); delete it to go on") from None
    return Position(**json.loads((newest / "state.json").read_text(encoding="utf-8")))
