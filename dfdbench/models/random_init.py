"""A model from its config files alone: true sizes, random weights, nothing downloaded.

Used by the training plan, which runs it on tensors without storage, and by the benches.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dfdbench.models.defaults import DEFAULTS_FILE
from dfdbench.models.family import ModelFamily
from dfdbench.models.loading import MEND, draw_part
from dfdbench.models.published_configs import published_config, published_name, published_names
from dfdbench.models.registry import PACKAGED, load_family, resolve_folder
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import write_json
from dfdbench.utils.reading import read_json

COPIED = ("model_index.json", "transformer/config.json", "vae/config.json")
EMPTY = ("text_encoder", "tokenizer", "scheduler")


def _write_configs(model: str, folder: Path) -> None:
    """Write what a family reads of the model's configs."""
    if name := published_name(model):
        config = published_config(name)
        write_json(folder / "model_index.json", {"_class_name": config["pipeline"]})
        for part in ("transformer", "vae"):
            write_json(folder / part / "config.json", config[part])
        return
    if model not in PACKAGED and not Path(model).expanduser().exists():
        raise unknown_name("model without its weights", model, [*published_names(), *PACKAGED])
    source = resolve_folder(model)
    for file in COPIED:
        if not (source / file).is_file():
            raise UserError(f"{source} lacks {file}; give a diffusers folder or its config files")
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / file, folder / file)
    if (source / DEFAULTS_FILE).is_file():
        shutil.copyfile(source / DEFAULTS_FILE, folder / DEFAULTS_FILE)


@contextmanager
def random_init_family(
    model: str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    layers: int | None = None,
) -> Iterator[ModelFamily]:
    """The family of a model whose networks get random weights when they are first asked for.

    Args:
        model: a name in models/configs, the hub id of one, a packaged name, or a folder that holds
            at least model_index.json, transformer/config.json and vae/config.json.
        dtype: of the teacher.
        device: where the weights are drawn; "meta" gives networks without storage.
        layers: number of transformer blocks instead of the config's.

    Raises:
        UserError: nothing is known of `model`.
    """
    with tempfile.TemporaryDirectory(prefix="dfdbench-random-init-") as name:
        folder = Path(name)
        _write_configs(model, folder)
        for part in EMPTY:
            (folder / part).mkdir()
        if layers is not None:
            path = folder / "transformer" / "config.json"
            config = read_json(path, dict[str, Any], MEND) | {"num_layers": layers}
            path.write_text(json.dumps(config), encoding="utf-8")
        yield load_family(folder, dtype, device, partial(draw_part, device=torch.device(device)))
