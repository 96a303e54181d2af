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
        prompt_embeds: (B L D) text embeddings, padded as the family's pipeline pads them.
        image_latents: (B C K H W) normalised latents of the K given first frames; None for a
            family that is given none.
    """

    prompt_embeds: Tensor
    image_latents: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Conditioning":
        """The same conditioning with `function` applied to every tensor."""
        image = self.image_latents
        return Conditioning(
            function(self.prompt_embeds), None if image is None else function(image)
        )

    def given(self, image_latents: Tensor | None) -> "Conditioning":
        """The same text with these first frames (B C K H W)."""
        return self._replace(image_latents=image_latents)

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
    images = [part.image_latents for part in parts if part.image_latents is not None]
    texts = torch.cat([part.prompt_embeds for part in parts])
    return Conditioning(texts, torch.cat(images) if images else None)
