"""One progress display a terminal: live with rate and ETA there, plain lines otherwise.

A process that works for another shows nothing of its own: `send_to` hands its bars and lines over.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import RLock
from typing import Literal, TypeVar

from rich import progress
from rich.console import Console
from rich.progress import Progress

from dfdbench.utils.errors import clean

T = TypeVar("T")
Stage = Literal["", "train", "generate", "score"]
PLAIN_EVERY_SECONDS = 10.0
SENT_EVERY_SECONDS = 0.5
FIELDS = ("{task.description}", "{task.fields[rate]}", "{task.fields[note]}")


@dataclass(frozen=True)
class Report:
    """Where a bar is: `count` of `total` items, `first` of them done before its `seconds` began.

    stage: what of a study's run it counts, if it does.
    """

    label: str
    count: int
    total: int
    first: int = 0
    seconds: float = 0.0
    note: str = ""
    stage: Stage = ""


_lock = RLock()
_shown: list["Bar"] = []  # bars on a terminal, which share its one display
_sink: Callable[[Report | str], None] | None = None


def send_to(sink: Callable[[Report | str], None] | None) -> None:
    """Hand reports of bars, and lines, to `sink` and show none here; None shows them again."""
    global _sink
    _sink = sink


def clock(seconds: float) -> str:
    """Seconds as "4:05", from an hour on as "1:04:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def pace(items: int, seconds: float) -> str:
    """Items a second, or below one a second the seconds of each."""
    rate = items / max(seconds, 1e-9)
    return f"{rate:.2f}/s" if rate >= 1 or not items else f"{1 / rate:.1f} s each"


def is_live(console: Console) -> bool:
    """Whether a display can be drawn again in place."""
    return console.is_terminal and not console.is_dumb_terminal


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
        stage: what of a study's run it counts, from which the study's time left follows.
    """

    def __init__(
        self, total: int, label: str, done: int = 0, quiet: bool = False, stage: Stage = ""
    ) -> None:
        self.total, self.label, self.count, self.first = total, clean(label), done, done
        self.note, self.quiet, self.stage = "", quiet, stage
        self.display: Progress  # where it is shown on a terminal
        self.start = self.printed = self.sent = time.monotonic()

    def __enter__(self) -> "Bar":
        with _lock:
            if _sink:
                self._send()
                return self
            console = Console(stderr=True)
            if not self.quiet and is_live(console):
                self.display = _shown[0].display if _shown else _display(console)
                self.display.start()
                self.task = self.display.add_task(
                    self.label, total=self.total, completed=self.count, rate="", note=""
                )
                _shown.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        with _lock:
            if _sink:
                self._send()
            elif self in _shown:
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
            if _sink:
                if now - self.sent > SENT_EVERY_SECONDS:
                    self._send()
            elif self in _shown:
                rate = pace(self.count - self.first, now - self.start)
                self.display.update(self.task, completed=self.count, rate=rate, note=self.note)
            elif self.quiet:
                return
            elif now - self.printed > PLAIN_EVERY_SECONDS and self.count < self.total:
                self.printed = now
                self._plain()

    def _send(self) -> None:
        if _sink and not self.quiet:
            self.sent = time.monotonic()
            where = (self.label, self.count, self.total, self.first, self.sent - self.start)
            _sink(Report(*where, self.note, self.stage))

    def _plain(self, final: bool = False) -> None:
        seconds = time.monotonic() - self.start
        done = self.count - self.first
        left = (self.total - self.count) * seconds / max(done, 1e-9)
        rate = pace(done, seconds) + ("" if final else f", {clock(left)} left")
        line = f"{self.label}: {self.count}/{self.total} in {clock(seconds)} ({rate})"
        say(f"{line} {self.note}".rstrip())


def say(text: str) -> None:
    """Print a line about the work on stderr."""
    if _sink:
        _sink(clean(text))
    else:
        print_line(text)


def print_line(text: str) -> None:
    """Print a line on this process's own stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def say_warning(message: Warning | str, *_: object, **__: object) -> None:
    """In place of warnings.showwarning: a line, without the place in the code it comes from."""
    say(f"warning: {message}")


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, counting each as finished when the next is asked for."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with Bar(count, label) as bar:
        for item in items:
            yield item
            bar.step()
