"""Reads training recipes: TOML plus `--set a.b=c`, checked key by key.

Used by `dfdbench distill` and whatever opens a run. Shipped recipes lie in baselines/ of the
repository (dfdbench/_baselines in a wheel) and are named by their path there: "toy/dfd".
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import create_model

from dfdbench.distill.previous import modern
from dfdbench.distill.sections import Recipe
from dfdbench.utils.errors import UserError, clean, unknown_name
from dfdbench.utils.reading import Outside, plain, read_toml, validate

STUDIES = "studies"  # folders of baselines that hold studies (cli/study.py), not recipes
CARDS = "cards"  # the folder of baselines that holds cards of public students (cards.py)
REMEDY = "correct it in the recipe or --set"


def baselines_folder() -> Path:
    """Where the shipped recipes lie: the repository's baselines/, or the wheel's copy."""
    package = Path(__file__).parents[1]
    for folder in (package / "_baselines", package.parent / "baselines"):
        if folder.is_dir():
            return folder
    raise UserError(f"no recipes beside {package}; reinstall dfdbench")


def shipped_recipes() -> list[str]:
    """Names of the shipped recipes, such as "toy/dfd"."""
    folder = baselines_folder()
    files = [p.relative_to(folder) for p in folder.rglob("*.toml")]
    others = {STUDIES, CARDS}
    return sorted(f.with_suffix("").as_posix() for f in files if others.isdisjoint(f.parts))


def find_recipe(name: str | Path) -> Path:
    """The TOML file of a path or of a shipped name; UserError with near names if neither."""
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise UserError(
            f"recipe {path} does not exist; shipped ones: {', '.join(shipped_recipes())}"
        )
    if str(name) not in shipped_recipes():
        raise unknown_name("recipe", str(name), shipped_recipes())
    return baselines_folder() / f"{name}.toml"


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a TOML file or a shipped name such as "toy/dfd".
        overrides: `--set` values such as "dfd.p=0.3" or "init.recipe=''".

    Raises:
        UserError: no such recipe, broken TOML, an unknown key (with near ones), a bad value, or a
            value of another method's section.
    """
    path = find_recipe(name)
    values = dict(_flat(read_toml(path, dict[str, Any], REMEDY)))
    for assignment in overrides:
        values |= _flat(_assigned(assignment))
    table = _nested(modern(values))
    _refuse_other_methods(table, path)
    return _recipe(table, path)


def recipe_from_dict(table: dict[str, Any], origin: str | Path = "recipe") -> Recipe:
    """A recipe from nested plain values, as `Recipe.as_dict` gives them.

    The previous version's are read too, which hold every method's section.
    """
    return _recipe(_nested(modern(dict(_flat(table)))), origin)


def _recipe(table: dict[str, Any], origin: str | Path) -> Recipe:
    from dfdbench.distill.methods import get_method, method_names

    if "method" not in table:
        raise UserError(f"{origin} lacks the key 'method'; add method = \"dmd2\"")
    name = str(table["method"])
    method = get_method(name)
    used = {key: table[key] for key in table if key == name or key not in method_names()}
    kind = _form(name, method.Options)  # type: ignore[arg-type]
    form = validate(kind, used, origin, REMEDY, strictly=True)
    values = {key: getattr(form, key) for key in type(form).model_fields}
    recipe = Recipe(options=values.pop(name), **values)
    _check_stage(recipe, hasattr(method, "fake_score_loss"), origin)
    if recipe.gan.weight and not method.uses_gan(recipe):
        raise UserError(f"{origin}: gan.weight: method {name} has no GAN; leave the key out")
    return recipe


def _check_stage(recipe: Recipe, has_fake_score: bool, origin: str | Path) -> None:
    """Refuse a fake score that is never updated, updates of one that the method has not, and a
    causal student that does not learn from its own rollouts, which are what it is sampled by."""
    freq, student = recipe.schedule.student_update_freq, recipe.student
    fault = ""
    if has_fake_score and freq == 1:
        fault = "schedule.student_update_freq is 1, so the fake score is never updated; make it 2"
    if freq > 1 and not has_fake_score:
        fault = (
            f"schedule.student_update_freq is {freq}, but {recipe.method} has no fake score to "
            "update; make it 1"
        )
    if has_fake_score and student.layout and student.input != "self_forcing":
        fault = (
            f'student.input is "{student.input}", but a causal student learns from its rollouts; '
            'make it "self_forcing"'
        )
    if fault:
        raise UserError(f"{origin}: {fault}: {REMEDY}")


@cache
def _form(name: str, options: Any) -> type[Outside]:
    """What a recipe's file may hold: the sections of every recipe, and the method's own."""
    hints = get_type_hints(Recipe, include_extras=True)
    shared = [item for item in fields(Recipe) if item.name != "options"]
    form: dict[str, Any] = {
        item.name: (hints[item.name], ... if item.name == "method" else item.default)
        for item in shared
    }
    form[name] = (options, options())
    return create_model("Recipe", __base__=Outside, **form)


def _refuse_other_methods(table: dict[str, Any], origin: Path) -> None:
    """Sections of other methods must be as if not given: at their defaults."""
    from dfdbench.distill.methods import get_method, method_names

    for name in {*method_names()} & table.keys() - {str(table.get("method"))}:
        defaults = dict(_flat({name: plain(get_method(name).Options())}))
        for key, value in _flat({name: table[name]}):
            if key not in defaults or value != defaults[key]:
                raise UserError(
                    f"{origin}: {key} is an option of {name}, the recipe's method is "
                    f"{table.get('method')}; {REMEDY}"
                )


def _flat(table: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested tables."""
    for key, value in table.items():
        if isinstance(value, dict) and (value or not prefix):  # a section may be empty, no value
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Tables of dotted keys; UserError where a key is both a value and a section."""
    root: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        table = root
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise UserError(f"recipe key '{key}': '{section}' is not a section; {REMEDY}")
        table[last] = value
    return root


def _assigned(assignment: str) -> dict[str, Any]:
    """`a.b=value` of --set as {"a.b": value}: TOML, else a bare word is a string, "none" unset."""
    key, equals, text = (part.strip(" ") for part in assignment.partition("="))
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key, re.ASCII):
        raise UserError(f"--set {assignment} is not KEY=VALUE; write --set dfd.p=0.5")
    if clean(text) != text:  # a line end would begin another key
        raise UserError(f"--set {key}: its value {text!r} is more than one line; give one value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return {key: None if text.lower() == "none" else text}
    except (ValueError, RecursionError) as error:  # a number of 10,000 digits, brackets in brackets
        raise UserError(f"--set {key}: no value ({error}); {REMEDY}") from None
    if value == {}:
        raise UserError(f"--set {key}: an empty table is no value; {REMEDY}")
    return {key: value}
