"""What the page's scripts read: arms, metrics, prompts, cells, intervals, clips and their scores.

Plain lists and numbers for one block of JSON; names are indices where they repeat. Used by
render.py; `static/stats.js` computes paired differences from the cells, as summary.py does.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from typing import Any

import pandas as pd
from scipy import stats

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, looks
from dfdbench.report.best import Best
from dfdbench.report.collect import Collected
from dfdbench.report.primary import headline, primaries
from dfdbench.report.statistics import FEWEST_SEEDS, LEVEL, POOLED
from dfdbench.report.summary import Summary
from dfdbench.report.tables import ARROWS, metric_rows, size_of
from dfdbench.report.web.clips import Clips
from dfdbench.utils.table import one_line

HEADLINE = "Headline"
GROUPS = {
    "Diversity": ("clip_vit_l14", "clip_vit_l14_cls", "dinov2_l", "dinov3_l", "effnet_lite2",
                  "lpips_alex"),
    "Colour": ("colour",),
    "Toy's truth": ("oracle", "oracle_i2v"),
    "Camera": ("camera", "vipe"),
    "Motion and quality": ("flicker", "rife39", "dis_flow", "brisque", "first_frame"),
}  # fmt: skip
DIRECTIONS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "nearest_reference": "nearest to the reference is best",
}
DIGITS = 6


def group_of(family: str) -> str:
    """The tab of a metric family: VBench's have one, a family that no tab names is its own."""
    if family.startswith("vbench"):
        return "VBench"
    return next((name for name, families in GROUPS.items() if family in families), family)


def metric_facts(names: Sequence[str]) -> list[dict[str, Any]]:
    """What a page tells of each metric."""
    first, tested, every = headline(names), primaries(names), all_metrics()
    return [
        {
            "id": name,
            "label": name.replace("_", " "),
            "groups": [*([HEADLINE] if name in first else []), group_of(every[name].family)],
            "arrow": ARROWS[every[name].direction],
            "direction": every[name].direction,
            "better": DIRECTIONS[every[name].direction],
            "unit": every[name].unit or "no unit",
            "source": every[name].source,
            "definition": every[name].definition,
            "level": every[name].level,
            "primary": tested.get(name, ""),
        }
        for name in names
    ]


def page_data(
    collected: Collected,
    summary: Summary,
    cells: pd.DataFrame,
    best: Best,
    clips: Clips,
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """The block of JSON; every number in it is finite, what is missing is null or absent."""
    arms, metrics = list(summary), metric_rows(summary)
    ids = sorted({*cells["prompt"], *(clip.prompt for clip in clips.clips)} - {POOLED})
    texts = prompt_texts(collected.clips)
    used = max((len(own.by_seed) for of in summary.values() for own in of.values()), default=0)
    quantiles = [float(stats.t.ppf((1 + LEVEL) / 2, n)) for n in range(1, max(2, used))]
    return {
        "suite": collected.suite,
        "arms": arm_facts(summary, collected.references),
        "metrics": metric_facts(metrics),
        "prompts": [{"id": name, "text": texts.get(name, one_line(name))} for name in ids],
        "cells": _cells(cells, metrics, arms, ids),
        "summary": {
            arm: {m: _interval(own, best.get(m) == arm) for m, own in of.items()}
            for arm, of in summary.items()
        },
        "clips": _clips(clips, arms, ids),
        "scores": clip_scores(collected.values, clips),
        "sheets": {
            str(ids.index(prompt)): {
                "src": sheet.source, "columns": sheet.columns, "width": sheet.width,
                "height": sheet.height, "clips": list(sheet.clips),
            }
            for prompt, sheet in clips.sheets.items()
        },
        "first": ids.index(clips.first) if clips.first else 0,
        "pairs": [list(pair) for pair in pairs],
        "quantiles": quantiles,
        "fewest": FEWEST_SEEDS,
    }  # fmt: skip


def prompt_texts(clips: pd.DataFrame) -> dict[str, str]:
    """Prompt id → its text, of those that have one."""
    told = clips.dropna(subset="prompt").drop_duplicates("prompt_id")
    pairs = zip(told["prompt_id"], told["prompt"], strict=True)
    return {str(name): one_line(str(text)) for name, text in pairs if text}


def arm_facts(summary: Summary, references: Collection[str]) -> list[dict[str, Any]]:
    """Name, label, colour and size of each arm."""
    drawn = looks(summary, references)
    return [
        {
            "id": arm,
            "label": one_line(drawn[arm].label),
            "colour": drawn[arm].colour,
            "reference": is_reference(arm, references),
            "n": list(size_of(own)),
        }
        for arm, own in summary.items()
    ]


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None


def _interval(own: Any, best: bool) -> list[Any]:
    numbers = [_number(x) for x in (own.mean, own.low, own.high, own.median)]
    return [*numbers, own.seeds, own.prompts, own.clips, int(best)]


def _cells(
    cells: pd.DataFrame, metrics: Sequence[str], arms: Sequence[str], ids: Sequence[str]
) -> dict[str, dict[str, list[Any]]]:
    """Metric → columns arm, prompt (-1: pooled) and training seed of its cells, and their value."""
    of_arm = {arm: i for i, arm in enumerate(arms)}
    of_prompt = {name: i for i, name in enumerate(ids)} | {POOLED: -1}
    return {
        str(metric): {
            "arm": [of_arm[arm] for arm in own["arm"]],
            "prompt": [of_prompt[name] for name in own["prompt"]],
            "training": [int(seed) for seed in own["training_seed"]],
            "value": [_number(value) for value in own["value"]],
        }
        for metric, own in cells[cells["metric"].isin(metrics)].groupby("metric", sort=False)
    }


def _clips(clips: Clips, arms: Sequence[str], ids: Sequence[str]) -> list[list[Any]]:
    """arm, prompt, training seed, seed or null, file, frames a second, frames, width, height."""
    of_arm = {arm: i for i, arm in enumerate(arms)}
    of_prompt = {name: i for i, name in enumerate(ids)}
    return [
        [
            of_arm.get(c.arm, -1), of_prompt[c.prompt], c.training_seed, c.seed, c.file,
            round(c.facts.fps, 3), c.facts.frames, c.facts.width, c.facts.height,
        ]
        for c in clips.clips
    ]  # fmt: skip


def clip_scores(values: pd.DataFrame, clips: Clips) -> dict[str, list[float | None]]:
    """Metric of single clips → its value of each clip of the page, in their order.

    A clip without a seed that is not the only one of its prompt has none: nothing says which is
    which.
    """
    own = values[values["level"] == "video"]
    scores = [m.name for m in all_metrics().values() if m.kind == "score"]
    present = set(own["metric"])
    keys = [(c.arm, c.training_seed, c.prompt, c.seed) for c in clips.clips]
    result = {}
    for metric in (name for name in scores if name in present):
        rows = own[own["metric"] == metric]
        seeds = [None if pd.isna(seed) else int(seed) for seed in rows["seed"]]
        found = list(zip(rows["arm"], rows["training_seed"], rows["prompt_id"], seeds, strict=True))
        count = Counter(found)
        table: Mapping[Any, float] = dict(zip(found, rows["value"].astype(float), strict=True))
        column = [_number(table[k]) if count[k] == 1 else None for k in keys]
        if any(value is not None for value in column):
            result[metric] = column
    return result
