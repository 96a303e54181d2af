"""The one display of a study: a line a running run and one for the total, or plain lines.

Used by jobs.py. On a terminal the lines are drawn in place; elsewhere each is printed anew, and not
more often than every PLAIN_EVERY_SECONDS.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dfdbench.cli.forecast import Forecast, Planned
from dfdbench.utils.progress import Report, clock, is_live, pace, print_line

PLAIN_EVERY_SECONDS = 30.0
PARTS = 1000  # of the total's bar
WORDS = {"train": "training", "generate": "generating", "score": "scoring"}
FIELDS = ("count", "rate", "left", "note")


def what_of(report: Report) -> str:
    """What a run is at, in a word."""
    return WORDS.get(report.stage, report.label)


def _details(report: Report) -> dict[str, Any]:
    """Count, rate and time left of what a run is at."""
    done = report.count - report.first
    left = (report.total - report.count) * report.seconds / max(done, 1)
    return {
        "count": f"{report.count}/{report.total}",
        "rate": pace(done, report.seconds) if done else "",
        "left": f"{clock(left)} left" if done and report.count < report.total else "",
        "note": report.note,
    }


class Board:
    """Where the runs of a study are; a context manager.

    Args:
        runs: all that are to be done, in the order in which they begin.
        processes: runs at a time.
        now: seconds on a steady clock.
    """

    def __init__(
        self, runs: Sequence[Planned], processes: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.forecast = Forecast({run.name: run for run in runs}, processes)
        self.now, self.start, self.printed = now, now(), now()
        self.latest: dict[str, Report] = {}
        self.told: dict[str, Report] = {}
        self.rows: dict[str, TaskID] = {}
        self.display: Progress | None = None
        console = Console(stderr=True)
        if is_live(console):
            label, *others = (
                TextColumn(text, markup=False)
                for text in ("{task.description}", *(f"{{task.fields[{name}]}}" for name in FIELDS))
            )
            columns = (label, BarColumn(), *others[:2], TimeElapsedColumn(), *others[2:])
            self.display = Progress(*columns, console=console)

    def __enter__(self) -> "Board":
        if self.display:
            self.display.start()
            self.total = self._row("total", PARTS)
            self.tick()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the display; lines can still be printed."""
        if self.display:
            self.display.stop()
            self.display = None

    def begin(self, run: str) -> None:
        """A run begins."""
        self.forecast.running.append(run)
        if self.display:
            self.rows[run] = self._row(f"{run}: starting")
            self.tick()

    def take(self, run: str, news: Report | str) -> None:
        """A report of a run, or a line that it prints."""
        if isinstance(news, str):
            self.say(f"{run}: {news}" if run else news)
        elif run in self.forecast.running:
            self.latest[run] = news
            self.forecast.take(run, news, self.now())
            if self.display:
                self.display.update(
                    self.rows[run],
                    description=f"{run}: {what_of(news)}",
                    completed=news.count,
                    total=news.total,
                    **_details(news),
                )
        self.tick()

    def end(self, run: str, text: str = "") -> None:
        """A run is done, has failed or never begins; `text` is printed."""
        if run in self.forecast.running:
            self.forecast.running.remove(run)
        self.forecast.over.add(run)
        if self.display and run in self.rows:
            self.display.remove_task(self.rows.pop(run))
        if text:
            self.say(text)
        self.tick()

    def tick(self) -> None:
        """Show the total anew, or print what is due."""
        now = self.now()
        if self.display:
            left, passed = self.forecast.left(now), now - self.start
            self.display.update(
                self.total,
                count=self._runs(),
                left="" if left is None else f"about {clock(left)} left",
                completed=0 if left is None else PARTS * passed / max(passed + left, 1e-9),
            )
        elif now - self.printed >= PLAIN_EVERY_SECONDS:
            self.printed = now
            self._print(now)

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print_line(f"[{clock(self.now() - self.start):>5}] {text}")

    def _print(self, now: float) -> None:
        """A line for each run that went on since the last time, and one for the total."""
        news = [run for run in self.forecast.running if self.latest.get(run) != self.told.get(run)]
        for run in news:
            report = self.told[run] = self.latest[run]
            shown = _details(report)
            parts = ", ".join(filter(None, (shown["rate"], shown["left"], shown["note"])))
            self.say(f"{run}: {what_of(report)} {shown['count']}" + f" ({parts})" * bool(parts))
        if news:
            left = self.forecast.left(now)
            self.say(
                f"total: {self._runs()}" + ("" if left is None else f", about {clock(left)} left")
            )

    def _runs(self) -> str:
        return f"{len(self.forecast.over)} of {len(self.forecast.runs)} runs"

    def _row(self, label: str, total: int | None = None) -> TaskID:
        assert self.display
        blank: dict[str, Any] = dict.fromkeys(FIELDS, "")
        return self.display.add_task(label, total=total, **blank)
