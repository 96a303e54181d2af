"""Reads causal Wan students that other programs made.

A checkpoint of Self Forcing (2506.08009) is read by weight_files.py, a diffusers folder as it is.
Write the module as a diffusers folder with the family's `save_student`.
"""

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import read_config
from dfdbench.models.lora import is_lora
from dfdbench.models.weight_files import REMEDY, read_tensors, whole_weights
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import read_json

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
    check_same_model(path, module.config, family)
    if kind == family.network.__name__:
        return family.as_causal(module, layout or Layout())
    if layout not in (None, family.causal.layout(module)):
        raise UserError(
            f"{path}: was made with {family.causal.layout(module)}, asked for is {layout}; leave "
            "out --block-frames, --window and --sinks"
        )
    return module


def check_same_model(path: Path, config: Any, family: ModelFamily) -> None:
    """Refuse a network whose config is not the model's, which its run would name."""
    own = family.path / "transformer"
    with init_empty_weights():
        model: Any = family.network.from_config(read_config(own, family.network))
    for key, value in model.config.items():
        if not key.startswith("_") and key not in FREE and config.get(key) != value:
            raise UserError(
                f"{path}: its {key} is {config.get(key)}, the model's {value}; {REMEDY}"
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
    content = read_tensors(path)
    if lora := is_lora(content):
        raise UserError(
            f"{path}: is a LoRA (it has {lora}), no whole student; name how it is sampled by "
            "--card, or merge it into its base and give that"
        )
    weights = whole_weights(path, content, family)
    module = family.new_causal_module(layout or Layout())
    module.load_state_dict(weights)
    return module
