"""What one pass of a network costs: parameters, FLOPs and bytes kept for the backward pass.

Used by the training plan. The family's own code runs on tensors without storage, at the true shapes
and under CUDA's rules (fake_cuda.py), so nothing is estimated. Two networks of one and two blocks
are traced; the others cost what the second did.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfdbench.distill.batch import Batch, make_batch
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.plan import fake_cuda
from dfdbench.distill.plan.measure import Cost, Live, measure
from dfdbench.distill.plan.pieces import Piece
from dfdbench.models.blocks import Checkpointing, run_blocks
from dfdbench.models.causal import Cache, Layout
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.models.random_init import random_init_family

FEW_BLOCKS = (2, 3)  # networks whose memory is traced, and drawn on as a line


@dataclass(frozen=True)
class NetworkCost:
    """A transformer cut into its equal blocks and what is around them, for one clip.

    parameters: in all; block_parameters: of one block. parameter_bytes, block_bytes: of these, in
    the dtypes they are held in. hidden: numbers in the hidden states between two blocks, those of
    given frames among them. tokens, width: (L, D) of the features that a GAN looks at.
    """

    parameters: int
    parameter_bytes: int
    block_parameters: int
    block_bytes: int
    blocks: int
    outside: Cost
    block: Cost
    hidden: int
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

    conditioning_frames: first latent frames that the family is given.
    """

    latents: tuple[int, int, int, int]
    text: tuple[int, int]
    conditioning_frames: int = 0

    def batch(self, size: int, device: torch.device | str = "cpu") -> Batch:
        """Random clips and prompts of this shape, float32."""
        latents = torch.randn(size, *self.latents, device=device)
        text = torch.randn(size, *self.text, device=device)
        return make_batch(latents, Conditioning(text), self.conditioning_frames)

    @property
    def bytes(self) -> int:
        """Of one clip and its prompt in a batch, float32."""
        return 4 * (torch.Size(self.latents).numel() + self.text[0] * self.text[1])


def _bfloat16() -> AbstractContextManager[None]:
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


def _features(
    family: ModelFamily, module: nn.Module, batch: Batch, x: Tensor
) -> tuple[Tensor, Tensor]:
    """v̂ of a pass in bfloat16, and the hidden states after the last block."""
    t = torch.full((len(x),), 0.5, device=x.device)
    last = family.block_count(module) - 1
    with _bfloat16():
        v, (hidden,) = family.predict_with_features(module, x, t, batch.conditioning, (last,))
    return v, hidden


def _v(
    piece: Piece,
    family: ModelFamily,
    module: nn.Module,
    batch: Batch,
    x: Tensor,
    past: Cache | None,
) -> Tensor:
    """v̂ of a causal network's pass in bfloat16; of one that remembers a block, one of its keys."""
    with _bfloat16():
        out = piece.run(family, module, batch, x, past)
    return out if isinstance(out, Tensor) else out.layers[0][-1][0]


class Passed(NamedTuple):
    """A pass of a small network: its cost, shape of the features, numbers between two blocks."""

    cost: Cost
    features: tuple[int, ...]
    hidden: int


def _pass(
    family: ModelFamily,
    module: nn.Module,
    batch: Batch,
    frozen: bool,
    tapped: bool,
    piece: Piece | None,
) -> Passed:
    module.requires_grad_(not frozen)
    x = batch.latents.clone().requires_grad_(frozen)
    features: list[tuple[int, ...]] = []
    sizes: list[int] = []
    if piece:
        with _bfloat16():
            past = piece.cache(family, module, batch)
        x = piece.cut(x)

    def run() -> Tensor:
        if piece:
            features.append((0, 0, 0))  # no GAN looks at a causal network
            return _v(piece, family, module, batch, x, past)
        v, hidden = _features(family, module, batch, x)
        features.append(tuple(hidden.shape))
        return hidden.float() if tapped else v

    note = lambda _module, _inputs, output: sizes.append(output.numel())  # noqa: E731
    handle = family.blocks(module)[0].register_forward_hook(note)
    cost = measure(module, run)
    handle.remove()
    return Passed(cost, features[0], sizes[0])


class Held(NamedTuple):
    """Bytes of a pass over several clips, beside weights and their gradients.

    kept: until its backward pass. peak: the most, forward and backward; without gradients, of the
    forward pass.
    """

    kept: int
    peak: int

    def __add__(self, other: tuple[int, ...]) -> "Held":  # type: ignore[override]
        return Held(self.kept + other[0], self.peak + other[1])


def _held(
    family: ModelFamily,
    module: nn.Module,
    batch: Batch,
    gradient: str,
    checkpointing: Checkpointing,
    piece: Piece | None,
) -> Held:
    module.requires_grad_(gradient in ("weights", "features"))
    x = batch.latents.clone().requires_grad_(gradient.endswith("input"))
    run_blocks(family.blocks(module), checkpointing=checkpointing)
    for parameter in module.parameters():  # as from the second accumulation round on
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    past = None
    if piece:
        with _bfloat16():
            past = piece.cache(family, module, batch)
    with Live() as live, torch.set_grad_enabled(gradient != "none"):
        out: Any
        if piece:
            with _bfloat16():
                out = piece.run(family, module, batch, piece.cut(x), past)
        else:
            v, hidden = _features(family, module, batch, x)
            out = hidden if gradient.startswith("features") else v
            del v, hidden
        kept = live.bytes
        if gradient != "none":
            loss = out.float().sum()
            del out
            fake_cuda.backward(loss)
    return Held(kept, live.peak)


def _leave_meta(module: nn.Module) -> None:
    """Say that weights without storage are on a GPU."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(
                    torch.empty(weight.shape, dtype=weight.dtype, device=fake_cuda.DEVICE)
                )
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(
                    value.shape, dtype=value.dtype, device=fake_cuda.DEVICE
                )


def _network(
    model: str, layers: int | None, trained: bool, layout: Layout | None = None
) -> tuple[ModelFamily, nn.Module, list[int]]:
    """A network without storage, its family, and its parameters and their bytes.

    layout: makes it causal.
    """
    with random_init_family(model, torch.bfloat16, "meta", layers) as family:
        if layout:
            module = family.new_causal_module(layout)
        else:
            module = family.new_module() if trained else family.teacher
    held = [*module.parameters()]
    return family, module, [sum(p.numel() for p in held), sum(p.nbytes for p in held)]


@cache
def _whole(model: str, trained: bool) -> tuple[int, int, int]:
    """Parameters, their bytes and blocks of a network in full length."""
    family, module, (count, size) = _network(model, None, trained)
    return count, size, family.block_count(module)


@cache
@torch.enable_grad()
def trace(
    model: str,
    shape: Shape,
    trained: bool,
    frozen: bool,
    tapped: bool = False,
    piece: Piece | None = None,
) -> NetworkCost:
    """The costs of a network of `model` for one clip on a GPU.

    Args:
        model: as `random_init_family` takes it.
        trained: held in float32 and computing in bfloat16, else held in bfloat16 as the teacher.
        frozen: gradients go to the clip instead of the weights.
        tapped: they come from the features of the last block instead of v̂.
        piece: what a causal network is given; None for one that looks at the whole clip.
    """
    layout = piece.layout if piece else None
    parameters, parameter_bytes, blocks = _whole(model, trained)
    parts = []
    for layers in (1, 2):
        family, small, counts = _network(model, layers, trained, layout)
        with fake_cuda.fake_gpu():
            _leave_meta(small)
            batch = shape.batch(1, fake_cuda.DEVICE)
            parts.append((counts, _pass(family, small, batch, frozen, tapped, piece)))
    (few, one), (more, two) = parts
    block = two.cost - one.cost
    return NetworkCost(
        parameters=parameters,
        parameter_bytes=parameter_bytes,
        block_parameters=more[0] - few[0],
        block_bytes=more[1] - few[1],
        blocks=blocks,
        outside=one.cost - block,
        block=block,
        hidden=one.hidden,
        tokens=one.features[1],
        width=one.features[2],
    )


@cache
@torch.enable_grad()
def trace_held(
    model: str,
    shape: Shape,
    size: int,
    blocks: int,
    gradient: str,
    trained: bool,
    checkpointing: Checkpointing,
    piece: Piece | None = None,
) -> Held:
    """What a pass of a network over `size` clips holds on a GPU.

    Args:
        blocks: of the network, or up to the one whose features gradients come from.
        gradient: as `Passes` states it.
        trained: see `trace`.
        checkpointing: see `run_blocks`; it matters where there are gradients.
        piece: see `trace`; of a pass that remembers a block, what is kept are keys and values.
    """
    few, more = FEW_BLOCKS
    found = []
    for layers in FEW_BLOCKS:
        family, module, _ = _network(model, layers, trained, piece.layout if piece else None)
        with fake_cuda.fake_gpu():
            _leave_meta(module)
            batch = shape.batch(size, fake_cuda.DEVICE)
            found.append(_held(family, module, batch, gradient, checkpointing, piece))
    slopes = [(b - a) // (more - few) for a, b in zip(*found, strict=True)]
    return found[0] + tuple((blocks - few) * slope for slope in slopes)


class HeadsCost(NamedTuple):
    """The discriminator's heads: parameters, cost of a look, and what it holds."""

    parameters: int
    cost: Cost
    held: Held


@cache
@torch.enable_grad()
def trace_heads(
    taps: int, size: int, tokens: int, width: int, weights: bool, features: bool
) -> HeadsCost:
    """The discriminator's heads looking at the features of `size` clips.

    weights, features: where gradients go.
    """
    here = fake_cuda.DEVICE
    with fake_cuda.fake_gpu():
        with here:
            heads = Heads(taps, width).requires_grad_(weights)
        hidden: Sequence[Tensor] = [
            torch.empty(
                size, tokens, width, dtype=torch.bfloat16, device=here, requires_grad=features
            )
            for _ in range(taps)
        ]
        cost = measure(heads, lambda: heads(hidden))
        with Live() as live:
            loss = heads(hidden).sum()
            kept = live.bytes
            if loss.requires_grad:
                fake_cuda.backward(loss)
    return HeadsCost(sum(p.numel() for p in heads.parameters()), cost, Held(kept, live.peak))
