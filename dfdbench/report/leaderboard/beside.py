"""What may lie beside an entry's evidence: the recipe of its training, and some of its clips.

    recipes/<board>/<id>.json               the recipe of one of its runs, as run.json has it
    clips/<board>/<id>/<prompt>/<seed>.mp4  clips of its first training seed

Neither is needed. A recipe is proven by the digest that the entry keeps of its runs' recipes; of
clips nothing is proven, for an entry keeps one hash of all. Used by submit.py, verify.py and the
site.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.distill.recipe import recipe_from_dict
from dfdbench.report.leaderboard.entries import Measured, text_faults
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import read_json

REMEDY = "remove it, or submit the entry again"
SUFFIX = ".mp4"


class Clip(NamedTuple):
    """A clip beside an entry: its prompt's id, its seed, its file."""

    prompt: str
    seed: str
    file: Path


def recipe_file(board: str, name: str) -> str:
    """Path of an entry's recipe below the folder of leaderboards."""
    return f"recipes/{board}/{name}.json"


def clips_folder(board: str, name: str) -> str:
    """Folder of an entry's clips below the folder of leaderboards."""
    return f"clips/{board}/{name}"


def read_recipe(folder: Path, entry: Measured) -> dict[str, Any] | None:
    """The recipe beside an entry, None where there is none.

    Raises:
        UserError: it is no JSON object, or not the recipe of any run of the entry.
    """
    path = folder / recipe_file(entry.board, entry.id)
    if not path.is_file():
        return None
    recipe = read_json(path, dict[str, Any], REMEDY)
    known = {getattr(run, "recipe_digest", None) for run in entry.provenance.runs}
    if known.isdisjoint(digests(recipe)):
        raise UserError(f"{path}: not the recipe of a run of the entry (its digest); {REMEDY}")
    for fault in text_faults(recipe):
        raise UserError(f"{path}: {fault}")
    return recipe


def digests(recipe: Mapping[str, Any]) -> set[str]:
    """The digests that a recipe may go by: today's, and that of runs before [gan] was a section."""
    own = {k: v for k, v in recipe.items() if k not in ("checkpoint", "log")}
    found = {hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]}
    try:
        return found | {recipe_from_dict(dict(recipe)).digest()}
    except (UserError, ValueError, TypeError):
        return found


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A recipe as dotted keys and texts; a value that is none is left out."""
    result: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return result


def clips_of(folder: Path, entry: Measured) -> list[Clip]:
    """The clips beside an entry, by prompt and seed; links are none."""
    own = folder / clips_folder(entry.board, entry.id)
    found = [
        Clip(path.parent.name, path.stem, path)
        for path in own.glob(f"*/*{SUFFIX}")
        if path.is_file() and not path.name.startswith(".")
        and not any(part.is_symlink() for part in (path, path.parent, own))
    ]  # fmt: skip
    return sorted(found, key=lambda c: (c.prompt, not c.seed.isdecimal(), c.seed.zfill(20)))


def strays(folder: Path, known: set[tuple[str, str]]) -> Iterator[str]:
    """A fault for each recipe and folder of clips that no entry (board, id) of `known` has."""
    for kind, pattern in (("recipes", "*/*.json"), ("clips", "*/*")):
        for path in sorted((folder / kind).glob(pattern)):
            name = path.stem if kind == "recipes" else path.name
            if (path.parent.name, name) not in known and not path.name.startswith("."):
                place = path.relative_to(folder).as_posix()
                yield f"{place}: of no measured entry; remove it or add the entry again"
