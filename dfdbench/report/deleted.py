"""Clips that were scored and are gone since: they do not count, nor do values made with them.

Used by collect.py. A store may be carried elsewhere without its clips, so a clip is gone only if
other clips of the store lie in its folder still.
"""

import os
from typing import NamedTuple

import pandas as pd

MOST_NAMED = 5


class Present(NamedTuple):
    """A store's tables without what is gone, and a line for a person, "" where nothing is."""

    table: pd.DataFrame
    clips: pd.DataFrame
    arrays: pd.DataFrame
    pooled: pd.DataFrame
    line: str


def without_deleted(
    store: object,
    table: pd.DataFrame,
    clips: pd.DataFrame,
    arrays: pd.DataFrame,
    pooled: pd.DataFrame,
) -> Present:
    """The tables without deleted clips, the prompts' values and the pooled ones that had them.

    Args:
        clips: with absolute paths, and the columns suite, method, prompt_id, seed and name.
        arrays: with the column path, which is `name` of clips.
    """
    there = pd.Series([os.path.lexists(path) for path in clips["path"]], clips.index, bool)
    folders = pd.Series([os.path.dirname(path) for path in clips["path"]], clips.index, object)
    gone = clips[~there & folders.isin(set(folders[there]))]
    if gone.empty:
        return Present(table, clips, arrays, pooled, "")
    kept = clips.drop(gone.index)
    keys = ["suite", "method", "prompt_id", "seed"]
    own = _in(table, kept, keys) & (table["level"] == "video")
    whole = ~_in(table, gone, keys[:3]) & (table["level"] == "prompt")
    named = ", ".join(gone["name"].head(MOST_NAMED))
    more = f" and {len(gone) - MOST_NAMED} more" if gone[MOST_NAMED:].size else ""
    line = (
        f"{store}: {len(gone)} scored clips are gone and do not count ({named}{more}), nor do the "
        "values over their prompts; run `dfdbench eval` again for those"
    )
    names = set(zip(gone["suite"], gone["name"], strict=True))
    seen = [pair in names for pair in zip(arrays["suite"], arrays["path"], strict=True)]
    return Present(
        table[own | whole],
        kept,
        arrays[[not each for each in seen]],
        pooled[~_in(pooled, gone, keys[:2]) & ~_of_reference(pooled, gone)],
        line,
    )


def _in(rows: pd.DataFrame, others: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Which of the rows have a key of the others."""
    known = set(map(tuple, others[keys].astype(object).fillna(-1).itertuples(index=False)))
    own = map(tuple, rows[keys].astype(object).fillna(-1).itertuples(index=False))
    return pd.Series([key in known for key in own], rows.index, bool)


def _of_reference(pooled: pd.DataFrame, gone: pd.DataFrame) -> pd.Series:
    """Which of the pooled values are against a method that lost clips."""
    return _in(pooled.assign(method=pooled["reference"]), gone, ["suite", "method"])
