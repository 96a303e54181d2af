"""VBench's info files: which prompt is for which dimension, and which image it continues.

Used by suites/vbench.py. VBench_full_info.json (text to video) comes with the package vbench;
vbench2_i2v_full_info.json (image to video) is in VBench's repository only. Files with `_aug_` in
their names also hold an extended text of each prompt, to generate from: Self Forcing (2506.08009)
and others publish scores of such clips. Nothing of the package is imported.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from dfdbench.generate.suites.base import Prompt
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils.assets import cache_folders
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Name, Open, Text, read_json

T2V_NAME, I2V_NAME = "VBench_full_info.json", "vbench2_i2v_full_info.json"
EXTENDED = {T2V_NAME: "VBench_aug_full_info.json", I2V_NAME: "vbench2_i2v_aug_full_info.json"}
AUGMENTED = "https://github.com/NVlabs/AnyFlow"  # carries both files with extended texts
LONGEST = 60  # characters of an id that are read from the prompt

Key = tuple[str, str]  # text and image name


def _file_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError("not a file name")
    return name


def _dimension(name: str) -> str:
    if name not in DIMENSIONS:
        raise ValueError("not one of VBench's dimensions")
    return name


class Entry(Open):
    """One prompt of an info file; image_type and image_name are an image-to-video file's."""

    prompt_en: Annotated[Text, StringConstraints(pattern=r"\S")]
    dimension: Annotated[list[Annotated[str, AfterValidator(_dimension)]], Field(min_length=1)]
    auxiliary_info: dict[str, Any] = Field(default_factory=dict)
    image_type: str | None = None
    image_name: Annotated[Name, AfterValidator(_file_name)] | None = None
    aug_prompt_en: Annotated[Text, StringConstraints(pattern=r"\S")] | None = None


Entries = Annotated[list[Entry], Field(min_length=1)]


def find_info(extended: bool = False) -> Path:
    """VBench_full_info.json of the installed package vbench, else in VBench's cache.

    Args:
        extended: VBench_aug_full_info.json instead.

    Raises:
        UserError: it is in neither; the message says how to get it.
    """
    name = EXTENDED[T2V_NAME] if extended else T2V_NAME
    spec = find_spec("vbench")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    folders.append(cache_folders()[0])
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    if extended:
        raise UserError(
            f"no {name} (VBench's prompts with extended texts); get it from {AUGMENTED}, or add an "
            f"aug_prompt_en to each entry of {T2V_NAME}, and put it into {folders[-1]}; --suite "
            "vbench generates from the short prompts"
        )
    raise UserError(
        f"no {T2V_NAME} (VBench's prompts); get it with `pip install --no-deps vbench==0.1.5`, "
        f"or put the file into {folders[-1]}"
    )


def read_info(path: Path, extended: bool = False) -> tuple[Prompt, ...]:
    """The prompts of an info file, each text and image once, in the file's order.

    extended: clips are generated from the texts `aug_prompt_en`; ids and texts stay the same.

    Entries of one prompt are joined: their dimensions and auxiliary_info. An id is made of the
    text's words; those that were cut, or are shared by two prompts, end in a hash of the text.
    `attributes` hold image_type and image_name of an image-to-video file.

    Raises:
        UserError: no such file, or an entry that is not VBench's, or that has no extended text or
            another one than an entry of the same prompt; the message names it.
    """
    entries = read_json(path, Entries, f"get VBench's own {T2V_NAME} or {I2V_NAME}")
    joined: dict[Key, list[Entry]] = {}
    for number, entry in enumerate(entries):
        parts = joined.setdefault((entry.prompt_en, entry.image_name or ""), [])
        if extended and entry.aug_prompt_en is None:
            raise UserError(
                f"{path}: {number}: no 'aug_prompt_en' of {entry.prompt_en[:60]!r}; get VBench's "
                f"own file with extended texts, such as {EXTENDED[T2V_NAME]}"
            )
        if extended and parts and parts[0].aug_prompt_en != entry.aug_prompt_en:
            raise UserError(
                f"{path}: {number}: another 'aug_prompt_en' of {entry.prompt_en[:60]!r} than in an "
                "entry before; keep one of them"
            )
        parts.append(entry)
    ids = _ids(list(joined))
    prompts = (_prompt(ids[key], key[0], parts) for key, parts in joined.items())
    if not extended:
        return tuple(prompts)
    texts = (parts[0].aug_prompt_en or "" for parts in joined.values())
    return tuple(replace(p, long_text=text) for p, text in zip(prompts, texts, strict=True))


def _prompt(prompt_id: str, text: str, entries: Sequence[Entry]) -> Prompt:
    auxiliary: dict[str, Any] = {}
    for entry in entries:
        auxiliary |= entry.auxiliary_info
    return Prompt(
        prompt_id,
        text,
        entries[0].model_dump(include={"image_type", "image_name"}, exclude_none=True),
        tuple(dict.fromkeys(name for entry in entries for name in entry.dimension)),
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
