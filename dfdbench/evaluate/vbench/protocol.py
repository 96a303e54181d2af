"""How clips were made and chosen, measured from the store: what VBench's scores silently depend on.

Used by summary.py. VBench is meant for five clips a prompt (25 before the static filter), with
distinct seeds, of its own short prompts, shorter than 5.0 s; VBench-Long is for longer ones. Other
clips can be scored, but such scores are not comparable, so it is written beside them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import STATIC, asks
from dfdbench.generate.suites.base import FLICKERING, Suite
from dfdbench.utils.reading import parse_json, validate

LONG = 5.0  # seconds, from which on VBench-Long is meant
ORIGINS = {
    "raw": "the suite's own",
    "extended": "the suite's extended ones",
    "other": "others (extended)",
    "unknown": "not recorded",
}


def measure(store: Store, suite: Suite, values: pd.DataFrame) -> dict[str, Any]:
    """Facts about one method's clips.

    Args:
        values: the method's clips, one row each, as of totals.dimension_scores.

    Returns:
        clips; seconds (least, most, and how many clips are long); clips_per_prompt (least, most,
        expected, and prompts with another number); prompts (with clips, expected); seeds (how
        many, least, most, and clips without one); texts (clips by where their prompt is from);
        crop; extended (where the suite's clips are made from extended texts); static (clips judged,
        kept, and with a score but not judged, where the suite filters).
    """
    method = str(values["method"].iloc[0])
    shapes, meta = store.shapes(), store.meta()
    decoded = [shapes[sha256] for sha256 in values["sha256"] if sha256 in shapes]
    seconds = [shape.frames / shape.fps for shape in decoded]
    counts = values.groupby("prompt_id").size()
    wanted = {prompt.id: len(suite.seeds_of(prompt)) for prompt in suite.prompts}
    seeds = values["seed"].dropna()
    facts: dict[str, Any] = {
        "clips": len(values),
        "seconds": {
            "least": round(min(seconds), 3),
            "most": round(max(seconds), 3),
            "known": len(seconds),
            "long": sum(second >= LONG for second in seconds),
        }
        if seconds
        else None,
        "clips_per_prompt": {
            "least": int(counts.min()),
            "most": int(counts.max()),
            "expected": sorted(set(wanted.values())) or None,
            "others": sum(n != wanted.get(str(p), n) for p, n in counts.items()),
        },
        "prompts": {"found": len(counts), "expected": len(suite.prompts) or None},
        "seeds": {
            "distinct": int(seeds.nunique()),
            "least": int(seeds.min()) if len(seeds) else None,
            "most": int(seeds.max()) if len(seeds) else None,
            "unknown": int(values["seed"].isna().sum()),
        },
        "texts": _origins(store, f"prompts {suite.name} {method}"),
        "crop": meta.get(f"crop {suite.name} {method}") or None,
    }
    if suite.is_extended:
        facts["extended"] = True
    if suite.static_filter:
        judged = values[STATIC].dropna()
        facts["static"] = {
            "judged": len(judged),
            "kept": int(judged.sum()),
            "unjudged": int((values[FLICKERING].notna() & values[STATIC].isna()).sum()),
        }
    return facts


def _origins(store: Store, key: str) -> dict[str, int] | None:
    """Clips by where their prompt is from, as match.py counted them; None where it did not."""
    text, where = store.meta().get(key, "null"), f"{store.path}: meta '{key}'"
    remedy = "score the clips again"
    origins: dict[str, int] | None = parse_json(text, where, remedy)
    return None if origins is None else validate(dict[str, int], origins, where, remedy)


class Part(NamedTuple):
    """How much there is of what the suite asks for.

    rows: the clips with a value. found, expected: how many of its number of clips that are; clips
    of a prompt beyond its number do not count; expected is None where the suite has no prompts.
    """

    rows: pd.DataFrame
    found: int
    expected: int | None


def part(values: pd.DataFrame, suite: Suite, dimension: str, metric: str | None = None) -> Part:
    """The clips of one method that have a value, of those whose prompt asks for a dimension.

    Args:
        values: as of `measure`.
        metric: the column of the value, where it is not the dimension's own. With a static filter
            the dimension's clips must have been judged, whether static or not.
    """
    prompts = {p.id: p.dimensions or (dimension,) for p in suite.prompts} or None
    there = values[metric or dimension].notna()
    if dimension == FLICKERING and suite.static_filter:
        there &= values[STATIC].notna()
    rows = values[[ok and asks(prompts, p, dimension)
                   for ok, p in zip(there, values["prompt_id"], strict=True)]]  # fmt: skip
    if prompts is None:
        return Part(rows, len(rows), None)
    wanted = {
        prompt.id: len(suite.seeds_of(prompt))
        for prompt in suite.prompts
        if asks(prompts, prompt.id, dimension)
    }
    counts = rows.groupby("prompt_id").size()
    found = sum(min(n, wanted[str(prompt_id)]) for prompt_id, n in counts.items())
    return Part(rows, found, sum(wanted.values()))


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """What of `measure`'s facts departs from VBench's protocol, a line each."""
    lines = []
    if (seconds := facts["seconds"]) and seconds["long"]:
        lines.append(
            f"{seconds['long']} of {seconds['known']} clips last {LONG} s or longer, for which "
            "VBench-Long is meant"
        )
    if (texts := facts["texts"]) and texts.get("other"):
        lines.append(
            f"{texts['other']} of {facts['clips']} clips were made from other texts than the "
            "suite's; they are scored by the suite's"
        )
    if facts.get("extended") and texts and texts.get("raw"):
        lines.append(
            f"{texts['raw']} of {facts['clips']} clips were made from the short prompts, not from "
            "the suite's extended ones"
        )
    number = facts["clips_per_prompt"]
    if number["others"]:
        lines.append(
            f"{number['others']} of {facts['prompts']['found']} prompts have another number of "
            f"clips than {_numbers(number['expected'])}: {_span(number)}"
        )
    if unjudged := facts.get("static", {}).get("unjudged"):
        lines.append(
            f"{unjudged} of {facts['clips']} clips were not judged by the static filter and do not "
            f"count for {FLICKERING}"
        )
    if facts["crop"] and "," in facts["crop"]:
        lines.append(f"first frames are crops of several ratios ({facts['crop']})")
    return lines


def rows(facts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """A table of `measure`'s facts: a label and a cell a method."""
    cells = {label: [cell(f) for f in facts.values()] for label, cell in CELLS.items()}
    return [(label, row) for label, row in cells.items() if any(row)]


def _of(found: int, expected: int | None) -> str:
    return f"{found}/{expected}" if expected else str(found)


def _span(values: Mapping[str, Any] | None) -> str:
    if not values:
        return ""
    least, most = values["least"], values["most"]
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"


def _numbers(values: list[int]) -> str:
    return " or ".join(map(str, values))


def _per_prompt(number: Mapping[str, Any]) -> str:
    expected = number["expected"]
    return _span(number) + (f" (expected {_numbers(expected)})" if expected else "")


def _seeds(seeds: Mapping[str, Any]) -> str:
    parts = [f"{seeds['distinct']}: {_span(seeds)}"] if seeds["distinct"] else []
    parts += [f"{seeds['unknown']} clips without"] if seeds["unknown"] else []
    return ", ".join(parts)


def _long(seconds: Mapping[str, Any] | None) -> str:
    return f"{seconds['long']} of {seconds['known']}" if seconds else ""


def _texts(texts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{ORIGINS[k]} {n}" for k, n in (texts or {}).items() if n)


def _static(static: Mapping[str, int] | None) -> str:
    return f"{static['kept']} of {static['judged']} judged" if static else ""


CELLS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "clips": lambda f: str(f["clips"]),
    "prompts": lambda f: _of(f["prompts"]["found"], f["prompts"]["expected"]),
    "clips a prompt": lambda f: _per_prompt(f["clips_per_prompt"]),
    "seeds": lambda f: _seeds(f["seeds"]),
    "seconds a clip": lambda f: _span(f["seconds"]),
    f"clips of {LONG} s or longer": lambda f: _long(f["seconds"]),
    "texts": lambda f: _texts(f["texts"]),
    "crop of the first frames": lambda f: f["crop"] or "",
    "static clips": lambda f: _static(f.get("static")),
}
"""Label of a row -> its cell from the facts of `measure`."""
