"""One network for the clips of several threads: what waits at a moment is computed together.

Used by the families on a GPU. While a pass runs, the threads of other clips decode, prepare their
frames and queue here, so that the next pass is full and the GPU has no pauses. On a CPU clips are
the parallel unit, and each thread computes its own.
"""

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

Forward = Callable[..., Tensor]


class _Request:
    """The rows of one call: inputs (N, …), how many were taken into a pass, what came of them."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs, self.taken = inputs, 0
        self.parts, self.done = list[Tensor](), 0
        self.error: Exception | None = None
        self.kind = [(x.shape[1:], x.dtype) for x in inputs]  # rows of one kind fit into a pass

    @property
    def left(self) -> int:
        """Rows that no pass has taken yet."""
        return 0 if self.error else len(self.inputs[0]) - self.taken

    @property
    def finished(self) -> bool:
        """Whether all rows are there, or will never be."""
        return self.error is not None or self.done == len(self.inputs[0])

    def take(self, count: int) -> tuple[Tensor, ...]:
        """The next rows."""
        start, self.taken = self.taken, self.taken + count
        return tuple(x[start : self.taken] for x in self.inputs)

    def give(self, result: Tensor | Exception, count: int) -> None:
        """What came of the next rows."""
        if isinstance(result, Exception):
            self.error = result
        else:
            self.parts.append(result)
            self.done += count


class Joint:
    """A network's forward pass over rows (N, …) that several threads may ask for at once.

    A row's result must not depend on the others (evaluation mode); sums may be rounded differently
    in another batch. Rows come back to the caller in its order. Where a pass fails it is repeated
    in halves, so that what is at fault fails alone, in its own thread.
    """

    def __init__(self, forward: Forward, most: Callable[..., int], shared: bool) -> None:
        """Args:
        forward: of tensors (N, …) to (N, …), without gradients.
        most: rows of one pass, told the inputs of the call that leads it.
        shared: join the calls of threads; else each computes its own, by `most` rows.
        """
        self._forward, self._most, self._shared = forward, most, shared
        self._waiting = list[_Request]()
        self._queue, self._turn = Lock(), Lock()

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The results of all rows (N, …); raises what the network raised on them."""
        if not self._shared:
            pieces = zip(*(x.split(self._most(*inputs)) for x in inputs), strict=True)
            return torch.cat([self._forward(*piece) for piece in pieces])
        mine = _Request(inputs)
        with self._queue:
            self._waiting.append(mine)
        while not mine.finished:
            with self._turn:  # whoever has it computes for all
                if not mine.finished:
                    self._pass()
        if mine.error:
            raise mine.error
        return torch.cat(mine.parts)

    def _pass(self) -> None:
        """Compute a batch of what waits, the oldest first."""
        with self._queue:
            first = self._waiting[0]
            room, taken = max(1, self._most(*first.inputs)), list[_Request]()
            pieces = list[tuple[Tensor, ...]]()
            for request in self._waiting:
                if room and request.kind == first.kind:
                    count = min(room, request.left)
                    pieces.append(request.take(count))
                    taken.append(request)
                    room -= count
            self._waiting = [request for request in self._waiting if request.left]
        for request, piece, result in zip(taken, pieces, self._results(pieces), strict=True):
            request.give(result, len(piece[0]))
        with self._queue:  # one that failed has no more rows to take
            self._waiting = [request for request in self._waiting if request.left]

    def _results(self, pieces: list[tuple[Tensor, ...]]) -> list[Tensor | Exception]:
        """What comes of each piece: a tensor, or the error that it alone raises."""
        try:
            together = [torch.cat(column) for column in zip(*pieces, strict=True)]
            return [*self._forward(*together).split([len(piece[0]) for piece in pieces])]
        except Exception as error:
            if len(pieces) == 1:
                return [error]
        # Out of the handler: the error would keep the tensors of the pass that failed.
        middle = len(pieces) // 2
        return [*self._results(pieces[:middle]), *self._results(pieces[middle:])]
