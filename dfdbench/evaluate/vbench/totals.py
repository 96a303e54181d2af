"""VBench's totals: from values of clips to a score a dimension, from those to Quality and Total.

Huang et al., "VBench" (2311.17982) and "VBench++" (2411.13503); minima, maxima and weights are
those of the leaderboard's scripts. Pure functions over what Store.values(suite, COLUMNS) gives.
Used by summary.py, export.py and the report. A missing dimension is left out of a
total, which then says of how many it is; VBench's scripts count it as a raw 0.
"""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pandas as pd

from dfdbench.evaluate.metrics.vbench.consistency import frame_weighted
from dfdbench.generate.suites.dimensions import DIMENSIONS, I2V, I2V_QUALITY, QUALITY, SEMANTIC
from dfdbench.utils.errors import unknown_name

STATIC, MOST_STATIC = "static", 5  # reading of the static filter; clips of a prompt that it keeps
COLUMNS = (
    *DIMENSIONS,
    *(f"{name}_frames" for name, dimension in DIMENSIONS.items() if dimension.by_frame),
    STATIC,
)
"""The metrics and readings that `dimension_scores` may use."""


class Protocol(NamedTuple):
    """One of VBench's two leaderboards.

    parts: the dimensions of each part of the total and its weight. average: the columns that the
    DFD paper (2606.18478) takes the plain mean of, without normalisation.
    """

    parts: Mapping[str, tuple[tuple[str, ...], float]]
    average: tuple[str, ...]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All dimensions that its total counts."""
        return tuple(name for names, _ in self.parts.values() for name in names)


_PAPER = (*QUALITY[:4], "aesthetic_quality")
PROTOCOLS = {
    "t2v": Protocol({"quality": (QUALITY, 4.0), "semantic": (SEMANTIC, 1.0)}, _PAPER),
    "i2v": Protocol({"quality": (I2V_QUALITY, 1.0), "i2v": (I2V, 1.0)}, (*_PAPER, *I2V[:2])),
}


class Total(NamedTuple):
    """A mean over dimensions, or None if there is none; `found` of `expected` are in it."""

    value: float | None
    found: int
    expected: int

    @property
    def label(self) -> str:
        """Empty for a whole total, else how partial it is: "5/7"."""
        return "" if self.found == self.expected else f"{self.found}/{self.expected}"


def normalised(dimension: str, score: float) -> float:
    """(score − low) / (high − low), which may lie outside 0 to 1.

    Raises:
        UserError: an unknown dimension.
    """
    if dimension not in DIMENSIONS:
        raise unknown_name("VBench dimension", dimension, DIMENSIONS)
    low, high = DIMENSIONS[dimension][:2]
    return (score - low) / (high - low)


def totals(scores: Mapping[str, float | None], protocol: str) -> dict[str, Total]:
    """The parts (Quality and Semantic, or Quality and I2V), `total`, and the paper's `average`.

    Args:
        scores: VBench's score of each dimension, 0 to 1; None, NaN and absent are missing.
        protocol: "t2v" or "i2v".

    Returns:
        Weighted means of the normalised scores that are there; the total weighs 4 : 1 (T2V) or
        1 : 1 (I2V), and is None where a whole part is missing. The average is of raw scores.

    Raises:
        UserError: an unknown dimension or protocol.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("VBench protocol", protocol, PROTOCOLS)
    rules = PROTOCOLS[protocol]
    there = {k: float(v) for k, v in scores.items() if v is not None and not math.isnan(v)}
    normal = {name: normalised(name, score) for name, score in there.items()}
    parts = {
        part: _mean(normal, {name: DIMENSIONS[name].weight for name in names})
        for part, (names, _) in rules.parts.items()
    }
    whole = _mean(
        {part: total.value for part, total in parts.items() if total.value is not None},
        {part: weight for part, (_, weight) in rules.parts.items()},
    )
    total = Total(
        whole.value if not whole.label else None,
        sum(part.found for part in parts.values()),
        sum(part.expected for part in parts.values()),
    )
    return parts | {"total": total, "average": _mean(there, dict.fromkeys(rules.average, 1.0))}


def _mean(values: Mapping[str, float], weights: Mapping[str, float]) -> Total:
    names = [name for name in weights if name in values]
    if not names:
        return Total(None, 0, len(weights))
    weighted = sum(weights[name] * values[name] for name in names)
    return Total(weighted / sum(weights[name] for name in names), len(names), len(weights))


def asks(prompts: Mapping[str, Collection[str]] | None, prompt_id: str, dimension: str) -> bool:
    """Whether a prompt counts for a dimension; without a list every prompt does."""
    return prompts is None or dimension in prompts.get(prompt_id, ())


def counted(
    values: pd.DataFrame,
    dimension: str,
    prompts: Mapping[str, Collection[str]] | None = None,
    static_filter: bool = False,
) -> pd.DataFrame:
    """The rows that a dimension's score counts: asked for it, with a value, and static if filtered.

    Args: as of `dimension_scores`.
    """
    if dimension not in values:
        return values.iloc[:0]
    asked = [asks(prompts, prompt_id, dimension) for prompt_id in values["prompt_id"]]
    rows = values[pd.Series(asked, values.index, dtype=bool) & values[dimension].notna()]
    if dimension == "temporal_flickering" and static_filter:
        if STATIC not in rows:
            return rows.iloc[:0]
        static = rows[rows[STATIC] == 1].sort_values("path")
        rows = rows.loc[
            static.groupby(["method", "prompt_id"]).head(MOST_STATIC).index.sort_values()
        ]
    return rows


def dimension_scores(
    values: pd.DataFrame,
    prompts: Mapping[str, Collection[str]] | None = None,
    static_filter: bool = False,
) -> pd.DataFrame:
    """The score of each method in each dimension that it has clips for.

    Args:
        values: one row a clip with method, prompt_id, path and some of COLUMNS (NaN: no value).
        prompts: the dimensions that each prompt id is meant for; None: all count for all.
        static_filter: whether temporal_flickering counts static clips only, the first five of
            each prompt by path, as VBench's T2V protocol does; a clip without that reading does
            not count.

    Returns:
        Columns method, dimension, score (a mean over frames where VBench weighs by frames, NaN
        without their number; else over clips), videos and prompts (with a counted clip).
    """
    rows = []
    for method, own in values.groupby("method"):
        for name in DIMENSIONS:
            clips = counted(own, name, prompts, static_filter)
            if len(clips):
                count = len(clips), clips["prompt_id"].nunique()
                rows.append((method, name, _score(clips, name), *count))
    return pd.DataFrame(rows, columns=["method", "dimension", "score", "videos", "prompts"])


def _score(clips: pd.DataFrame, dimension: str) -> float:
    if not DIMENSIONS[dimension].by_frame:
        return float(clips[dimension].mean())
    frames = f"{dimension}_frames"
    if frames not in clips or clips[frames].isna().all():
        return math.nan
    weighed = clips[clips[frames].notna()]
    return frame_weighted(weighed[dimension].tolist(), weighed[frames].tolist())
