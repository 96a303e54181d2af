"""Resume points: networks, optimisers and position, written whole or not at all.

Used by the loop. Random numbers need no saving: they follow from the iteration (streams.py).
torch.distributed.checkpoint writes them as safetensors, every process its own part, and reads them
back into any number of processes. state.json lists every tensor with its shape, so that one that
was lost is missed.
"""

import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dfdbench.distill.parallel import Group
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sweep, write_json
from dfdbench.utils.folders import atomic_folder
from dfdbench.utils.reading import Outside, read_json
from dfdbench.utils.weights import fault_of

PREFIX = "step-"
STATE = "state.json"
FAULTS = (OSError, RuntimeError, ValueError, AssertionError, SafetensorError)
Modules = Mapping[str, nn.Module]
Optimisers = Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    updates: int = 0  # student updates done
    seconds: float = 0.0  # of training, over all its parts


class State(Outside):
    """state.json of a checkpoint.

    tensors: the shape of each tensor by its key; None in a checkpoint of the previous version.
    """

    updates: NonNegativeInt
    seconds: NonNegativeFloat
    tensors: dict[str, list[int]] | None = None


def complete(folder: Path) -> list[Path]:
    """Checkpoints, oldest first; each was written whole."""
    names = [p for p in folder.glob(f"{PREFIX}*") if re.fullmatch(rf"{PREFIX}\d{{1,15}}", p.name)]
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
            run_dcp("save", tensors, group, storage_writer=writer)
            if group.is_main:
                shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
                write_json(temporary / STATE, vars(position) | {"tensors": shapes})
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
        UserError: a checkpoint is there but is damaged, lacks a tensor or has one to spare, or does
            not fit this run's networks.
    """
    group = group or Group()
    newest = group.on_main(lambda: _newest(folder))
    if newest is None:
        return Position()
    path, state, remedy = newest
    try:
        if any(path.glob("*.optimiser.pt")):
            _load_first_format(path, modules, optimisers, device, group)
        else:
            _load(path, state, modules, optimisers, group)
    except FAULTS as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"checkpoint {path} does not fit ({line}); {remedy}") from None
    return Position(state.updates, state.seconds)


def _newest(folder: Path) -> tuple[Path, State, str] | None:
    """The newest checkpoint, its state, and what to do if it is of no use."""
    sweep(folder)
    steps = complete(folder)
    if not steps:
        return None
    last, older = steps[-1], steps[-2].name if steps[1:] else "the beginning"
    remedy = f"delete {last} to go on from {older}"
    if not (last / STATE).is_file():
        raise UserError(f"{last} lacks {STATE}; {remedy}")
    state = read_json(last / STATE, State, remedy)
    if last.name != f"{PREFIX}{state.updates}":
        raise UserError(f"{last / STATE}: says {state.updates} updates; {remedy}")
    return last, state, remedy


def _load(
    newest: Path, position: State, modules: Modules, optimisers: Optimisers, group: Group
) -> None:
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    reader = HuggingFaceStorageReader(str(newest))
    weights, state = _state(modules, optimisers)
    # A parameter that never got a gradient has no optimiser state, in the file as in the run.
    stored = reader.read_metadata().state_dict_metadata
    there = {key: list(getattr(tensor, "size", ())) for key, tensor in stored.items()}
    moments = {key: value for key, value in _tensors(state).items() if key in there}
    _check_tensors(there, position.tensors, weights | _tensors(state))
    run_dcp("load", weights | moments, group, storage_reader=reader)  # in place
    own = {key: getattr(x, "_local_tensor", x) for key, x in (weights | moments).items()}
    if fault := fault_of(own.items()):
        raise ValueError(fault)
    if optimisers:
        set_optimizer_state_dict(
            nn.ModuleDict(modules), [*optimisers.values()], state, options=_options()
        )


def _check_tensors(
    there: Mapping[str, list[int]], listed: Mapping[str, list[int]] | None, wanted: Iterable[str]
) -> None:
    """Raise ValueError unless the files hold the tensors that were written, and no others.

    Args:
        there: shape by key, of the files. listed: of state.json, if it has them.
        wanted: keys of this run's weights and of the optimiser state that it may have.
    """
    lost = {_part(key) for key in wanted} - {_part(key) for key in there}
    if listed is not None:
        kept = {_part(key) for key in listed}  # moments of none of a network that got no gradient
        lost = {part for part in lost if part in kept or not part.startswith("state.")}
        lost |= listed.keys() - there.keys()
        changed = [key for key in there.keys() & listed.keys() if there[key] != listed[key]]
        lost |= {f"{key} of shape {listed[key]}" for key in changed}
    if lost:
        raise ValueError(f"its files lack {min(lost)}")
    if extra := there.keys() - (set(wanted) if listed is None else set(wanted) & listed.keys()):
        raise ValueError(f"its files hold {min(extra)}, which it was not written with")


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
    """Moments and step counts; learning rates and the like are the recipe's.

    Of moments in 8 bits these are the tensors that they consist of.
    """
    held: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor) and key.startswith("state."):
            parts: list[str] = []
            if is_traceable_wrapper_subclass(value) and not isinstance(value, DTensor):
                parts = value.__tensor_flatten__()[0]
            held |= {f"{key}.{name}": getattr(value, name) for name in parts} or {key: value}
    return held


def _part(key: str) -> str:
    """Network of a key such as "student.blocks.0…", or "state.student" of an optimiser's."""
    return ".".join(key.split(".")[: 2 if key.startswith("state.") else 1])


def run_dcp(action: str, tensors: dict[str, Tensor], group: Group, **storage: Any) -> None:
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
