"""FLOPs and bytes of a computation, on tensors with or without storage.

Used by trace.py, which puts networks through it. FLOPs are those of torch's FlopCounterMode, kept
bytes the distinct storages that autograd saves, live bytes what tensors hold at a time.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from dfdbench.distill.plan import fake_cuda


@dataclass(frozen=True)
class Cost:
    """Of one pass over one clip.

    forward, backward: FLOPs, a multiply-add counted as two. kept: bytes saved for the backward
    pass, without weights. copies: bytes of weights cast for computing, which do not grow with the
    batch.
    """

    forward: int
    backward: int
    kept: int
    copies: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def __mul__(self, times: int) -> "Cost":
        return Cost(*(times * a for a in _values(self)))

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1


def _values(cost: Cost) -> tuple[int, int, int, int]:
    return cost.forward, cost.backward, cost.kept, cost.copies


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Live(TorchDispatchMode):
    """The most bytes that tensors made within it hold at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        old = {_key(a) for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in self.known | old:
                self._enter(tensor.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        self.known.add(storage._cdata)
        self.bytes += storage.nbytes()
        weakref.finalize(storage, self._leave, storage._cdata, storage.nbytes())

    def _leave(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


class _Casts(TorchDispatchMode):
    """Notes which storages are weights, or weights in another dtype."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.kept: list[Any] = []  # so that no address is used twice
        self.weights = {_key(p) for p in module.parameters()}
        self.copies: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self.weights:
            self.kept.append(out)
            self.copies.add(_key(out))
        return out


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    """FLOPs of attention from the shapes of q, k and v: two matrix products."""
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(_: Any, q: Any, k: Any, v: Any, *__: Any, **___: Any) -> int:
    """Four matrix products; that a fused kernel makes the scores anew is not counted as work."""
    return 2 * int(sdpa_flop_count(q, k, v))


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


def counter() -> FlopCounterMode:
    """Counts FLOPs; torch alone leaves out the fused attention of the CPU."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def measure(module: nn.Module, run: Callable[[], Tensor]) -> Cost:
    """The cost of `run()` through `module`, and of the backward pass from what it gives."""
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[_key(tensor)] = tensor
        return tensor

    casts = _Casts(module)
    with (
        counter() as forward,
        casts,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = run()
    backward = 0
    if out.requires_grad:
        with counter() as back:
            fake_cuda.backward(out.float().sum())
        backward = back.get_total_flops()
    size = {key: tensor.untyped_storage().nbytes() for key, tensor in saved.items()}
    copies = sum(n for key, n in size.items() if key in casts.copies)
    rest = sum(n for key, n in size.items() if key not in casts.copies | casts.weights)
    return Cost(forward.get_total_flops(), backward, rest, copies)
