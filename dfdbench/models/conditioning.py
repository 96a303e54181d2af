"""What a network is conditioned on, as one NamedTuple of batched tensors.

Used by the families, the samplers and the training core, which only index, repeat, join and move
it and never look inside.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """Conditions of a batch; every field has the batch first.

    Attributes:
        prompt_embeds: (B L D) text embeddings, zero after the last token.
    """

    prompt_embeds: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditioning":
        """The same conditioning with `function` applied to every tensor."""
        return Conditioning(*(function(field) for field in self))

    def select(self, index: Tensor | slice) -> "Conditioning":
        """Rows `index` of the batch."""
        return self.map(lambda field: field[index])

    def repeat(self, count: int) -> "Conditioning":
        """One row (B = 1) repeated `count` times, as a view."""
        return self.map(lambda field: field.expand(count, *field.shape[1:]))

    def to(self, device: torch.device | str) -> "Conditioning":
        """On `device`."""
        return self.map(lambda field: field.to(device))


def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
    """Several conditionings joined along the batch."""
    return Conditioning(*(torch.cat(column) for column in zip(*parts, strict=True)))
