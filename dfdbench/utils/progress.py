"""One progress display a terminal: live with rate and ETA there, plain lines otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from threading import RLock
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.progress import Progress

from dfdbench.utils.errors import clean

T = TypeVar("T")
PLAIN_EVERY_SECONDS = 10.0
FIELDS = ("{task.description}", "{task.fields[rate]}", "{task.fields[note]}")

_lock = RLock()
_shown: list["Bar"] = []  # bars on a terminal, which share its one display


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _pace(items: int, seconds: float) -> str:
    """Items a second, or below one a second the seconds of each."""
    rate = items / max(seconds, 1e-9)
    return f"{rate:.2f}/s" if rate >= 1 or not items else f"{1 / rate:.1f} s each"


def _display(console: Console) -> Progress:
    label, rate, note = (progress.TextColumn(field, markup=False) for field in FIELDS)
    passed, left = progress.TimeElapsedColumn(), progress.TimeRemainingColumn()
    columns = (label, progress.BarColumn(), progress.MofNCompleteColumn(), rate, passed, left, note)
    return Progress(*columns, console=console)


class Bar:
    """A counter of finished items; use as a context manager and call `step`, from any thread.

    Args:
        total: number of items; `done` of them were finished by an earlier run.
        label: what is counted, shown first.
        quiet: show nothing, for the processes beside the first.
    """

    def __init__(self, total: int, label: str, done: int = 0, quiet: bool = False) -> None:
        self.total, self.label, self.count, self.first = total, clean(label), done, done
        self.note, self.quiet = "", quiet
        self.display: Progress  # where it is shown on a terminal
        self.start = self.printed = time.monotonic()

    def __enter__(self) -> "Bar":
        with _lock:
            console = Console(stderr=True)
            if not self.quiet and console.is_terminal:
                self.display = _shown[0].display if _shown else _display(console)
                self.display.start()
                self.task = self.display.add_task(
                    self.label, total=self.total, completed=self.count, rate="", note=""
                )
                _shown.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        with _lock:
            if self in _shown:
                _shown.remove(self)
                if _shown:
                    self.display.remove_task(self.task)
                else:
                    self.display.stop()
            elif self.count > self.first and not self.quiet:
                self._plain(final=True)

    def step(self, items: int = 1, note: str = "") -> None:
        """Count `items` more as finished; `note` is a short figure to show, such as a loss."""
        with _lock:
            self.count += items
            self.note = clean(note) or self.note
            now = time.monotonic()
            if self in _shown:
                rate = _pace(self.count - self.first, now - self.start)
                self.display.update(self.task, completed=self.count, rate=rate, note=self.note)
            elif self.quiet:
                return
            elif now - self.printed > PLAIN_EVERY_SECONDS and self.count < self.total:
                self.printed = now
                self._plain()

    def _plain(self, final: bool = False) -> None:
        seconds = time.monotonic() - self.start
        done = self.count - self.first
        left = (self.total - self.count) * seconds / max(done, 1e-9)
        pace = _pace(done, seconds) + ("" if final else f", {_clock(left)} left")
        line = f"{self.label}: {self.count}/{self.total} in {_clock(seconds)} ({pace})"
        say(f"{line} {self.note}".rstrip())


def say(text: str) -> None:
    """Print a line about the work on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, counting each as finished when the next is asked for."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with Bar(count, label) as bar:
        for item in items:
            yield item
            bar.step()
