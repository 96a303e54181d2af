"""Which arms a report compares: what the runs, and where there are none the recipes, say of them.

An arm that is named like its method is compared with the measures that began where it did (a
control of as many student updates, the student that others go on from) and with what it began from:
DFD with the DMD2 control and DMD2, DP-DMD with DMD2 and the teacher. A variant, such as
dfd_mixture, is compared with what its study or `--against` names. Used by summary.py.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dfdbench.report.arms import APART, ordered
from dfdbench.report.collect import RunRecord

TEACHER = "teacher"
CONTROL = "_control"
"""End of the name of an arm that goes on without the change under test."""


class Origin(NamedTuple):
    """Of an arm: the method that trained it, the arm that it began from, its student updates.

    updates: None where no run says it.
    """

    method: str
    parent: str
    updates: int | None = None


def shipped_origins() -> dict[str, Origin]:
    """Origin of each arm of the shipped recipes, for scores that came without a run."""
    from dfdbench.distill.recipe import load_recipe, shipped_recipes

    recipes = {name: load_recipe(name) for name in shipped_recipes()}
    arms = {name: recipe.arm for name, recipe in recipes.items()} | {"": TEACHER}
    return {r.arm: Origin(r.method, arms[r.init.recipe]) for r in recipes.values()}


def run_origins(runs: Iterable[RunRecord]) -> dict[str, Origin]:
    """Origin of each trained arm, of its first run."""
    origins: dict[str, Origin] = {}
    for run in runs:
        if updates := run.info.get("student_updates"):
            parent = run.info.get("parent") or {}
            before = run.parent or parent.get("arm", TEACHER)
            origin = Origin(str(run.info.get("method")), before, updates)
            origins.setdefault(run.arm, origin)
    return origins


def usual_pairs(arms: Sequence[str], runs: Iterable[RunRecord]) -> list[tuple[str, str]]:
    """The comparisons of every report of these arms, first minus second."""
    origins = shipped_origins() | run_origins(runs)
    continued = {origin.parent for origin in origins.values()}
    main = [arm for arm in ordered(origins) if arm == origins[arm].method]
    # First the students that others go on from, then those that go on, then the others.
    main.sort(key=lambda arm: (arm not in continued, origins[arm].parent == TEACHER))
    pairs = [
        (arm, rival)
        for arm in main
        for rival in (*_measures(arm, origins, continued), origins[arm].parent)
    ]
    # Of one name with another recipe: with the one that has the name alone.
    pairs += [
        (arm, base) for arm in ordered(arms) for base, apart, _ in [arm.partition(APART)] if apart
    ]
    unique = [pair for i, pair in enumerate(pairs) if pair[::-1] not in pairs[:i]]
    return [(a, b) for a, b in dict.fromkeys(unique) if a in arms and b in arms]


def _measures(arm: str, origins: dict[str, Origin], continued: set[str]) -> list[str]:
    """The other arms from the parent of `arm` that it is to be measured against."""
    own, measures = origins[arm], []
    for other in ordered(origins):
        method, parent, updates = origins[other]
        if other != arm and parent == own.parent:
            alike = None in (updates, own.updates) or updates == own.updates
            if (other.endswith(CONTROL) and alike) or (other in continued and other == method):
                measures.append(other)
    return measures
