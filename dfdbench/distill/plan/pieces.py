"""What a causal network is given in one pass: a whole clip, or a block and a cache of those before.

Used by the training plan, which records such passes, traces them and adds up their caches.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dfdbench.distill.batch import Batch
from dfdbench.models.causal import Cache, Layout
from dfdbench.models.family import ModelFamily


@dataclass(frozen=True)
class Piece:
    """The frames of a pass of a causal network.

    Attributes:
        kind: "clip", all blocks in one pass; "after_clean", the same, each after a clean copy of
            those before it; "block", one that follows a cache; "memory", a clean one whose keys
            and values the cache takes.
        begin, frames: its first latent frame and how many there are.
    """

    layout: Layout
    kind: Literal["clip", "after_clean", "block", "memory"]
    begin: int
    frames: int

    @property
    def looks(self) -> list[tuple[int, int]]:
        """Latent frames of queries and of keys, of each look that self-attention takes."""
        end = self.begin + self.frames
        if self.kind in ("block", "memory"):
            return [(self.frames, self.frames + len(self.layout.seen(self.begin, end)))]
        blocks = self.layout.blocks(self.frames)
        once = [(len(b), len(b) + len(self.layout.seen(b.start, b.stop))) for b in blocks]
        return 2 * once if self.kind == "after_clean" else once

    @property
    def passed(self) -> int:
        """Latent frames that go through the network."""
        return sum(queries for queries, _ in self.looks)

    def cut(self, x: Tensor) -> Tensor:
        """As many of the latent frames of x (B C T H W)."""
        return x[:, :, : self.frames]

    def cache(self, family: ModelFamily, module: nn.Module, batch: Batch) -> Cache | None:
        """One without values of the frames before, as a rollout has it here."""
        assert family.causal is not None
        if not self.begin:
            return None
        with torch.no_grad():
            frame = family.causal.remember(
                module, batch.latents[:, :, :1], batch.conditioning, None
            ).layers[0][0]
        seen = tuple(self.layout.seen(self.begin, self.begin + 1))
        layer = tuple((torch.empty_like(frame[0]), torch.empty_like(frame[1])) for _ in seen)
        return Cache(self.begin, seen, (layer,) * len(family.blocks(module)))

    def run(
        self, family: ModelFamily, module: nn.Module, batch: Batch, x: Tensor, past: Cache | None
    ) -> Tensor | Cache:
        """v̂ of the pass at x, cut already; of "memory" the cache with this block in it."""
        assert family.causal is not None
        t = torch.full((len(x),), 0.5, device=x.device)
        if self.kind == "memory":
            return family.causal.remember(module, x, batch.conditioning, past)
        if self.kind == "clip":
            return family.predict(module, x, t, batch.conditioning)
        after = batch.latents if self.kind == "after_clean" else past
        return family.causal.predict(module, x, t, batch.conditioning, after)
