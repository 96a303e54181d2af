"""Resume points: networks, optimisers and position, written whole or not at all.

Used by the loop. Random numbers need no saving: they follow from the iteration (streams.py).
torch.distributed.checkpoint writes them as safetensors, every process its own part, and reads them
back into any number of processes.
"""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dfdbench.distill.parallel import Group
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.folders import atomic_folder, sweep

PREFIX = "step-"
FAULTS = (OSError, RuntimeError, ValueError, AssertionError, SafetensorError)
Modules = Mapping[str, nn.Module]
Optimisers = Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    updates: int = 0  # student updates done
    seconds: float = 0.0  # of training, over all its parts


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    names = [p for p in folder.glob(f"{PREFIX}*") if (p / "state.json").is_file()]
    return sorted(names, key=lambda p: int(p.name.removeprefix(PREFIX)))


def save(
    folder: Path,
    position: Position,
    modules: Modules,
    optimisers: Optimisers,
    keep: int,
    group: Group | None = None,
) -> Path:
    """Write checkpoint step-N (N student updates) and delete all but the `keep` newest.

    Raises:
        UserError: the disk is full or the folder cannot be written; older checkpoints stay.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter

    group = group or Group()
    target = folder / f"{PREFIX}{position.updates}"
    weights, state = _state(modules, optimisers)
    tensors = weights | _tensors(state)
    # A file for each network and each one's optimiser: a file is put together in memory.
    parts = sorted({_part(key) for key in tensors})
    files = {key: 1 + parts.index(_part(key)) for key in tensors}
    try:
        with _shared_folder(target, group) as temporary:
            writer = HuggingFaceStorageWriter(str(temporary), files, save_distributed=True)
            _dcp("save", tensors, group, storage_writer=writer)
            if group.is_main:
                write_json(temporary / "state.json", vars(position))
    except OSError as error:
        older = complete(folder)
        stays = f"{older[-1].name} stays" if older else "there is no older one"
        raise UserError(
            f"checkpoint {target} could not be written ({error.strerror or error}); {stays}; "
            f"make room in {folder} and go on with --resume"
        ) from None
    if group.is_main:
        for old in complete(folder)[:-keep]:
            shutil.rmtree(old)
    return target


def restore(
    folder: Path,
    modules: Modules,
    optimisers: Optimisers,
    device: torch.device,
    group: Group | None = None,
) -> Position:
    """Load the newest checkpoint into `modules` and `optimisers`; position 0 if there is none.

    Raises:
        UserError: a checkpoint is there but does not fit this run's networks.
    """
    group = group or Group()
    newest = group.on_main(lambda: _newest(folder))
    if newest is None:
        return Position()
    try:
        if any(newest.glob("*.optimiser.pt")):
            _load_first_format(newest, modules, optimisers, device, group)
        else:
            _load(newest, modules, optimisers, group)
    except FAULTS as error:
        line = str(error).splitlines()[0]
        raise UserError(f"checkpoint {newest} does not fit ({line}); delete it to go on") from None
    return Position(**json.loads((newest / "state.json").read_text(encoding="utf-8")))


def _newest(folder: Path) -> Path | None:
    sweep(folder)
    steps = complete(folder)
    return steps[-1] if steps else None


def _load(newest: Path, modules: Modules, optimisers: Optimisers, group: Group) -> None:
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    reader = HuggingFaceStorageReader(str(newest))
    weights, state = _state(modules, optimisers)
    # A parameter that never got a gradient has no optimiser state, in the file as in the run.
    there = reader.read_metadata().state_dict_metadata
    moments = {key: value for key, value in _tensors(state).items() if key in there}
    _dcp("load", weights | moments, group, storage_reader=reader)  # in place
    if optimisers:
        set_optimizer_state_dict(
            nn.ModuleDict(modules), [*optimisers.values()], state, options=_options()
        )


def _load_first_format(
    newest: Path, modules: Modules, optimisers: Optimisers, device: torch.device, group: Group
) -> None:
    """The older format, always of one process: safetensors a network, torch.save an optimiser."""
    if group.size > 1:
        raise ValueError("it has the older format, which only one process can resume")
    for name, module in modules.items():
        module.load_state_dict(load_file(newest / f"{name}.safetensors"))
    for name, optimiser in optimisers.items():
        file = newest / f"{name}.optimiser.pt"
        optimiser.load_state_dict(torch.load(file, map_location=device, weights_only=True))


@contextmanager
def _shared_folder(target: Path, group: Group) -> Iterator[Path]:
    """`atomic_folder` for all processes: the first makes it, and renames it when all are done."""
    with ExitStack() as stack:
        yield group.on_main(lambda: stack.enter_context(atomic_folder(target)))
        group.on_main(stack.close)


def _options() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(flatten_optimizer_state_dict=True)


def _state(modules: Modules, optimisers: Optimisers) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and optimiser state by name, as the very tensors in use, zeros before a first step.

    A cut network's are its processes' parts.
    """
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    everything = nn.ModuleDict(modules)
    weights = dict(everything.state_dict())  # first: this also puts gathered weights back
    if not optimisers:
        return weights, {}
    steppers = [*optimisers.values()]
    return weights, get_optimizer_state_dict(everything, steppers, options=_options())


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Moments and step counts; learning rates and the like are the recipe's."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _part(key: str) -> str:
    """Network of a key such as "student.blocks.0…", or "state.student" of an optimiser's."""
    return ".".join(key.split(".")[: 2 if key.startswith("state.") else 1])


def _dcp(action: str, tensors: dict[str, Tensor], group: Group, **storage: Any) -> None:
    """dcp.save or dcp.load; what failed in any process is raised in all as itself."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one process works alone is as meant
            getattr(dcp, action)(tensors, no_dist=group.size == 1, **storage)
    except CheckpointException as error:
        failure, _ = next(iter(error.failures.values()))
        raise failure from None
