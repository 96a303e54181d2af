"""What a row of a table compares: the same prompts, clip seeds and counts, or a cell says its n.

A row's students are compared on the prompts and clip seeds that all of them have, so that an extra
hard prompt or more seeds of one of them move nothing. What references are measured on is cut to the
same prompts. Where that cannot be (no prompt in common, other numbers of clips behind a value over
a prompt's clips, which depends on their number) the cells say what they are of. Used by summary.py.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from dfdbench.report.arms import is_reference
from dfdbench.report.collect import Collected

UNKNOWN = -1  # stands for the seed of clips whose manifest names none
Clips = frozenset[tuple[str, int]]
"""(prompt id, clip seed) of each clip of an arm."""


class RowSet(NamedTuple):
    """A metric's values that its row shows.

    values: as Collected.values. marks: arm → what its cell is of, where not all are of the same.
    alike: the students' clips are as many a prompt, so that values over them may be compared.
    """

    values: pd.DataFrame
    marks: Mapping[str, str]
    alike: bool


def row_sets(collected: Collected) -> dict[str, RowSet]:
    """The row of every metric that has values."""
    clips = clips_of(collected)
    return {
        str(metric): _row_set(own, clips, collected.references)
        for metric, own in collected.values.dropna(subset=["value"]).groupby("metric")
    }


def same_clips(values: pd.DataFrame, clips: Mapping[str, Clips], *arms: str) -> pd.DataFrame:
    """The rows of clips whose prompt and seed all of these arms have; those of prompts as they are.

    Where they have no clip in common, all rows. clips: `clips_of`.
    """
    common = frozenset.intersection(*(clips[arm] for arm in arms))
    if not common or values.empty:
        return values
    kept = values[(values["level"] != "video") | _keys(values).map(common.__contains__)]
    return kept if set(arms) <= set(kept["arm"]) else values


def _keys(rows: pd.DataFrame) -> pd.Series:
    seeds = rows["seed"].astype("Int64").fillna(UNKNOWN)
    pairs = zip(rows["prompt_id"].astype(str), map(int, seeds), strict=True)
    return pd.Series(list(pairs), rows.index, object)


def clips_of(collected: Collected) -> dict[str, Clips]:
    """The clips of every arm."""
    rows = collected.clips
    if rows.empty:
        rows = collected.values[collected.values["level"] == "video"]
    keys = _keys(rows) if len(rows) else pd.Series(dtype=object)
    return {arm: frozenset(keys[rows["arm"] == arm]) for arm in collected.arms}


def _row_set(own: pd.DataFrame, every: Mapping[str, Clips], references: frozenset[str]) -> RowSet:
    arms, keys = list(dict.fromkeys(own["arm"])), _keys(own)
    clips = dict[str, Clips]()
    for arm in arms:
        valued = frozenset(keys[own["arm"] == arm])
        known = {prompt for prompt, _ in every[arm]}
        clips[arm] = every[arm] if known & {prompt for prompt, _ in valued} else valued
    students = [arm for arm in arms if not is_reference(arm, references)]
    by_clip = bool((own["level"] == "video").all())
    common = _common([clips[arm] for arm in students], by_clip)
    prompts = {prompt for prompt, _ in common}
    shown = pd.Series(True, own.index)
    of_arm = dict[str, Clips]()
    for arm in arms:
        mine, kept = own["arm"] == arm, clips[arm]
        if prompts and (arm in students or prompts <= {prompt for prompt, _ in kept}):
            exactly = by_clip and arm in students and common <= kept
            kept = common if exactly else _of_prompts(kept, prompts)
            inside = keys.map(kept.__contains__) if exactly else own["prompt_id"].isin(prompts)
            shown &= ~mine | inside
        of_arm[arm] = kept
    values = own[shown]
    sizes = {arm: _size(values[values["arm"] == arm], of_arm[arm]) for arm in arms}
    counts = {size[1:] for arm, size in sizes.items() if arm in students}
    kinds = {sizes[arm] for arm in students}
    deviant = arms if len(kinds) > 1 else [a for a in arms if kinds and sizes[a] not in kinds]
    marks = {arm: of_size(sizes[arm][0], _span(*sizes[arm][1:])) for arm in deviant}
    return RowSet(values, marks, by_clip or len(counts) < 2)


def _common(sets: list[Clips], by_clip: bool) -> Clips:
    """The clips that all have; where there are none, or seeds do not matter, those of prompts."""
    if not sets:
        return frozenset()
    common = frozenset.intersection(*sets)
    if common and by_clip:
        return common
    prompts = set.intersection(*({prompt for prompt, _ in clips} for clips in sets))
    return _of_prompts(frozenset.union(*sets), prompts)


def _of_prompts(clips: Clips, prompts: set[str]) -> Clips:
    return frozenset(clip for clip in clips if clip[0] in prompts)


def _size(values: pd.DataFrame, clips: Clips) -> tuple[int, int, int]:
    """Prompts with a value, and the fewest and most clips of one of them."""
    counted = Counter(prompt for prompt, _ in clips)
    counts = [counted[str(prompt)] for prompt in values["prompt_id"].unique()]
    return len(counts), min(counts, default=0), max(counts, default=0)


def _span(fewest: int, most: int) -> str:
    return f"{most}" if fewest == most else f"{fewest}–{most}"


def of_size(prompts: int, clips: str) -> str:
    """What a cell is of, such as `4 prompts, 2 clips each`."""
    return (
        f"{prompts} prompt{'' if prompts == 1 else 's'}, {clips} clip{'' if clips == '1' else 's'} "
        "each"
    )
