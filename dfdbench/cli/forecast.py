"""How long the runs of a study still take, from the updates and clips that all of them have done.

Used by board.py. A run is trained (updates), generated and scored (clips). An item that it still
has to do counts as long as those of this run took, else of its arm's, else of its kind's, or any.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from dfdbench.utils.progress import Report, Stage

STAGES: tuple[Stage, ...] = get_args(Stage)[1:]


@dataclass(frozen=True)
class Planned:
    """A run that is still to be done: `amounts` of items by stage, and the run it waits for."""

    name: str
    arm: str
    trained: bool
    amounts: Mapping[Stage, int]
    parent: str | None = None


@dataclass
class Forecast:
    """Reports of all runs, and the time left that follows from them.

    runs: by name, in the order in which they begin. processes: runs at a time.
    """

    runs: Mapping[str, Planned]
    processes: int
    running: list[str] = field(default_factory=list)
    over: set[str] = field(default_factory=set)
    seen: dict[tuple[str, Stage], tuple[Report, float]] = field(default_factory=dict)

    def take(self, run: str, report: Report, now: float) -> None:
        """Keep a report of a run's stage, which came at `now` seconds."""
        if report.stage:
            self.seen[run, report.stage] = report, now

    def left(self, now: float) -> float | None:
        """Seconds until every run is done; None until each kind of work that is left has begun."""
        seconds = dict[str, float]()
        for name in self.runs:
            if name not in self.over:
                own = self._of_run(self.runs[name], now)
                if own is None:
                    return None
                seconds[name] = own
        parents = {name: self.runs[name].parent for name in seconds}
        return schedule(seconds, parents, self.running, self.processes)

    def _of_run(self, run: Planned, now: float) -> float | None:
        begun = [stage for stage in STAGES if (run.name, stage) in self.seen]
        total, since = 0.0, now
        for stage in STAGES[STAGES.index(begun[-1]) :] if begun else STAGES:
            items = run.amounts.get(stage, 0)
            if stage in begun:
                report, since = self.seen[run.name, stage]
                items = report.total - report.count
            each = self._each(run, stage) if items else 0.0
            if each is None:
                return None
            total += items * each
        return max(0.0, total - (now - since))

    def _each(self, run: Planned, stage: Stage) -> float | None:
        """Seconds of an item of a stage, from the nearest runs that have done some."""
        alike: Sequence[Callable[[Planned], bool]] = (
            lambda other: other.name == run.name,
            lambda other: other.arm == run.arm,
            lambda other: other.trained == run.trained,
            lambda other: True,
        )
        for is_alike in alike:
            names = [name for name, other in self.runs.items() if is_alike(other)]
            reports = [self.seen[n, stage][0] for n in names if (n, stage) in self.seen]
            items = sum(report.count - report.first for report in reports)
            if items:
                return sum(r.seconds for r in reports if r.count > r.first) / items
        return None


def schedule(
    seconds: Mapping[str, float],
    parents: Mapping[str, str | None],
    running: Iterable[str],
    processes: int,
) -> float:
    """Seconds until runs that take `seconds` each are done, `processes` of them at a time.

    The next to begin is the first whose parent is not among those to be done.
    """
    busy = {name: seconds[name] for name in running if name in seconds}
    waiting = [name for name in seconds if name not in busy]
    passed = 0.0
    while busy or waiting:
        for name in [n for n in waiting if parents.get(n) not in (*busy, *waiting)]:
            if len(busy) < processes:
                waiting.remove(name)
                busy[name] = seconds[name]
        step = min(busy.values(), default=0.0)
        passed += step
        busy = {name: left - step for name, left in busy.items() if left > step}
        if not busy and all(parents.get(n) in waiting for n in waiting):
            break  # nothing that waits can begin
    return passed
