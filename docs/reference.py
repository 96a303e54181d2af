"""The parts of the documentation that come from the code: metrics, keys, methods, commands, plans.

`make docs` puts each in the place of its line `<!-- generated: NAME -->` (hooks.py).
"""

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from typer.main import get_command

from dfdbench.cli.app import app
from dfdbench.distill.methods import get_method, method_names
from dfdbench.distill.plan import GIB, choose_gpu, make_plan
from dfdbench.distill.recipe import load_recipe, shipped_recipes
from dfdbench.distill.sections import Recipe
from dfdbench.evaluate.metrics import FAMILY_NAMES, Metric, get_family
from dfdbench.evaluate.metrics.registry import FAMILIES
from dfdbench.generate.suites import find_suites
from dfdbench.utils.assets import ASSETS, readable

ROOT = Path(__file__).parents[1]
ARROWS = {"higher": "↑", "lower": "↓", "nearest_reference": "≈"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LARGEST = 2**53  # a bound that only keeps integers exact in JSON
PLANNED = ("wan2.1-t2v-1.3b/dmd2", "wan2.1-t2v-1.3b/dfd", "wan2.1-t2v-1.3b/dp_dmd",
           "cosmos-predict2.5-2b/dmd2", "cosmos-predict2.5-2b/dfd")  # fmt: skip
GPUS, GPU, PRICE = 8, "h100", 3.0  # of the table of plans; dollars an hour


def prose(text: str) -> str:
    """`text` in one line, its signs of Markdown and HTML taken as signs, code spans as code."""
    spans = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(
        span if span.startswith("`") else re.sub(r"([*_|\[\]])", r"\\\1", span).replace("<", "&lt;")
        for span in spans
    )


def code(text: object) -> str:
    """`text` as a code span that a cell of a table can hold."""
    return f"`{str(text).replace('|', '/')}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def paragraphs(doc: str | None) -> list[str]:
    """The paragraphs of a docstring; an indented one is code."""
    return re.split(r"\n\s*\n", inspect.cleandoc(doc or ""))


def metrics() -> str:
    """Every family and every metric of the registry."""
    return "\n\n".join(map(_family, FAMILY_NAMES))


def _family(name: str) -> str:
    family = get_family(name)
    weights = [code(a.name) for a in ASSETS.values() if name in a.unlocks]
    facts = f"Frames: {code(family.policy)}."
    if family.needs:
        facts += f" Needs of a clip: {', '.join(family.needs)}."
    if weights:
        facts += f" Weights: {', '.join(weights)}."
    rows = [
        (
            f"{code(m.name)} {ARROWS[m.direction] if m.kind == 'score' else ''}",
            prose(m.definition) if m.kind == "score" else f"{prose(m.definition)} Not in tables.",
            _values_of(m),
            prose(m.source),
        )
        for m in family.metrics
    ]
    what = prose(paragraphs(import_module(FAMILIES[name]).__doc__)[0])
    return "\n\n".join(
        [f"### {name}", what, facts, table(("metric", "definition", "values", "source"), rows)]
    )


def _values_of(metric: Metric) -> str:
    per = {"video": "a clip", "prompt": "a prompt", "pooled": "a method"}[metric.level]
    low, high = metric.range
    return f"{low:g} to {high:g}{' ' * bool(metric.unit)}{prose(metric.unit)}, {per}"


def recipe_keys() -> str:
    """Every key of a recipe, the methods' own sections last."""
    hints = get_type_hints(Recipe, include_extras=True)
    top = [f for f in fields(Recipe) if not is_dataclass(f.default) and f.name != "options"]
    text = [f"### top level\n\n{table(KEY_HEAD, _keys(Recipe, top))}"]
    sections = {f.name: hints[f.name] for f in fields(Recipe) if is_dataclass(f.default)}
    del sections["options"]
    sections |= {name: get_method(name).Options for name in method_names()}
    for name, section in sections.items():
        own = fields(section)
        if own:
            what = prose(section.__doc__ or "")
            text.append(f"### {name}\n\n{what}\n\n{table(KEY_HEAD, _keys(section, own))}")
    return "\n\n".join(text)


KEY_HEAD = ("key", "values", "default", "what it is")


def _keys(section: type, own: Iterable[Field[Any]]) -> Iterator[tuple[str, ...]]:
    schemas = TypeAdapter(section).json_schema(by_alias=True)["properties"]
    names = dict(zip((item.name for item in fields(section)), schemas, strict=True))  # "lambda"
    comments = comments_of(section)
    for item in own:
        name = names[item.name]
        default = "required" if item.default is MISSING else code(as_toml(item.default))
        yield code(name), allowed(schemas[name]), default, prose(comments[item.name])


def as_toml(value: Any) -> str:
    """A default as a recipe would have it; "unset" where no value stands for itself."""
    return "unset" if value is None else json.dumps(value)


def allowed(schema: dict[str, Any]) -> str:
    """A JSON schema of a value in words: "integer ≥ 1", `"x0"` or `"score"`."""
    if "anyOf" in schema:
        return " or ".join(allowed(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(code(json.dumps(v)) for v in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array":
        items = schema.get("prefixItems", [schema.get("items", {})])
        return f"list of {allowed(items[0])}" + f", {len(items)} of them" * (len(items) > 1)
    bounds = [f"{sign} {schema[key]:,}" for key, sign in BOUNDS.items()
              if key in schema and abs(schema[key]) < LARGEST]  # fmt: skip
    name = {"null": "unset", "string": "text", "number": "number"}.get(kind, kind)
    return f"{name} {', '.join(bounds)}".strip()


def comments_of(section: type) -> dict[str, str]:
    """What the comments above and behind each field of a dataclass say; "" where there is none."""
    lines = inspect.getsource(section).splitlines()
    found = {}
    for node in ast.parse(inspect.cleandoc("\n".join(lines))).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while lines[first - 1].strip().startswith("#"):
                first -= 1
            own = lines[first : node.end_lineno]
            found[node.target.id] = " ".join(
                line.partition("# ")[2].removesuffix("fmt: skip").strip() for line in own
            ).strip()
    return found


def recipes() -> str:
    """The shipped recipes with their files."""
    rows = []
    for name in shipped_recipes():
        recipe = load_recipe(name)
        link = f"[`{name}`](../baselines/{name}.toml)"
        rows.append((link, code(recipe.method), code(recipe.model), recipe.init.recipe or "—"))
    return table(("recipe", "method", "model", "first stage"), rows)


def methods() -> str:
    """Every registered method: what its file says of it, and which recipes use it."""
    used: dict[str, list[str]] = {name: [] for name in method_names()}
    for name in shipped_recipes():
        used[load_recipe(name).method].append(code(name))
    text = []
    for name in method_names():
        method = get_method(name)
        text += [f"### {name}", *map(prose, paragraphs(method.__doc__))]
        text.append(f"Student loss: {prose(method.student_loss.__doc__ or '')}")
        if fields(method.Options):
            text.append(f"Options: [`[{name}]`](recipes.md#{name}).")
        text.append(f"Recipes: {', '.join(used[name]) or 'none is shipped'}.")
    return "\n\n".join(text)


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n\n".join(_commands(get_command(app), "dfdbench"))


def _commands(command: Any, path: str) -> Iterator[str]:
    below = getattr(command, "commands", {})
    if path != "dfdbench" and (not below or command.invoke_without_command):
        yield f"### {path}"
        for paragraph in paragraphs(command.help):
            head, is_example, line = paragraph.partition("Example: ")
            yield f"```console\n$ {line}\n```" if is_example and not head else prose(paragraph)
        context = command.make_context(path, [], resilient_parsing=True)
        helped = [p.get_help_record(context) for p in command.params]  # None of a hidden one
        rows = [(code(name), prose(text)) for name, text in filter(None, helped)]
        yield table(("argument or option", "what it is"), rows)
    for name, one in below.items():
        yield from _commands(one, f"{path} {name}")


def suites() -> str:
    """The suites; those that need files of VBench are named where these are not installed."""
    here, absent = find_suites()
    rows = [
        (code(s.name), str(len(s.prompts) or "yours"), str(len(s.seeds) or "yours"),
         prose(s.description), ", ".join(map(code, s.metrics)))
        for s in here
    ]  # fmt: skip
    rows += [(code(name), "VBench's", "VBench's", "see [VBench](vbench.md)", "") for name in absent]
    return table(("suite", "prompts", "seeds", "what it is", "metric families"), rows)


def assets() -> str:
    """Every file from outside that metrics or models need."""
    rows = [
        (code(a.name), readable(a.size), prose(a.licence),
         ", ".join(map(code, a.unlocks or a.dimensions)) or prose(a.use))
        for a in ASSETS.values()
    ]  # fmt: skip
    return table(("asset", "size", "licence", "what needs it"), rows)


def plans() -> str:
    """What `dfdbench plan` gives for the recipes of large models."""
    rows = []
    for name in PLANNED:
        plan = make_plan(load_recipe(name), GPUS, choose_gpu(GPU, None, None), first=False)
        hours = plan["hours"] * GPUS
        rows.append(
            (code(name), str(plan["student_updates"]),
             f"{plan['memory_bytes']['total'] / GIB:.1f} GiB",
             f"{plan['seconds_a_student_update']:.1f} s", f"{plan['hours']:.1f}",
             f"{hours:.0f}", f"{hours * PRICE:,.0f} $", f"{plan['mfu']:.0%}")
        )  # fmt: skip
    head = ("recipe", "student updates", "memory of a GPU", "a student update", "hours",
            "GPU-hours", f"at {PRICE:g} $ a GPU-hour", "share of the peak assumed")  # fmt: skip
    return table(head, rows)


def house() -> str:
    """The section of CONTRIBUTING.md on the rooms."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.split("## The house\n", 1)[1].split("\nThe three examples", 1)[0].strip()


GENERATED: dict[str, Callable[[], str]] = {
    "metrics": metrics,
    "recipe keys": recipe_keys,
    "recipes": recipes,
    "methods": methods,
    "commands": commands,
    "suites": suites,
    "assets": assets,
    "plans": plans,
    "house": house,
}
