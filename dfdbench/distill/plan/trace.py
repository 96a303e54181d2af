"""What one pass of a network costs: parameters, FLOPs and bytes kept for the backward pass.

Used by the training plan. The family's own code runs on tensors without storage (FakeTensorMode),
at the true shapes and in the dtypes of a GPU, so nothing is estimated. Two networks of one and two
blocks are traced; the others cost what the second did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dfdbench.distill.batch import Batch, make_batch
from dfdbench.distill.discriminator import Heads
from dfdbench.distill.plan.measure import Cost, Live, measure
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.models.random_init import random_init_family


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


class Passed(NamedTuple):
    """What `run_network` measures of a pass: see NetworkCost."""

    cost: Cost
    features: tuple[int, ...]
    boundary: int
    working: int
    working_backward: int


def run_network(
    family: ModelFamily,
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
    with Live() as live, torch.no_grad():
        run()
    with Live() as both:
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
        model: as `random_init_family` takes it.
        trained: held in float32 and computing in bfloat16, else held in bfloat16 as the teacher.
        frozen, tapped: see `run_network`.
    """
    parts = []
    for layers in (None, 1, 2):
        with random_init_family(model, torch.bfloat16, "meta", layers) as family:
            module = family.new_module() if trained else family.teacher
        held = [*module.parameters()]
        counts = [sum(p.numel() for p in held), sum(p.nbytes for p in held)]
        if layers is None:
            whole, blocks = counts, family.block_count(module)
        else:
            with FakeTensorMode():
                _leave_meta(module)
                ran = run_network(family, module, shape.batch(1), frozen, tapped, torch.bfloat16)
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
