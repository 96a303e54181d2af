"""`dfdbench doctor`: what is installed and found, for a bug report or a first look."""

import os
import platform
from importlib import metadata
from typing import Any

from dfdbench import __version__
from dfdbench.errors import UserError
from dfdbench.models import resolve_folder

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pandas", "av", "decord")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _toy() -> str:
    try:
        folder = resolve_folder("toy-t2v")
    except UserError as error:
        return str(error)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"present, {size / 1e6:.1f} MB"


def examine() -> dict[str, Any]:
    """Versions, devices, decoders and the state of the toy's weights; imports torch and av."""
    import torch

    from dfdbench.recipe import shipped_recipes
    from dfdbench.suites import list_suites
    from dfdbench.video import decoders

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "dfdbench": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "cuda": cuda,
        "versions": {name: _version(name) for name in LIBRARIES},
        "decoders": decoders(),
        "toy-t2v": _toy(),
        "suites": [suite.name for suite in list_suites()],
        "recipes": shipped_recipes(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """`examine`'s result for people."""
    versions = ", ".join(f"{k} {v or 'missing'}" for k, v in found["versions"].items())
    return [
        f"dfdbench {found['dfdbench']}, Python {found['python']}, {found['system']}",
        f"GPU: {found['cuda'] or 'none (CPU only)'}",
        f"libraries: {versions}",
        f"video decoders: {', '.join(found['decoders'])}",
        f"toy-t2v: {found['toy-t2v']}",
        f"suites: {', '.join(found['suites'])}",
        f"recipes: {', '.join(found['recipes'])}",
    ]
