"""One progress bar for everything: live with rate and ETA on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
PLAIN_EVERY_SECONDS = 10.0


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Bar:
    """A counter of finished items; use as a context manager and call `step`.

    Args:
        total: number of items; `done` of them were finished by an earlier run.
        label: what is counted, shown first.
        quiet: show nothing, for the processes beside the first.
    """

    def __init__(self, total: int, label: str, done: int = 0, quiet: bool = False) -> None:
        self.total, self.label, self.count, self.first = total, label, done, done
        self.start = self.printed = time.monotonic()
        self.live: Progress | None = None
        self.note, self.quiet = "", quiet

    def __enter__(self) -> "Bar":
        console = Console(stderr=True)
        if console.is_terminal and not self.quiet:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self.live.start()
            self.task = self.live.add_task(
                self.label, total=self.total, completed=self.count, rate="", note=""
            )
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live:
            self.live.stop()
        elif self.count > self.first and not self.quiet:
            self._plain(final=True)

    def step(self, items: int = 1, note: str = "") -> None:
        """Count `items` more as finished; `note` is a short figure to show, such as a loss."""
        self.count += items
        self.note = note or self.note
        now = time.monotonic()
        if self.live:
            rate = (self.count - self.first) / max(now - self.start, 1e-9)
            self.live.update(self.task, completed=self.count, rate=f"{rate:.2f}/s", note=self.note)
        elif self.quiet:
            return
        elif now - self.printed > PLAIN_EVERY_SECONDS and self.count < self.total:
            self.printed = now
            self._plain()

    def _plain(self, final: bool = False) -> None:
        seconds = time.monotonic() - self.start
        rate = (self.count - self.first) / max(seconds, 1e-9)
        eta = "" if final else f", {_clock((self.total - self.count) / max(rate, 1e-9))} left"
        line = f"{self.label}: {self.count}/{self.total} in {_clock(seconds)} ({rate:.2f}/s{eta})"
        print(f"{line} {self.note}".rstrip(), file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, counting each as finished when the next is asked for."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with Bar(count, label) as bar:
        for item in items:
            yield item
            bar.step()
