"""Passes that surely join the clips of several threads, and rows that each pass held."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch

from dfdbench.evaluate.metrics.joint import Joint


def all_at_once(
    monkeypatch: pytest.MonkeyPatch, compute: Callable[[Any], Any], clips: list[Any]
) -> tuple[list[Future[Any]], list[int]]:
    """`compute` of each clip in a thread of its own, and how many clips each pass was for.

    The first pass of each network waits until all clips, or all others, are in its queue.
    """
    own, widths, begun = Joint._pass, list[int](), set[int]()

    def patient(self: Joint) -> None:
        end = time.monotonic() + 5
        while id(self) not in begun and len(self._waiting) < len(clips) and time.monotonic() < end:
            time.sleep(0.001)
        begun.add(id(self))
        own(self)

    results = Joint._results

    def noted(self: Joint, pieces: Any) -> Any:
        widths.append(len(pieces))
        return results(self, pieces)

    def work(clip: Any) -> Any:
        torch.set_num_threads(1)
        return compute(clip)

    with monkeypatch.context() as patch:
        patch.setattr(Joint, "_pass", patient)
        patch.setattr(Joint, "_results", noted)
        with ThreadPoolExecutor(len(clips)) as pool:
            futures = [pool.submit(work, clip) for clip in clips]
    return futures, widths
