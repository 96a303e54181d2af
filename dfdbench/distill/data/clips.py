"""Real clips for training: latents with their prompts, in an order fixed by the seed alone.

Used by the loop and by `study`. `data.source` of the recipe names them: "toy" is held in memory,
any other is a folder of latents that shards.py streams.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from dfdbench.distill.batch import Batch, make_batch
from dfdbench.distill.data.format import read_index
from dfdbench.distill.data.mixture import Mixture
from dfdbench.distill.data.shards import LatentSet, stream_rows
from dfdbench.distill.data.spread import caption_spread
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import seeded
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.toy.data import real_latents
from dfdbench.utils.errors import UserError

RENDERED: dict[str, Any] = {"level": 1, "mix": "all"}
"""Options of [data] that say how clips are rendered, at their defaults."""


class Clips(Protocol):
    """An endless stream of shuffled passes over real clips; nothing about it has to be saved."""

    @property
    def sha256(self) -> str:
        """Hash of all clips, for the fairness record."""
        ...

    @property
    def encodes(self) -> bool:
        """Whether every batch takes the text encoder, which must then stay in memory."""
        ...

    def __len__(self) -> int:
        """Clips a pass."""
        ...

    def batch(self, start: int, count: int) -> Batch:
        """Clips `start` to `start + count` of the stream, on the device."""
        ...

    def negative(self, prompt: str) -> Conditioning | None:
        """The embedding (1 L D) of the negative prompt where it is stored beside the clips."""
        ...

    def spread(self) -> float | None:
        """`caption_spread` of all clips, over the frames that are generated."""
        ...


@dataclass
class ClipsInMemory:
    """All real latents in memory, with each prompt embedded once.

    Attributes:
        latents: (N C T H W) float32 on the CPU. prompt_index: (N,) rows of `embedded`.
        conditioning_frames: see `make_batch`.
    """

    latents: Tensor
    prompt_index: Tensor
    embedded: Conditioning
    seed: int
    device: torch.device
    conditioning_frames: int = 0
    encodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._cached: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self.latents)

    def negative(self, prompt: str) -> Conditioning | None:
        return None

    def spread(self) -> float | None:
        free = self.latents[:, :, self.conditioning_frames :]
        return caption_spread(self.prompt_index, lambda row: free[row])

    def batch(self, start: int, count: int) -> Batch:
        rows = stream_rows(self._order, len(self), start, count)  # (B,)
        index = self.prompt_index[rows].to(self.device)
        latents = self.latents[rows].to(self.device)
        return make_batch(latents, self.embedded.select(index), self.conditioning_frames)

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


def check_source(recipe: Recipe) -> None:
    """Refuse a folder that is no latent set, before a model is fetched for it.

    Raises:
        UserError: as `load_clips`, of what the folder's index alone shows; or an option of rendered
            clips is given for a folder.
    """
    data = recipe.data
    if data.source == "toy":
        for key in ("captions", "more_sources"):
            if getattr(data, key):
                raise UserError(
                    f"recipe key 'data.{key}': only folders have it, not rendered clips; leave it "
                    "out, or name a folder in data.source"
                )
        return
    for key, default in RENDERED.items():
        if (value := getattr(data, key)) != default:
            raise UserError(
                f"recipe key 'data.{key}' is {value}, but data.source is the folder {data.source}: "
                'only rendered clips have it; leave it out, or set data.source = "toy"'
            )
    for source in (data.source, *data.more_sources):
        index = read_index(Path(source))
        if data.captions and not index.caption_levels:
            raise UserError(
                f"recipe key 'data.captions': {source} has one caption a clip; leave it out, or "
                "encode captioned tars with dfdbench data encode --caption-levels"
            )


def load_clips(recipe: Recipe, family: ModelFamily) -> Clips:
    """The recipe's real clips: a folder of latents, or the toy's, encoded once and cached.

    Raises:
        UserError: the folder is no latent set, is damaged, or does not fit model and recipe.
    """
    data = recipe.data
    if data.source != "toy":
        sets = [
            LatentSet(
                Path(source),
                recipe.seed,
                family.device,
                recipe.optim.batch,
                conditioning_frames=family.conditioning_frames,
                encode_prompt=family.encode_prompt,
                captions=data.captions,
            )
            for source in (data.source, *data.more_sources)
        ]
        for clips in sets:
            clips.check(family, data.frames, data.height, data.width)
        return Mixture(sets, data.weights, recipe.seed) if data.more_sources else sets[0]
    latents, prompt_index, prompts = real_latents(
        family,
        data.count,
        data.seed,
        level=data.level,
        mix=data.mix,
        reveal=bool(family.conditioning_frames),
    )
    embedded = family.encode_prompt(prompts)
    return ClipsInMemory(
        latents.cpu().float(),
        prompt_index.cpu(),
        embedded,
        recipe.seed,
        family.device,
        family.conditioning_frames,
    )


def negative_embedding(recipe: Recipe, clips: Clips, family: ModelFamily) -> Conditioning:
    """What the guidance branch is conditioned on: stored beside the clips, else encoded now."""
    text = recipe.teacher.negative or ""
    stored = clips.negative(text)
    return family.encode_prompt([text]) if stored is None else stored
