"""Ranks as ranges: of each student how many others are better, and worse, beyond doubt.

Two students are told apart by the paired t test over their common training seeds (statistics.py;
values that should be near a reference by how much nearer one is), with Holm's correction over all
pairs of the board that the metric can test. A student's rank runs from one more than those better
beyond doubt to the number of ranked students less those worse beyond doubt. Used by data.py.
"""

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from dfdbench.report.best import lead_of
from dfdbench.report.digits import is_zero
from dfdbench.report.sets import Counts, counts_of, same_counts
from dfdbench.report.statistics import (
    ALPHA,
    FEWEST_SEEDS,
    NO_TRAINING_SEED,
    complete,
    holm,
    t_test,
    table_of,
)

Pair = tuple[str, str]


class Rank(NamedTuple):
    """Places from `first` to `last` of `of`; all 0 where there is none, and then why."""

    first: int
    last: int
    of: int
    why: str = ""

    def text(self) -> str:
        """As tables show it."""
        if not self.first:
            return "–"
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


class Lead(NamedTuple):
    """By how much the first of a pair is better: mean and 95 % t interval over `seeds` common
    training seeds, p corrected by Holm; better: 1, -1, or 0 where they are not told apart."""

    mean: float
    low: float
    high: float
    seeds: int
    p_holm: float
    better: int


def ranked(
    cells: pd.DataFrame,
    metric: str,
    direction: str,
    references: Collection[str] = (),
    aim: str | None = None,
) -> tuple[dict[str, Rank], dict[Pair, Lead]]:
    """The rank of every entry that has the metric, and the pairs that could be tested.

    Args:
        cells: of any metrics: arm, prompt, training_seed, metric, value, n; an arm is an entry.
        references: entries that are measured against and never ranked.
        aim: the entry that nearness is to, None without one.
    """
    own = cells[cells["metric"] == metric]
    tables = {str(arm): table_of(rows) for arm, rows in own.groupby("arm", sort=False)}
    ranks = {arm: Rank(0, 0, 0, "reference") for arm in tables if arm in references}
    students = [arm for arm in tables if arm not in references]
    if direction == "nearest_reference" and aim not in tables:
        return ranks | {a: Rank(0, 0, 0, "no reference to be near to") for a in students}, {}
    goal = None
    if direction == "nearest_reference" and aim is not None:
        goal = complete(tables[aim]).mean(axis=1)
    counts, reasons = counts_of(cells), {arm: dict[str, int]() for arm in students}
    leads, pvalues = dict[Pair, pd.Series](), dict[Pair, float]()
    for a, b in combinations(students, 2):
        lead = lead_of(tables[a], tables[b], direction, goal)
        if why := _why_not(lead, tables[a], tables[b], metric, counts, (a, b)):
            for arm in (a, b):
                reasons[arm][why] = reasons[arm].get(why, 0) + 1
            continue
        leads[a, b], pvalues[a, b] = lead, t_test(lead.to_numpy()).p
    size = float(own["value"].abs().max()) if len(own) else 0.0
    tested = {
        pair: _lead(leads[pair], p, size)
        for pair, p in zip(pvalues, holm(list(pvalues.values())) if pvalues else (), strict=True)
    }
    return ranks | _ranks(students, tested, reasons), tested


def _why_not(
    lead: pd.Series, a: pd.DataFrame, b: pd.DataFrame, metric: str, counts: Counts, pair: Pair
) -> str:
    """Why two students cannot be tested in pairs; empty where they can."""
    if any(list(table.columns) == [NO_TRAINING_SEED] for table in (a, b)):
        return "no training seeds"
    if a.index.intersection(b.index).empty:
        return "no prompt in common"
    if len(a.columns.intersection(b.columns)) < FEWEST_SEEDS or len(lead) < FEWEST_SEEDS:
        return f"fewer than {FEWEST_SEEDS} training seeds in common"
    if not same_counts(counts, metric, *pair):
        return "other numbers of clips a prompt"
    return "no prompt in common with the reference" if lead.isna().any() else ""


def _lead(lead: pd.Series, p_holm: float, size: float) -> Lead:
    values = lead.to_numpy()
    low, high, _ = t_test(values)
    mean = float(values.mean())
    told = p_holm < ALPHA and not is_zero(mean, size)
    return Lead(mean, low, high, len(values), p_holm, int(np.sign(mean)) if told else 0)


def _ranks(
    students: Collection[str],
    tested: Mapping[Pair, Lead],
    reasons: Mapping[str, Mapping[str, int]],
) -> dict[str, Rank]:
    compared = {arm for pair in tested for arm in pair}
    above, below = dict.fromkeys(students, 0), dict.fromkeys(students, 0)
    for (a, b), lead in tested.items():
        if lead.better:
            winner, loser = (a, b) if lead.better > 0 else (b, a)
            below[winner] += 1
            above[loser] += 1
    ranks = {}
    for arm in students:
        why = max(reasons[arm], key=reasons[arm].__getitem__, default="no other student")
        ranks[arm] = (
            Rank(1 + above[arm], len(compared) - below[arm], len(compared))
            if arm in compared
            else Rank(0, 0, 0, why)
        )
    return ranks
