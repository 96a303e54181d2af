"""What a row of a table compares: cells of the same prompts, and what these are made of.

Students of one training seed share their clips' noises, so a cell is the mean over the clips that
all students of its training seed have, where they have some in common; an extra seed of one of them
moves nothing. A row's students are compared on the prompts that all of them have, and references
are cut to the same prompts. Whether students have as many clips a prompt, on which values over a
prompt's clips depend, is said with it. Used by page.py and summary.py.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, ordered
from dfdbench.report.cells import COLUMNS, rounded
from dfdbench.report.collect import Collected
from dfdbench.report.earlier import joined
from dfdbench.report.statistics import POOLED

UNKNOWN = -1  # stands for the seed of clips whose manifest names none
CELL = ["training_seed", "prompt_id"]
Counts = Mapping[str, pd.Series]
"""Arm → (prompt, training seed) → its clips, whole or not."""


class RowSet(NamedTuple):
    """A metric's cells that its row shows; alike: its students have as many clips a prompt, or the
    metric is a mean over single clips, so that values may be compared."""

    cells: pd.DataFrame
    alike: bool


def cells_of(collected: Collected) -> pd.DataFrame:
    """The cells of everything collected, as cells.csv has them, in its order: metrics as the
    registry has them, arms as drawn, prompts by name, training seeds."""
    scores = [metric.name for metric in all_metrics().values() if metric.kind == "score"]
    values, pooled = _on_common_clips(collected), collected.pooled
    if len(pooled):
        own = pooled[pooled["reference"] == pooled_reference(pooled)]
        values = pd.concat([values, own.assign(prompt_id=POOLED)], ignore_index=True)
    values = values[values["metric"].isin(scores) & np.isfinite(values["value"].astype(float))]
    keys = ["metric", "arm", "prompt", "training_seed"]
    cells = (
        values.rename(columns={"prompt_id": "prompt"})
        .groupby(keys, as_index=False)
        .agg(n=("n", "sum"), value=("value", "mean"))
        .astype({"n": "int64", "training_seed": "int64"})
    )
    cells = joined(rounded(cells), collected.earlier)
    arms = ordered(cells["arm"])
    place = cells.assign(metric=cells["metric"].map(scores.index), arm=cells["arm"].map(arms.index))
    return cells.loc[place.sort_values(keys).index, COLUMNS].reset_index(drop=True)


def pooled_reference(pooled: pd.DataFrame) -> str | None:
    """The reference whose pooled values are rows of the main table: the teacher, else the first."""
    references = ordered(pooled["reference"])
    return "teacher" if "teacher" in references else next(iter(references), None)


def _on_common_clips(collected: Collected) -> pd.DataFrame:
    """The values without those of clips that not all students of the training seed have."""
    values, rows = collected.values, collected.clips
    if rows.empty:
        rows = values[values["level"] == "video"]
    rows = rows[[not is_reference(arm, collected.references) for arm in rows["arm"]]]
    if rows.empty:
        return values
    rows = _with_seed(rows)[["arm", *CELL, "seed"]].drop_duplicates()
    of_cell = rows.groupby(CELL)["arm"].transform("nunique")
    shared = rows.groupby([*CELL, "seed"])["arm"].transform("nunique") == of_cell
    some = shared.groupby([rows[key] for key in CELL]).transform("any")
    apart = set(rows[some & ~shared].itertuples(index=False, name=None))
    if not apart:
        return values
    keys = _with_seed(values)[["arm", *CELL, "seed"]].itertuples(index=False, name=None)
    left_out = np.array([key in apart for key in keys])
    return values[~(left_out & (values["level"] == "video").to_numpy())]


def _with_seed(rows: pd.DataFrame) -> pd.DataFrame:
    seeds = rows["seed"].astype("Int64").fillna(UNKNOWN).astype("int64")
    return rows.assign(seed=seeds, prompt_id=rows["prompt_id"].astype(str))


def counts_of(cells: pd.DataFrame) -> Counts:
    """The clips of every arm's prompts and training seeds: the most that a metric counts."""
    own = cells[cells["prompt"] != POOLED]
    return {
        str(arm): rows.groupby(["prompt", "training_seed"])["n"].max()
        for arm, rows in own.groupby("arm")
    }


def same_counts(counts: Counts, metric: str, *arms: str) -> bool:
    """Whether arms have as many clips of each prompt that all of them have, if it matters."""
    if all_metrics()[metric].level == "video":
        return True
    by_prompt = [counts[arm].groupby("prompt").max() for arm in arms if arm in counts]
    both = pd.concat(by_prompt, axis=1, join="inner") if by_prompt else pd.DataFrame()
    return bool((both.nunique(axis=1) == 1).all())


def row_sets(cells: pd.DataFrame, references: frozenset[str] = frozenset()) -> dict[str, RowSet]:
    """The row of every metric; cells: as `cells_of` gives them."""
    counts = counts_of(cells)
    return {
        str(metric): _row_set(str(metric), own, counts, references)
        for metric, own in cells.groupby("metric", sort=False)
    }


def _row_set(metric: str, own: pd.DataFrame, counts: Counts, references: frozenset[str]) -> RowSet:
    arms = list(dict.fromkeys(own["arm"]))
    students = [arm for arm in arms if not is_reference(arm, references)]
    alike = same_counts(counts, metric, *students) if students else True
    prompts = {a: set(counts[a].index.get_level_values("prompt")) for a in arms if a in counts}
    common = set.intersection(*(prompts.get(arm, set()) for arm in students)) if students else set()
    shown = pd.Series(True, own.index)
    for arm in arms:
        if common and (arm in students or common <= prompts.get(arm, set())):
            shown &= (own["arm"] != arm) | own["prompt"].isin({*common, POOLED})
    return RowSet(own[shown], alike)


def of_size(seeds: int = 0, prompts: int = 0, clips: int = 0) -> str:
    """What a number is of, such as `7 seeds, 12 prompts, 1344 clips`, without what is 0."""
    sizes = {"seed": seeds, "prompt": prompts, "clip": clips}
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in sizes.items() if n)
