"""`dfdbench list`, `explain` and `doctor`: what there is, what it means, what is missing."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from dfdbench.cli import options
from dfdbench.cli.options import Json, completed, show
from dfdbench.utils.errors import UserError

Row = dict[str, str]
CARD = "card"


class Kind(StrEnum):
    """What can be listed."""

    METRICS = "metrics"
    SUITES = "suites"
    RECIPES = "recipes"
    METHODS = "methods"
    MODELS = "models"
    CARDS = "cards"


def list_names(
    what: Annotated[Kind, typer.Argument(help="Which names.")], as_json: Json = False
) -> None:
    """List the names that other commands take, such as metrics, recipes or cards of students.

    Example: dfdbench list metrics
    """
    from dfdbench.cli.doctor import table

    rows = ROWS[what]()
    text = table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    show(rows, as_json, "\n".join(text))


def explain(
    metric: Annotated[
        str,
        typer.Argument(
            help="Such as hue_entropy; or the word card.", autocompletion=completed(options.metrics)
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(help="Of the card, or its file.", autocompletion=completed(options.cards)),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a metric is: definition, direction, unit, range, source, version, needs, default.

    With `card NAME`: how a public student is sampled, with the source of every value.

    Example: dfdbench explain saturation_mean
    """
    if metric != CARD and name is not None:
        raise UserError(f"explain {metric} {name}: one metric at a time; or explain card NAME")
    if metric == CARD and name is None:
        raise UserError(f"explain card: name one: {', '.join(options.cards())}")
    facts = facts_of(metric) if name is None else card_facts(name)
    width = max(map(len, facts)) + 1 if name else 11
    text = "\n".join(f"{key:<{width}}{value}" for key, value in facts.items())
    show(facts, as_json, text)


def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file anew.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Libraries, weights, suites, and what is missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what is ready, and with --all what is installed and what is missing for which metrics.

    Example: dfdbench doctor --all
    """
    from dfdbench.cli.doctor import examine, in_short, lines

    state = examine(verify)
    show(state, as_json, "\n".join(lines(state) if everything else in_short(state)))


def facts_of(name: str) -> Row:
    """What `explain` says of a metric; UserError with near names."""
    from dfdbench.evaluate.metrics import get_family, get_metric
    from dfdbench.utils.assets import ASSETS

    metric = get_metric(name)
    family = get_family(metric.family)
    weights = [asset.name for asset in ASSETS.values() if family.name in asset.unlocks]
    needs = [f"the clip's {what}" for what in family.needs]
    needs += ["clips of a reference"] * (metric.level == "pooled")
    needs += [f"weights {' and '.join(weights)}"] * bool(weights)
    suites = suites_with(family.name)
    return {
        "metric": metric.name,
        "family": family.name,
        "definition": metric.definition,
        "direction": metric.direction.replace("_", " "),
        "unit": metric.unit or "none",
        "range": f"{metric.range[0]:g} to {metric.range[1]:g}",
        "level": metric.level,
        "frames": family.policy,
        "source": metric.source,
        "version": str(metric.version),
        "needs": ", ".join(needs) or "nothing",
        "default": f"in {', '.join(suites)}" if suites else f"no; --metrics {family.name}",
    }


def suites_with(family: str) -> list[str]:
    """The suites that are scored by a family unless --metrics says otherwise."""
    from dfdbench.evaluate.metrics import families_of
    from dfdbench.generate.suites import find_suites

    return [suite.name for suite in find_suites()[0] if family in families_of(suite.metrics)]


def metric_rows() -> list[Row]:
    """The metrics of tables, by family."""
    from dfdbench.evaluate.metrics import all_metrics

    return [
        {
            "metric": metric.name,
            "family": metric.family,
            "direction": metric.direction.replace("_", " "),
            "unit": metric.unit,
            "level": metric.level,
        }
        for metric in all_metrics().values()
        if metric.kind == "score"
    ]


def suite_rows() -> list[Row]:
    """The suites, those last that lack a file of VBench."""
    from dfdbench.generate.suites import find_suites

    here, absent = find_suites()
    rows = [
        {
            "suite": suite.name,
            "prompts": str(len(suite.prompts) or "yours"),
            "seeds": str(len(suite.seeds) or "yours"),
            "description": suite.description,
        }
        for suite in here
    ]
    unknown = {"prompts": "?", "seeds": "?"}
    return rows + [{"suite": n, **unknown, "description": why} for n, why in absent.items()]


def recipe_rows() -> list[Row]:
    """The shipped recipes and studies."""
    from dfdbench.distill.recipe import load_recipe

    rows = []
    for name in options.recipes():
        recipe = load_recipe(name)
        rows.append(
            {"name": name, "kind": "recipe", "method": recipe.method, "model": recipe.model}
        )
    return rows + [
        {"name": name, "kind": "study", "method": "", "model": ""} for name in options.studies()
    ]


def method_rows() -> list[Row]:
    """The registered methods with the first line of their files."""
    from dfdbench.distill.methods import get_method, method_names

    return [
        {"method": name, "what": (get_method(name).__doc__ or "").strip().partition("\n")[0]}
        for name in method_names()
    ]


def model_rows() -> list[Row]:
    """The packaged models and those that recipes name."""
    rows = [{"model": name, "comes": "with dfdbench"} for name in options.models()]
    named = {row["model"] for row in recipe_rows() if row["model"]} - set(options.models())
    return rows + [{"model": name, "comes": "from the hub"} for name in sorted(named)]


def card_rows() -> list[Row]:
    """The cards of public students."""
    from dfdbench.distill.cards import load_card

    rows = []
    for name in options.cards():
        card = load_card(name)
        kind = "causal" if card.causal else "bidirectional"
        rows.append({"card": name, "kind": kind, "steps": str(len(card.grid)), "what": card.about})
    return rows


def card_facts(name: str) -> Row:
    """What `explain card` says: each value of a card, and behind it its source."""
    from dfdbench.distill.cards import load_card
    from dfdbench.utils.reading import plain

    card = load_card(name)
    values = plain(card) | {"times": list(card.grid)}
    values = {key: value for key, value in values.items() if value not in (None, "", 0, [], {})}
    values |= {"block_frames": card.block_frames or "0, bidirectional"}
    facts = {}
    for key, value in values.items():
        if key != "sources":
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            source = card.sources.get(key)
            facts[key] = f"{text} ({source})" if source else text
    return facts


ROWS: dict[Kind, Callable[[], list[Any]]] = {
    Kind.METRICS: metric_rows,
    Kind.SUITES: suite_rows,
    Kind.RECIPES: recipe_rows,
    Kind.METHODS: method_rows,
    Kind.MODELS: model_rows,
    Kind.CARDS: card_rows,
}
