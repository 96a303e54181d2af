"""What the comparisons of a report show, in plain words: a claim, its effect, whether it holds.

Each comparison claims the same of its first arm: more diversity, colours nearer to the reference,
more whole clips. A claim holds where the effect is above 0 and the p of its t test over training
seeds, Holm-corrected over the claims of the comparison, is below .05. Used by render.py.
"""

from collections.abc import Collection, Sequence
from math import isfinite, nan
from typing import NamedTuple

import numpy as np
import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.report.arms import is_reference, looks, ordered, reference_arm
from dfdbench.report.best import badness
from dfdbench.report.digits import is_zero, signed
from dfdbench.report.primary import PRIMARIES
from dfdbench.report.sets import of_size
from dfdbench.report.statistics import (
    ALPHA,
    FEWEST_SEEDS,
    POOLED,
    complete,
    holm,
    t_test,
    table_of,
)
from dfdbench.report.summary import Delta

CLAIMS = {
    "diversity": "{a} is more diverse than {b}",
    "saturation": "{a} is nearer to {r} in colour than {b}",
    "yield": "{a} makes more whole clips than {b}",
}
HOLDS, NOT_SHOWN, REVERSE, TOO_FEW, OTHER = (
    "holds", "not shown", "the reverse holds", "too few seeds", "not comparable",
)  # fmt: skip
EXPLAINED = {
    HOLDS: "Unlikely to be chance.",
    NOT_SHOWN: "Could be chance.",
    REVERSE: "That the opposite is true is unlikely to be chance.",
    TOO_FEW: f"A test needs {FEWEST_SEEDS} training seeds or more.",
    OTHER: "The two arms have other prompts, or other numbers of clips a prompt.",
}


class Verdict(NamedTuple):
    """A claim of one comparison.

    lead: mean over training seeds of how much better the first arm is, in the metric's unit; low,
    high: limits of its 95 % t interval, NaN where there is none. p: Holm-corrected, else NaN.
    """

    a: str
    b: str
    primary: str
    metric: str
    claim: str
    status: str
    lead: float
    low: float
    high: float
    p: float
    n: str

    @property
    def effect(self) -> str:
        """The lead and its interval as text."""
        if not isfinite(self.lead):
            return ""
        size = max(abs(self.low), abs(self.high)) if isfinite(self.low) else abs(self.lead)
        limits = f" [{signed(self.low, size)}, {signed(self.high, size)}]"
        text = signed(self.lead, size) + (limits if isfinite(self.low) else "")
        return text.replace("-", "−")


class Leads(NamedTuple):
    """How much better the first arm is at each training seed, (S,); one value without any."""

    values: np.ndarray
    seeds: int
    prompts: int


def verdicts_of(
    cells: pd.DataFrame, deltas: Sequence[Delta], references: Collection[str] = ()
) -> list[list[Verdict]]:
    """The claims of every comparison, those between students first."""
    goal = reference_arm(ordered(cells["arm"]), references)
    labels = looks({arm for d in deltas for arm in (d.a, d.b)} | ({goal} if goal else set()))
    pairs: dict[tuple[str, str], list[tuple[Delta, Leads]]] = {}
    for delta in deltas:
        nearest = all_metrics()[delta.metric].direction == "nearest_reference"
        if not delta.primary or (nearest and goal in (None, delta.a, delta.b)):
            continue
        leads = _leads(cells, delta, goal, references) if nearest else _signed_leads(delta)
        pairs.setdefault((delta.a, delta.b), []).append((delta, leads))
    order = sorted(pairs, key=lambda pair: any(is_reference(arm, references) for arm in pair))
    names = {arm: look.label for arm, look in labels.items()}
    return [_verdicts(pairs[pair], names, names.get(goal or "", "")) for pair in order]


def _signed_leads(delta: Delta) -> Leads:
    sign = -1 if all_metrics()[delta.metric].direction == "lower" else 1
    values = sign * np.array(list(delta.by_seed.values()) or [delta.mean])
    return Leads(values, delta.seeds, delta.prompts)


def _leads(
    cells: pd.DataFrame, delta: Delta, goal: str | None, references: Collection[str]
) -> Leads:
    """How much nearer `a` is to the reference at each training seed that can be paired."""
    own = cells[cells["metric"] == delta.metric]
    a, b, aim = (complete(table_of(own[own["arm"] == arm])) for arm in (delta.a, delta.b, goal))
    prompts = a.index.intersection(b.index).intersection(aim.index)
    if prompts.empty:
        return Leads(np.array([nan]), 0, 0)
    target = aim.loc[prompts].mean(axis=1)
    far_a, far_b = (badness(table.loc[prompts], "nearest_reference", target) for table in (a, b))
    both = far_a.index.intersection(far_b.index)
    if len(both):
        leads = (far_b[both] - far_a[both]).to_numpy()
    elif any(is_reference(arm, references) for arm in (delta.a, delta.b)):
        leads = np.subtract(*np.broadcast_arrays(far_b.to_numpy(), far_a.to_numpy()))
    else:
        leads = np.array([float(far_b.mean() - far_a.mean())])
    return Leads(leads, delta.seeds, sum(prompt != POOLED for prompt in prompts))


def _verdicts(
    rows: Sequence[tuple[Delta, Leads]], names: dict[str, str], goal: str
) -> list[Verdict]:
    tests = [
        t_test(leads.values if d.paired and d.alike and leads.seeds else np.array([]))
        for d, leads in rows
    ]
    corrected = iter(holm([test.p for test in tests if isfinite(test.p)]))
    verdicts = []
    for (d, leads), test in zip(rows, tests, strict=True):
        p = next(corrected) if isfinite(test.p) else nan
        lead = float(leads.values.mean())
        claim = CLAIMS[d.primary or ""].format(a=names[d.a], b=names[d.b], r=goal)
        size = of_size(leads.seeds, leads.prompts)
        n = f"{size}, {d.clips_a} and {d.clips_b} clips".removeprefix(", ")
        comparable = d.paired and d.alike and isfinite(lead)
        status = _status(lead, p) if comparable else OTHER
        verdicts.append(
            Verdict(d.a, d.b, d.primary or "", d.metric, claim, status, lead, test.low, test.high,
                    p, n)
        )  # fmt: skip
    places = list(PRIMARIES)
    return sorted(verdicts, key=lambda verdict: places.index(verdict.primary))


def _status(lead: float, p: float) -> str:
    if not isfinite(p):
        return TOO_FEW
    if p >= ALPHA or is_zero(lead):
        return NOT_SHOWN
    return HOLDS if lead > 0 else REVERSE
