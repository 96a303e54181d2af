"""A model from its config files alone: true sizes, random weights, nothing downloaded.

Used by the training plan, which runs it on tensors without storage, and by the benches.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dfdbench.models.family import DEFAULTS_FILE, ModelFamily
from dfdbench.models.loading import random_weights, read_json
from dfdbench.models.published_configs import known_shapes, real_config
from dfdbench.models.registry import PACKAGED, load_family, resolve_folder
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import write_json

COPIED = ("model_index.json", "transformer/config.json", "vae/config.json")
EMPTY = ("text_encoder", "tokenizer", "scheduler")


class Blank(NamedTuple):
    """A family without weights of its own, and the (L, D) of its prompt embeddings."""

    family: ModelFamily
    text: tuple[int, int]


def _text_width(transformer: dict[str, Any]) -> int:
    """D of the prompt embeddings that a transformer takes (Wan, Cosmos-Predict2.5)."""
    if transformer.get("use_crossattn_projection"):
        return int(transformer["crossattn_proj_in_channels"])
    return int(transformer.get("text_dim") or transformer["text_embed_dim"])


def _shape_of(model: str) -> str | None:
    """The name in models/configs of a shape or of a repository's id (with or without revision)."""
    for name in known_shapes():
        repository = real_config(name)["repository"]
        if model in (name, repository, repository.partition("@")[0]):
            return name
    return None


def _write_configs(model: str, folder: Path) -> tuple[int, int] | None:
    """Write what a family reads of its configs; the text's (L, D) where the facts state it."""
    if name := _shape_of(model):
        facts = real_config(name)
        write_json(folder / "model_index.json", {"_class_name": facts["pipeline"]})
        for part in ("transformer", "vae"):
            write_json(folder / part / "config.json", facts[part])
        return facts["text"]["tokens"], facts["text"]["width"]
    if model not in PACKAGED and not Path(model).expanduser().exists():
        raise unknown_name("model without its weights", model, [*known_shapes(), *PACKAGED])
    source = resolve_folder(model)
    for file in COPIED:
        if not (source / file).is_file():
            raise UserError(f"{source} lacks {file}; give a diffusers folder or its config files")
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / file, folder / file)
    if (source / DEFAULTS_FILE).is_file():
        shutil.copyfile(source / DEFAULTS_FILE, folder / DEFAULTS_FILE)
    return None


@contextmanager
def blank_family(
    model: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    layers: int | None = None,
) -> Iterator[Blank]:
    """The family of a model whose networks get random weights when they are first asked for.

    Args:
        model: a name in models/configs, the hub id of one, a packaged name, or a folder that holds
            at least model_index.json, transformer/config.json and vae/config.json.
        dtype: of the teacher.
        layers: number of transformer blocks instead of the config's.

    Raises:
        UserError: nothing is known of `model`.
    """
    with tempfile.TemporaryDirectory(prefix="dfdbench-blank-") as name:
        folder = Path(name)
        text = _write_configs(model, folder)
        for part in EMPTY:
            (folder / part).mkdir()
        path = folder / "transformer" / "config.json"
        config = read_json(path)
        if layers is not None:
            path.write_text(json.dumps(config | {"num_layers": layers}), encoding="utf-8")
        with random_weights(device):
            family = load_family(folder, dtype, device)
            length = text or (family.defaults.max_sequence_length, _text_width(config))
            yield Blank(family, length)
