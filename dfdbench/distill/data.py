"""Real clips for training: latents with their prompts, in an order fixed by the seed alone.

Used by the loop. Sources are named by `data.source` of the recipe.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dfdbench.distill.nets import Batch
from dfdbench.distill.streams import seeded
from dfdbench.errors import unknown_name
from dfdbench.models import Conditioning, Family
from dfdbench.recipe import Recipe

SOURCES = ("toy",)


@dataclass
class Clips:
    """All real latents in memory, with each prompt embedded once.

    Attributes:
        latents: (N C T H W) float32 on the CPU. prompt_index: (N,) rows of `embedded`.
    """

    latents: Tensor
    prompt_index: Tensor
    embedded: Conditioning
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        self._cached: tuple[int, Tensor] = (-1, torch.empty(0))

    def batch(self, start: int, count: int) -> Batch:
        """Clips `start` to `start + count` of the endless stream of shuffled passes."""
        total, parts = len(self.latents), []
        while count > 0:
            epoch, offset = divmod(start, total)
            part = self._order(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        rows = torch.cat(parts)
        index = self.prompt_index[rows].to(self.device)
        return Batch(self.latents[rows].to(self.device), self.embedded.select(index))

    def _order(self, epoch: int) -> Tensor:
        if self._cached[0] != epoch:
            generator = seeded("cpu", "order", self.seed, epoch)
            self._cached = (epoch, torch.randperm(len(self.latents), generator=generator))
        return self._cached[1]

    @cached_property
    def sha256(self) -> str:
        """Hash of the latents and their prompts' indices."""
        joint = hashlib.sha256(self.latents.contiguous().numpy().tobytes())
        joint.update(self.prompt_index.contiguous().numpy().tobytes())
        return joint.hexdigest()


def load_clips(recipe: Recipe, family: Family) -> Clips:
    """The recipe's real clips, encoded by the family (and cached by the source)."""
    if recipe.data.source not in SOURCES:
        raise unknown_name("data.source", recipe.data.source, SOURCES)
    from dfdbench.toy.data import real_latents

    latents, prompt_index, prompts = real_latents(family, recipe.data.count, recipe.data.seed)
    embedded = family.encode_prompt(prompts)
    return Clips(latents.cpu().float(), prompt_index.cpu(), embedded, recipe.seed, family.device)
