"""What one pass of a network costs: parameters, FLOPs and bytes kept for the backward pass.

Used by the training plan. The family's own code runs on tensors without storage (FakeTensorMode),
at the true shapes and in the dtypes of a GPU, so nothing is estimated: FLOPs are those of torch's
FlopCounterMode, kept bytes the distinct storages that autograd saves. Two networks of one and two
blocks are traced; the others cost what the second did.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from dfdbench.distill.data import make_batch
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.nets import Batch
from dfdbench.models import Conditioning, Family
from dfdbench.models.blank import blank_family


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


@dataclass(frozen=True)
class NetworkCost:
    """A transformer cut into its equal blocks and what is around them.

    parameters: in all; block_parameters: of one block. parameter_bytes: of all, in the dtypes they
    are held in. boundary: bytes of the hidden states between two blocks, of one clip. working,
    working_backward: the most bytes that a pass of a network of one block holds beside its
    weights, without gradients, and forward and backward. tokens, width: (L, D) of the features
    that a GAN looks at.
    """

    parameters: int
    parameter_bytes: int
    block_parameters: int
    blocks: int
    outside: Cost
    block: Cost
    boundary: int
    working: int
    working_backward: int
    tokens: int
    width: int

    def upto(self, block: int) -> Cost:
        """A pass whose backward pass starts after block number `block`; forward it is whole."""
        done = self.outside + self.block * (block + 1)
        rest = self.block.forward * (self.blocks - block - 1)
        return Cost(done.forward + rest, done.backward, done.kept, done.copies)

    @property
    def whole(self) -> Cost:
        """All of a pass."""
        return self.outside + self.block * self.blocks


@dataclass(frozen=True)
class Shape:
    """The clips of a plan: latents (C T H W), and (L D) of the prompt embedding.

    clean_frames: first latent frames that the family is given.
    """

    latents: tuple[int, int, int, int]
    text: tuple[int, int]
    clean_frames: int = 0

    def batch(self, size: int, device: torch.device | str = "cpu") -> Batch:
        """Random clips and prompts of this shape, float32."""
        latents = torch.randn(size, *self.latents, device=device)
        text = torch.randn(size, *self.text, device=device)
        return make_batch(latents, Conditioning(text), self.clean_frames)

    @property
    def bytes(self) -> int:
        """Of one clip and its prompt in a batch, float32."""
        return 4 * (torch.Size(self.latents).numel() + self.text[0] * self.text[1])


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Live(TorchDispatchMode):
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
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}


def counter() -> FlopCounterMode:
    """Counts FLOPs; torch alone leaves out the fused attention of the CPU."""
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def measure(module: nn.Module, run: Any) -> Cost:
    """The cost of `run()`, which gives a tensor, through `module`, and of its backward pass.

    Works on tensors with and without storage alike.
    """
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
            out.float().sum().backward()
        backward = back.get_total_flops()
    size = {key: tensor.untyped_storage().nbytes() for key, tensor in saved.items()}
    copies = sum(n for key, n in size.items() if key in casts.copies)
    rest = sum(n for key, n in size.items() if key not in casts.copies | casts.weights)
    return Cost(forward.get_total_flops(), backward, rest, copies)


class Passed(NamedTuple):
    """What `run_network` measures of a pass: see NetworkCost."""

    cost: Cost
    features: tuple[int, ...]
    boundary: int
    working: int
    working_backward: int


def run_network(
    family: Family,
    module: nn.Module,
    batch: Batch,
    frozen: bool,
    tapped: bool,
    precision: torch.dtype | None,
) -> Passed:
    """Measure passes of `module` over `batch`, with and without gradients.

    frozen: gradients go to the clip instead of the weights. tapped: they come from the features
    of the last block instead of v̂.
    """
    module.requires_grad_(not frozen)
    x = batch.latents.clone().requires_grad_(frozen)
    t = torch.full((len(x),), 0.5, device=x.device)
    last = family.block_count(module) - 1
    features: list[tuple[int, ...]] = []
    sizes: list[int] = []

    def run() -> Tensor:
        with torch.autocast(x.device.type, dtype=precision, enabled=precision is not None):
            v, (hidden,) = family.predict_with_features(module, x, t, batch.conditioning, (last,))
        features.append(tuple(hidden.shape))
        return hidden.float() if tapped else v

    note = lambda _module, _inputs, output: sizes.append(output.nbytes)  # noqa: E731
    handle = family.blocks(module)[0].register_forward_hook(note)
    with _Live() as live, torch.no_grad():
        run()
    with _Live() as both:
        run().sum().backward()
    handle.remove()
    return Passed(measure(module, run), features[0], sizes[0], live.peak, both.peak)


def _leave_meta(module: nn.Module) -> None:
    """Say that weights without storage are on the CPU, where attention is a fused kernel."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype))
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype)


@cache
@torch.enable_grad()
def trace(
    model: str, shape: Shape, trained: bool, frozen: bool, tapped: bool = False
) -> NetworkCost:
    """The costs of a network of `model` for one clip on a GPU.

    Args:
        model: as `blank_family` takes it.
        trained: held in float32 and computing in bfloat16, else held in bfloat16 as the teacher.
        frozen, tapped: see `run_network`.
    """
    parts = []
    for layers in (None, 1, 2):
        with blank_family(model, torch.bfloat16, "meta", layers) as blank:
            module = blank.family.new_module() if trained else blank.family.teacher
        held = [*module.parameters()]
        counts = [sum(p.numel() for p in held), sum(p.nbytes for p in held)]
        if layers is None:
            whole, blocks = counts, blank.family.block_count(module)
        else:
            with FakeTensorMode():
                _leave_meta(module)
                ran = run_network(
                    blank.family, module, shape.batch(1), frozen, tapped, torch.bfloat16
                )
            parts.append((counts, ran))
    (few, one), (more, two) = parts
    block = two.cost - one.cost
    return NetworkCost(
        parameters=whole[0],
        parameter_bytes=whole[1],
        block_parameters=more[0] - few[0],
        blocks=blocks,
        outside=one.cost - block,
        block=block,
        boundary=one.boundary,
        working=one.working,
        working_backward=one.working_backward,
        tokens=one.features[1],
        width=one.features[2],
    )


@cache
@torch.enable_grad()
def trace_heads(
    taps: int, tokens: int, width: int, weights: bool, features: bool
) -> tuple[int, Cost]:
    """Parameters of the discriminator's heads, and their cost on the features of one clip.

    weights, features: where gradients go.
    """
    with FakeTensorMode():
        heads = Heads(taps, width).requires_grad_(weights)
        hidden: Sequence[Tensor] = [
            torch.empty(1, tokens, width, dtype=torch.bfloat16, requires_grad=features)
            for _ in range(taps)
        ]
        cost = measure(heads, lambda: heads(hidden))
    return sum(p.numel() for p in heads.parameters()), cost
