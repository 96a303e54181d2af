"""Several latent sets as one stream: each position draws its set by stated weights.

Used by clips.py where a recipe names more than one folder. Position p belongs to the set that a
draw of (seed, p) names, and is that set's sample number n, the positions before p that the same set
got. So each set is still passed through sample by sample, whatever the others' sizes, and any
position is found without what came before.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from dfdbench.distill.batch import Batch
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.streams import seeded
from dfdbench.models.conditioning import Conditioning, concatenate
from dfdbench.utils.errors import UserError

BLOCK = 4096  # positions that are drawn together


class Mixture:
    """An endless stream of samples of several sets.

    Args:
        sets: at least one, of clips of one shape.
        weights: one a set, that add up to 1: the share of samples that it gives.
        seed: of the draws.

    Raises:
        UserError: the sets' texts do not go into one batch.
    """

    def __init__(self, sets: Sequence[LatentSet], weights: Sequence[float], seed: int) -> None:
        self.sets, self.weights, self.seed = [*sets], [*weights], seed
        self._up_to = torch.tensor(self.weights, dtype=torch.float64).cumsum(0)[:-1]  # (S − 1,)
        self._before = [torch.zeros(len(self.sets), dtype=torch.long)]  # (S,) at each block's start
        self._block: tuple[int, Tensor] = (-1, torch.empty(0))
        first = self.sets[0]
        for other in self.sets[1:]:
            if other.index.prompt_embeds != first.index.prompt_embeds:
                raise UserError(
                    f"{other.folder}: texts of shape {other.index.prompt_embeds}, those of "
                    f"{first.folder} have {first.index.prompt_embeds}; encode both with one model"
                )

    def __len__(self) -> int:
        """Clips of all sets."""
        return sum(map(len, self.sets))

    @property
    def sha256(self) -> str:
        """Hash of all samples of all sets, and the weights."""
        parts = [
            [item.sha256, weight] for item, weight in zip(self.sets, self.weights, strict=True)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def encodes(self) -> bool:
        """Whether a batch may take the text encoder."""
        return any(item.encodes for item in self.sets)

    def negative(self, prompt: str) -> Conditioning | None:
        """The embedding (1 L D) of the negative prompt, of the first set that stores it."""
        stored = (item.negative(prompt) for item in self.sets)
        return next((embeds for embeds in stored if embeds is not None), None)

    def spread(self) -> float | None:
        """Mean of the sets' `spread` by their weights, over those that have one."""
        pairs = [
            (item.spread(), weight) for item, weight in zip(self.sets, self.weights, strict=True)
        ]
        known = [(value, weight) for value, weight in pairs if value is not None]
        total = sum(weight for _, weight in known)
        return sum(value * weight for value, weight in known) / total if total else None

    def places(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """Set of each position from `start` on, (count,), and first sample of each set, (S,)."""
        block, offset = divmod(start, BLOCK)
        first = self._counts(block) + self._tally(self._drawn(block)[:offset])
        drawn = []
        while count > 0:
            drawn.append(self._drawn(block)[offset : offset + count])
            count, block, offset = count - len(drawn[-1]), block + 1, 0
        return torch.cat(drawn), first

    def batch(self, start: int, count: int) -> Batch:
        """The samples at positions `start` to `start + count`, each of the set that it drew."""
        drawn, first = self.places(start, count)
        rows, parts = list[Tensor](), list[Batch]()
        for number, item in enumerate(self.sets):
            own = (drawn == number).nonzero().flatten()  # (k,) places in the batch
            if len(own):
                rows.append(own)
                parts.append(item.batch(int(first[number]), len(own)))
        back = torch.cat(rows).argsort()  # (count,) row of the joined parts of each place
        latents = torch.cat([part.latents for part in parts])
        joined = concatenate([part.conditioning for part in parts])
        at = back.to(latents.device)
        return Batch(latents[at], joined.select(at))

    def _drawn(self, block: int) -> Tensor:
        """(BLOCK,) set of each position of a block."""
        if self._block[0] != block:
            generator = seeded("cpu", "set", self.seed, block)
            draws = torch.rand(BLOCK, generator=generator, dtype=torch.float64)
            self._block = (block, torch.searchsorted(self._up_to, draws, right=True))
        return self._block[1]

    def _tally(self, drawn: Tensor) -> Tensor:
        return torch.bincount(drawn, minlength=len(self.sets))

    def _counts(self, block: int) -> Tensor:
        """(S,) positions of each set before a block."""
        while len(self._before) <= block:
            last = len(self._before) - 1
            self._before.append(self._before[last] + self._tally(self._drawn(last)))
        return self._before[block]
