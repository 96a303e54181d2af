"""A GPU without one: tensors without storage on CUDA, under CUDA's rules of dtypes and attention.

Used by the plan's traces, on machines with and without a GPU. Forward passes go through torch's own
dispatcher. Its backward engine asks the driver for streams as soon as a node is on CUDA, so
`backward` walks the graph in its place, in the engine's order.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import GraphExecGroup

DEVICE = torch.device("cuda", 0)


class _FusedAttention(TorchFunctionMode):
    """Attention by the flash kernel, which CUDA takes in bfloat16 and a device without one cannot.

    cuDNN's keeps the same tensors for its backward pass.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        q, k, v = given["query"], given["key"], given["value"]
        if torch.is_autocast_enabled("cuda"):
            q, k, v = (x.to(torch.get_autocast_dtype("cuda")) for x in (q, k, v))
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within it tensors have no storage, and those on `DEVICE` behave as on a GPU.

    torch.autocast("cuda") is on there as well, which it is not by itself where there is no GPU.
    """
    with (
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
        FakeTensorMode(allow_non_fake_inputs=True),
        _FusedAttention(),
    ):
        yield


def _order(node: Any) -> int:
    """Nodes run from the last that was made to the first; leaves take gradients at once."""
    return -(2**63) if hasattr(node, "variable") else -node._sequence_nr()


def _run(node: Any, gradients: dict[int, Tensor]) -> Sequence[Tensor | None]:
    """Gradients for `node.next_functions`, of those of its outputs by their position."""
    if hasattr(node, "variable"):
        (gradient,) = gradients.values()
        leaf = node.variable
        leaf.grad = gradient.detach() if leaf.grad is None else leaf.grad.add_(gradient)
        return ()
    outputs = [gradients.get(i) for i in range(len(node._input_metadata))]
    python = isinstance(node, torch.autograd.function.BackwardCFunction)
    found = node.apply(*outputs) if python else node(*outputs)
    return found if isinstance(found, tuple) else (found,)


def _fitted(gradient: Tensor, metadata: Any) -> Tensor:
    """Summed over what was broadcast, in the dtype of the value that it is the gradient of."""
    if gradient.shape != metadata.shape:
        gradient = gradient.sum_to_size(metadata.shape)
    return gradient.to(metadata.dtype)


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """loss.backward() of a scalar, on any device; the graph is freed on the way."""
    root = loss.grad_fn
    assert root is not None
    waiting: Counter[Any] = Counter({root: 0})
    stack = [root]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                if child not in waiting:
                    stack.append(child)
                waiting[child] += 1
    gradients: dict[Any, dict[int, Tensor]] = {root: {0: torch.ones_like(loss)}}
    ready = [(_order(root), 0, root)]
    loss.detach_()
    del root
    with GraphExecGroup():  # a checkpointed block is computed again once
        while ready:
            *_, node = heapq.heappop(ready)
            waiting.pop(node)
            given = gradients.pop(node, None)
            found = _run(node, given) if given else ()
            del given
            following = node.next_functions
            del node
            for i, (child, position) in enumerate(following):
                if child is None:
                    continue
                if i < len(found) and (gradient := found[i]) is not None:
                    new = _fitted(gradient, child._input_metadata[position])
                    del gradient
                    theirs = gradients.setdefault(child, {})
                    theirs[position] = theirs[position] + new if position in theirs else new
                    del new
                waiting[child] -= 1
                if waiting[child] == 0:
                    heapq.heappush(ready, (_order(child), len(ready) + id(child), child))
            found, following, child = (), (), None  # or they would keep what a node saved
