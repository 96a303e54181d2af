"""Ctrl-C, SIGTERM and SIGHUP: one line at once, then the end at a point from which work goes on.

`interruptible` is around every command: a signal raises `Stopped`, a KeyboardInterrupt. `deferred`
is around training: the signal is noted, and the loop stops where it can write a checkpoint.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
LINE = (
    "stopping; once stopped, give the same command again to go on (distill: with --resume); "
    "Ctrl-C again ends it at once"
)


class Stopped(KeyboardInterrupt):
    """A signal stopped the work, and a line said so."""


class Stop:
    """Whether a signal asked to stop."""

    def __init__(self) -> None:
        self.requested = False


def say_stopping() -> None:
    """Say it, unless another process speaks for this one.

    From a signal's handler, where print could be within a print.
    """
    if os.environ.get("RANK", "0") == "0" and multiprocessing.parent_process() is None:
        with contextlib.suppress(OSError):  # of a terminal that hung up
            os.write(2, f"{LINE}\n".encode())


@contextmanager
def interruptible() -> Iterator[None]:
    """Let signals stop the body by `Stopped`; a second Ctrl-C ends the process at once."""

    def handle(stop: Stop, number: int) -> None:
        if not stop.requested:
            stop.requested = True
            say_stopping()
            raise Stopped
        if number == signal.SIGINT:
            os._exit(130)

    with _handling(handle):
        yield


@contextmanager
def deferred() -> Iterator[Stop]:
    """Let signals in the body only note that they came; the body ends itself where it can.

    A second Ctrl-C ends the process at once: what is on the disk is whole.
    """

    def handle(stop: Stop, number: int) -> None:
        if stop.requested and number == signal.SIGINT:
            os._exit(130)
        if not stop.requested:
            stop.requested = True
            say_stopping()

    with _handling(handle) as stop:
        yield stop


@contextmanager
def _handling(handle: Callable[[Stop, int], None]) -> Iterator[Stop]:
    """Give signals to `handle` within the body; those that are ignored already stay so."""
    stop, before = Stop(), dict[int, Any]()

    def receive(number: int, frame: FrameType | None) -> None:
        handle(stop, number)

    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.getsignal(number)
                signal.signal(number, receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with(parent: int) -> None:
    """Stop this process by SIGTERM soon after the process `parent`, which it serves, is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        while True:  # the first ends its work, the next itself, where it waits for more
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
