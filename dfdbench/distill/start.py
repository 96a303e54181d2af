"""Student, fake score and teacher as a run starts with them: whole, or cut among processes.

Used by the loop. A network that is cut is built without storage, cut, and filled from its
safetensors files by torch.distributed.checkpoint: every process reads its own part of every tensor,
and none ever holds a whole network. One process loads as everywhere else.
"""

import copy
import re
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from dfdbench.distill import checkpoint, parallel
from dfdbench.distill.parallel import Group
from dfdbench.distill.sections import Recipe
from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import MEND, cast_part, loading, read_config
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run
from dfdbench.utils.weights import fault_of, whole_numbers


class Trained(NamedTuple):
    """What training moves. ema: the average, where the recipe wants one. skeletons: see nets.py."""

    student: nn.Module
    fake_score: nn.Module
    ema: nn.Module | None
    skeletons: dict[str, nn.Module]


def trained_networks(
    recipe: Recipe, family: ModelFamily, parent: Run | None, group: Group
) -> Trained:
    """Student, fake score and average of a run, from `parent` or the teacher's own weights.

    Beyond one process they are cut, and so is the family's teacher.

    Raises:
        UserError: weights are damaged, absent or of another network.
    """
    layout = None if parent else recipe.student.layout
    if group.size == 1:
        if parent:
            student = family.load_student(parent.student)
        else:
            student = family.new_causal_module(layout) if layout else family.new_module()
        fake_score = family.load_network(parent.fake_score) if parent else family.new_module()
        ema = copy.deepcopy(student).requires_grad_(False) if recipe.optim.ema else None
        return Trained(student, fake_score, ema, {})
    own = family.path / "transformer"
    folders = {
        "student": parent.student / "transformer" if parent else own,
        "fake_score": parent.fake_score if parent else own,
    }
    empty = {
        "student": _empty_trained(family, folders["student"], layout),
        "fake_score": _empty_trained(family, folders["fake_score"]),
    }
    skeletons = {name: parallel.skeleton(module) for name, module in empty.items()}
    for name, module in empty.items():
        fill(family, module, folders[name], group)
    ema = None
    if recipe.optim.ema:
        ema = _empty_trained(family, folders["student"], layout)
        fill(family, ema, folders["student"], group)
        ema.requires_grad_(False)
    teacher = empty_network(family, own, family.dtype).eval().requires_grad_(False)
    fill(family, teacher, own, group)
    family.teacher = teacher
    return Trained(empty["student"], empty["fake_score"], ema, skeletons)


def empty_network(family: ModelFamily, folder: Path, dtype: torch.dtype) -> nn.Module:
    """The denoiser in `folder` by its config, without storage, adapted, in a loaded one's dtypes.

    Raises:
        UserError: there is no config, or one of another class.
    """
    network = family.network_in(folder)
    config = read_config(folder, network)
    with loading(folder), init_empty_weights():  # buffers that no file holds get their values
        module: nn.Module = network.from_config(config)
    return family.adapt(cast_part(network, module, dtype))


def _empty_trained(family: ModelFamily, folder: Path, layout: Layout | None = None) -> nn.Module:
    """One that is trained: float32, and precise where `load_network` makes it so.

    layout: makes it the causal variant of what lies in the folder.
    """
    module = empty_network(family, folder, torch.float32)
    if layout:
        return family.as_causal(module, layout).train()
    family.keep_precise(module)
    return module.train()


def fill(family: ModelFamily, module: nn.Module, folder: Path, group: Group) -> None:
    """Cut an empty network among the processes and read its weights from `folder`, in place.

    Raises:
        UserError: files lack a tensor, have one to spare or of another shape, are damaged, or hold
            what is no finite floating-point number.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    parallel.shard(module, family.blocks(module), group)
    with loading(folder):
        reader = HuggingFaceStorageReader(str(folder))
        stored = reader.read_metadata().state_dict_metadata
        there = {key: tuple(getattr(tensor, "size", ())) for key, tensor in stored.items()}
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    _check_names(family, folder, there, wanted)
    weights: dict[str, Tensor] = {
        key: torch.empty_like(tensor, device=group.device)
        for key, tensor in module.state_dict().items()
    }
    with loading(folder):
        checkpoint.run_dcp("load", weights, group, storage_reader=reader)
        module.load_state_dict(weights, assign=True)
        fault = whole_numbers(folder, weights) or fault_of(
            (key, getattr(tensor, "_local_tensor", tensor)) for key, tensor in weights.items()
        )
    if fault:
        raise UserError(f"{folder}: {fault}; {MEND}")


def _check_names(
    family: ModelFamily,
    folder: Path,
    there: dict[str, tuple[int, ...]],
    wanted: dict[str, tuple[int, ...]],
) -> None:
    """Refuse files that do not hold the tensors of the network, each in its shape, and no others.

    Args:
        there, wanted: shape by name, in the files and in the network.
    """
    ignored = family.network._keys_to_ignore_on_load_unexpected or ()
    spare = {k for k in there.keys() - wanted.keys() if not any(re.search(p, k) for p in ignored)}
    mismatched = {key for key in there.keys() & wanted.keys() if there[key] != wanted[key]}
    faults = {
        "missing": wanted.keys() - there.keys(),
        "mismatched": mismatched,
        "unexpected": spare,
    }
    for fault, keys in faults.items():
        if keys:
            raise UserError(
                f"{folder}: weights and config.json disagree ({len(keys)} {fault}, such as "
                f"{min(keys)}); {MEND}"
            )
