"""VBench's info files: which prompt is for which dimension, and which image it continues.

Used by suites/vbench.py. VBench_full_info.json (text to video) comes with the package vbench;
vbench2_i2v_full_info.json (image to video) is in VBench's repository only. Nothing of the package
is imported.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfdbench.generate.suites.base import Prompt
from dfdbench.utils.assets import cache_folders
from dfdbench.utils.errors import UserError

T2V_NAME, I2V_NAME = "VBench_full_info.json", "vbench2_i2v_full_info.json"
IMAGE_KEYS = ("image_type", "image_name")
LONGEST = 60  # characters of an id that are read from the prompt

Key = tuple[str, str]  # text and image name


def find_info() -> Path:
    """VBench_full_info.json of the installed package vbench, else in VBench's cache.

    Raises:
        UserError: it is in neither; the message says how to get it.
    """
    spec = find_spec("vbench")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    folders.append(cache_folders()[0])
    for folder in folders:
        if (folder / T2V_NAME).is_file():
            return folder / T2V_NAME
    raise UserError(
        f"no {T2V_NAME} (VBench's prompts); get it with `pip install --no-deps vbench==0.1.5`, "
        f"or put the file into {folders[-1]}"
    )


def read_info(path: Path) -> tuple[Prompt, ...]:
    """The prompts of an info file, each text and image once, in the file's order.

    Entries of one prompt are joined: their dimensions and auxiliary_info. An id is made of the
    text's words; those that were cut, or are shared by two prompts, end in a hash of the text.
    `attributes` hold image_type and image_name of an image-to-video file.

    Raises:
        UserError: no such file, or an entry that is not VBench's; the message names it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as VBench's info file in JSON") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: not a list of prompts; get VBench's own {T2V_NAME} or {I2V_NAME}")
    joined: dict[Key, list[Mapping[str, Any]]] = {}
    for place, entry in enumerate(entries):
        if fault := _fault(entry):
            raise UserError(f"{path}: entry {place} {fault}; get VBench's own file")
        joined.setdefault((entry["prompt_en"], entry.get("image_name", "")), []).append(entry)
    ids = _ids(list(joined))
    return tuple(_prompt(ids[key], key[0], parts) for key, parts in joined.items())


def _fault(entry: Any) -> str:
    """What is wrong with an entry, in words; empty if nothing is."""
    from dfdbench.generate.suites.dimensions import DIMENSIONS

    if not isinstance(entry, dict):
        return "is no object"
    text, dimensions = entry.get("prompt_en"), entry.get("dimension")
    if not isinstance(text, str) or not text.strip():
        return "has no prompt_en"
    if not isinstance(dimensions, list) or not dimensions:
        return "has no list of dimensions"
    if unknown := [name for name in dimensions if name not in DIMENSIONS]:
        return f"asks for an unknown dimension {unknown[0]!r}"
    if not isinstance(entry.get("auxiliary_info", {}), dict):
        return "has an auxiliary_info that is no object"
    for key in IMAGE_KEYS:
        if not isinstance(entry.get(key, ""), str):
            return f"has an {key} that is no text"
    name = entry.get("image_name", "")
    return f"names the image {name!r}, which is no file name" if Path(name).name != name else ""


def _prompt(prompt_id: str, text: str, entries: Sequence[Mapping[str, Any]]) -> Prompt:
    auxiliary: dict[str, Any] = {}
    for entry in entries:
        auxiliary |= entry.get("auxiliary_info", {})
    return Prompt(
        prompt_id,
        text,
        {key: entries[0][key] for key in IMAGE_KEYS if key in entries[0]},
        tuple(dict.fromkeys(name for entry in entries for name in entry["dimension"])),
        auxiliary,
    )


def _ids(keys: Sequence[Key]) -> dict[Key, str]:
    slugs = {key: _slug(key[0]) for key in keys}
    shared = Counter(slug[:LONGEST] for slug in slugs.values())
    ids = {}
    for key, slug in slugs.items():
        ids[key] = slug
        if len(slug) > LONGEST or shared[slug] > 1 or not slug:
            digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:8]
            ids[key] = f"{slug[:LONGEST].rstrip('-')}-{digest}".lstrip("-")
    return ids


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
