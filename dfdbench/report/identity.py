"""Which runs and stores are one arm: those of one name, one recipe and one model.

Used by collect.py and leaderboard/sources.py. Training seeds are the only thing that the runs of an
arm differ in. Runs of one name whose recipes differ (leaving the seed aside), or whose first stages
do, are different arms: `dfd` and `dfd · w=0.5`. Stores of one method with other clips of the same
prompts and seeds are too; they are told apart by their folders.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.distill.recipe import load_recipe, recipe_from_dict, shipped_recipes
from dfdbench.distill.sections import UNDECISIVE, Recipe
from dfdbench.report.arms import APART, REFERENCES
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import plain
from dfdbench.utils.run import Run

Flat = dict[str, str]
"""Dotted key → value as text."""
OWN_NAME = ("seed", "arm", "method")
FIRST_STAGE = "first stage."
MOST = 3  # differences in a name


class Member(NamedTuple):
    """A run, or one method of a store.

    info: its run.json, None for a plain store. path: folder of the run or store. clips: sha256 of
    each clip by what tells clips of an arm apart, such as (prompt id, seed).
    """

    arm: str
    training_seed: int | None
    path: Path
    info: Mapping[str, Any] | None = None
    clips: Mapping[Hashable, str] = {}


def named_by_recipe(members: Sequence[Member]) -> list[str]:
    """The arm of each member: its own name, and behind it what of its recipe differs.

    Of the recipes under one name that nearest to a shipped one keeps the name alone.
    """
    ids = {str(m.info.get("id")): m for m in members if m.info and m.info.get("id")}
    names = [member.arm for member in members]
    for arm in dict.fromkeys(names):
        group = [i for i, m in enumerate(members) if m.arm == arm and m.info and _recipe(m.info)]
        facts = {i: _facts(members[i], ids) for i in group}
        if not all(any(key.startswith(FIRST_STAGE) for key in f) for f in facts.values()):
            # What only some of them say cannot tell them apart.
            facts = {i: _without_first_stage(f) for i, f in facts.items()}
        kinds = list({json.dumps(f, sort_keys=True): f for f in facts.values()}.values())
        if len(kinds) < 2:
            continue
        base = min(kinds, key=_distance)
        texts = _texts(base, kinds)
        for i in group:
            text = texts[kinds.index(facts[i])]
            names[i] = f"{arm}{APART}{text}" if text else arm
    return names


def named_by_clips(members: Sequence[Member], names: Sequence[str]) -> list[str]:
    """`names`, but those of members with other clips of the same key get their folder behind."""
    result = list(names)
    groups: dict[tuple[str, int | None], list[int]] = {}
    for i, member in enumerate(members):
        groups.setdefault((names[i], member.training_seed), []).append(i)
    for (name, _), group in groups.items():
        seen: dict[Hashable, str] = {}
        apart = False
        for i in group:
            clips = members[i].clips
            apart |= any(seen.get(key, sha) != sha for key, sha in clips.items())
            seen |= clips
        if apart:
            first = 1 if name in REFERENCES else 0  # the first stays what others are compared with
            folders = _distinct([members[i].path for i in group])
            for i, folder in list(zip(group, folders, strict=True))[first:]:
                result[i] = f"{name}{APART}{folder}"
    return result


def recipe_digest(info: Mapping[str, Any]) -> str | None:
    """The digest of a run's recipe without its training seed; None without a recipe."""
    recipe = _recipe(info)
    if recipe is None:
        return None
    with suppress(UserError):
        return recipe_from_dict({**recipe, "seed": 0}).digest()
    return None


def _recipe(info: Mapping[str, Any]) -> dict[str, Any] | None:
    recipe = info.get("recipe")
    return recipe if isinstance(recipe, dict) and recipe else None


def _facts(member: Member, ids: Mapping[str, Member]) -> Flat:
    """What decides the weights of a run: its recipe and that of its first stage, as flat texts."""
    info = member.info or {}
    facts = _decisive(_recipe(info) or {})
    parent = info.get("parent")
    if isinstance(parent, dict):
        before = _parent(member.path, parent, ids)
        if recipe := _recipe(before) if before else None:
            facts |= {FIRST_STAGE + key: value for key, value in _decisive(recipe).items()}
    return facts


def _parent(
    path: Path, parent: Mapping[str, Any], ids: Mapping[str, Member]
) -> Mapping[str, Any] | None:
    """run.json of the first stage: among the members, else where the run says that it lies."""
    if known := ids.get(str(parent.get("id"))):
        return known.info
    with suppress(UserError, OSError, ValueError):
        info = Run.open(path / str(parent.get("path", ""))).info
        return info if info.get("id") == parent.get("id") else None
    return None


def _decisive(recipe: Mapping[str, Any]) -> Flat:
    with suppress(UserError):
        read = recipe_from_dict(dict(recipe))
        recipe = read.as_dict() | {"gan": plain(read.gan)}  # also where it has none
    flat = _flat(recipe)
    dropped = (*OWN_NAME, *UNDECISIVE)
    return {k: v for k, v in flat.items() if not any(f"{k}.".startswith(f"{d}.") for d in dropped)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Flat:
    flat: Flat = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _text(value)
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return Path(value).name if value.startswith(("/", "~", ".")) else value
    return json.dumps(value)


@cache
def _shipped() -> tuple[Flat, ...]:
    recipes: list[Recipe] = [load_recipe(name) for name in shipped_recipes()]
    return tuple(_decisive(recipe.as_dict()) for recipe in recipes)


def _distance(facts: Flat) -> int:
    """From how many values of the nearest shipped recipe a recipe departs."""
    own = _without_first_stage(facts)
    return min(len(_different(own, shipped)) for shipped in _shipped())


def _without_first_stage(facts: Flat) -> Flat:
    return {key: value for key, value in facts.items() if not key.startswith(FIRST_STAGE)}


def _different(a: Flat, b: Flat) -> list[str]:
    return [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _texts(base: Flat, kinds: Sequence[Flat]) -> list[str]:
    """For each recipe how it differs from `base`, "" for `base` itself; no two are alike."""
    texts = list[str]()
    for facts in kinds:
        keys = _different(facts, base)
        keys = [key for key in keys if not key.startswith(FIRST_STAGE)] or keys
        pairs = [f"{_short(key, keys)}={facts.get(key, 'none')}" for key in keys]
        text = ", ".join(pairs[:MOST]) + (f", {len(keys) - MOST} more" if keys[MOST:] else "")
        alike = sum(other == text or other.startswith(f"{text} (") for other in texts)
        texts.append(f"{text} ({alike + 1})" if alike else text)
    return texts


def _short(key: str, keys: Sequence[str]) -> str:
    """The last part of a key where no other has it too."""
    last = key.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
    first = FIRST_STAGE.replace(".", " ") if key.startswith(FIRST_STAGE) else ""
    return first + last if alone else key.replace(FIRST_STAGE, first)


def _distinct(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [f"{paths[i].name} ({i + 1})" for i in range(len(paths))]
