"""Published models without their weights: config keys as their repositories have them.

Used where a model is needed at its true size before, or without, a download: the training plan, the
benches with random weights and the tests of the folder layouts. The files in configs/ hold facts
only: what the repository's own config files say, without the version of diffusers that wrote them.
"""

import json
from pathlib import Path
from typing import Any

from dfdbench.utils.errors import unknown_name

CONFIGS = Path(__file__).parent / "configs"


def published_names() -> list[str]:
    """Names that `published_config` takes."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def published_config(name: str) -> dict[str, Any]:
    """Facts about a published checkpoint, such as "wan2.1-t2v-1.3b".

    Returns:
        repository: hub id. pipeline: `_class_name` of model_index.json. transformer, vae,
        scheduler: keys and values of their config files, with `_class_name`; the 14B has no
        scheduler. text: tokens and width of the prompt embedding (L, D). clip: frames, height,
        width (pixels) and fps that it is trained for here. latents: channels, frames, height and
        width of such a clip.

    Raises:
        UserError: no such name; near ones are offered.
    """
    if name not in published_names():
        raise unknown_name("published model", name, published_names())
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return config


def published_name(model: str) -> str | None:
    """The name of a model that is given by it or by its hub id, with or without a revision."""
    for name in published_names():
        repository = published_config(name)["repository"]
        if model in (name, repository, repository.partition("@")[0]):
            return name
    return None
