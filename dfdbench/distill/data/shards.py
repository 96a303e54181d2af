"""Stream latents to training: an endless, shuffled, stateless sequence of the samples of a set.

Used by clips.py for every `data.source` that is a folder. Position p of the stream is sample
i = p mod N of pass e = p div N, and pass e is, for S shards in windows of w:

    r = a permutation of the N samples,  π = a permutation of the S shards, both from (seed, e)
    order(e) = r, sorted stably by the window  π(shard of the sample) div w

So reading keeps to w shards at a time, a set of at most w shards is shuffled as a whole (as clips
in memory are), and any position is found without what came before: a run resumes, and ranks that
ask for different positions share a pass without overlap, with nothing to save or to agree on.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfdbench.distill.batch import Batch, make_batch
from dfdbench.distill.data.format import (
    INDEX,
    NEGATIVE,
    Member,
    members,
    read_index,
    read_member,
    unpack,
    weights_of,
)
from dfdbench.distill.data.spread import caption_spread
from dfdbench.distill.streams import seeded
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import UserError

WINDOW = 8  # shards that are mixed with each other
READERS = 4  # threads
AHEAD = 32  # samples read before they are asked for, but two batches at least


def stream_rows(order: Callable[[int], Tensor], size: int, start: int, count: int) -> Tensor:
    """(count,) rows at the positions from `start` on; order(e) gives the `size` rows of pass e."""
    pieces = []
    while count > 0:  # a batch may reach into the next passes
        number, offset = divmod(start, size)
        pieces.append(order(number)[offset : offset + count])
        start, count = start + len(pieces[-1]), count - len(pieces[-1])
    return torch.cat(pieces)


class _Read(NamedTuple):
    """Samples off the disk: latents (B C T H W), text embeddings (B L' D) or prompts.

    Tensors are bfloat16, on the CPU.
    """

    latents: Tensor
    text: Tensor | list[str]


class LatentSet:
    """A folder made by `dfdbench data encode`, as an endless stream of batches.

    Args:
        folder: with index.json and shards.
        seed: of the order.
        device: where batches go; latents and embeddings get there as bfloat16 and become float32.
        period: positions after which the caller's steps repeat (its global batch): what is read
            ahead is what came next a period ago, so a rank's jumps over the others' are foreseen.
        conditioning_frames: see `make_batch`.
        encode_prompt: the family's, for a set without stored texts.
        captions: probabilities of the set's caption levels, for a set that has several; each
            sample of each pass gets a level by a draw that its position and the seed decide.

    Raises:
        UserError: the folder is no latent set, or a shard is missing or has another size.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        device: torch.device | str = "cpu",
        period: int = 1,
        window: int = WINDOW,
        conditioning_frames: int = 0,
        encode_prompt: Callable[[list[str]], Conditioning] | None = None,
        captions: Sequence[float] = (),
    ) -> None:
        self.conditioning_frames, self.encode_prompt = conditioning_frames, encode_prompt
        self.folder, self.index, self.seed = folder, read_index(folder), seed
        self.levels = [*self.index.caption_levels]
        self._up_to = torch.tensor(captions, dtype=torch.float64).cumsum(0)[:-1]  # (levels − 1,)
        self.device, self.period, self.window = torch.device(device), period, window
        for shard in self.index.shards:
            path = folder / shard.name
            size = path.stat().st_size if path.is_file() else None
            if size != shard.size:
                state = "is missing" if size is None else f"has {size} bytes"
                raise UserError(
                    f"{path} {state}, {INDEX} says {shard.size}; copy it again, or delete it and "
                    "encode with --resume"
                )
        counts = torch.tensor([len(shard.keys) for shard in self.index.shards])  # (S,)
        self._shard_of = torch.repeat_interleave(torch.arange(len(counts)), counts)  # (N,)
        self._first = counts.cumsum(0) - counts  # (S,) number of each shard's first sample
        self._passes: dict[int, Tensor] = {}  # e -> order(e), (N,)
        self._draws: dict[int, Tensor] = {}  # e -> draws of caption levels, (N,) in [0, 1)
        self._last = -1  # furthest position that was asked for
        self._steps: dict[int, int] = {}  # position mod period -> how far the next batch lay
        self._pending: dict[tuple[int, int], Future[_Read]] = {}  # (start, count) being read

    def __len__(self) -> int:
        return len(self._shard_of)

    @property
    def sha256(self) -> str:
        """Hash of all samples."""
        return self.index.sha256

    @property
    def encodes(self) -> bool:
        """Whether every batch takes the text encoder."""
        return not self.index.texts_stored

    def check(self, family: ModelFamily, frames: int, height: int, width: int) -> None:
        """Refuse a set that was encoded by another autoencoder or from clips of another size.

        Args:
            frames, height, width: of the clips to train on; 0 is the model's own.
        """
        own, index = family.defaults, self.index
        want = (frames or own.frames, height or own.height, width or own.width)
        has = (index.frames, index.height, index.width)
        if want != has:
            names = ("frames", "height", "width")
            change = " ".join(f"--set data.{n}={v}" for n, v in zip(names, has, strict=True))
            raise UserError(
                f"{self.folder} holds clips of {has[0]} frames at {has[1]}x{has[2]}, the recipe "
                f"wants {want[0]} at {want[1]}x{want[2]}; encode again or pass {change}"
            )
        vae = weights_of(family.path / "vae")
        if vae != index.vae_sha256 or tuple(index.latents) != family.latent_shape(*want):
            raise UserError(
                f"{self.folder / INDEX}: encoded with another autoencoder ({index.model}, "
                f"{index.vae_sha256[:12]}) than that of {family.path.name} ({vae[:12]}); encode "
                "again with --model of this run"
            )

    def negative(self, prompt: str) -> Conditioning | None:
        """The embedding (1 L D) of the set's negative prompt; None where `prompt` is another."""
        if prompt != self.index.negative_prompt:
            return None
        path = self.folder / NEGATIVE
        if not path.is_file():
            raise UserError(f"{path} is missing; write it again: dfdbench data encode --resume")
        embeds = load_file(path)["prompt_embeds"]
        return Conditioning(embeds[None].to(self.device))

    def spread(self) -> float | None:
        """`caption_spread` of the set; reads the clips of captions that several have."""
        return caption_spread(
            self._captions(), lambda row: self._sample(row)[0][:, self.conditioning_frames :]
        )

    def _captions(self) -> Tensor:
        """(N,) a number for each sample's prompt, of KEY.json; −1 where it states none."""
        numbers: dict[str, int] = {}
        captions = []
        for shard in self.index.shards:
            files = members(self.folder / shard.name)
            for key in shard.keys:
                facts = files.get(key, {}).get("json")
                try:
                    text = read_member(self.folder / shard.name, facts) if facts else b"{}"
                    prompt = json.loads(text).get("prompt")
                except (ValueError, AttributeError):  # no JSON, or no table
                    prompt = None
                known = isinstance(prompt, str)
                captions.append(numbers.setdefault(prompt, len(numbers)) if known else -1)
        return torch.tensor(captions)

    def rows(self, start: int, count: int) -> Tensor:
        """(count,) numbers of the samples at the positions from `start` on."""
        return stream_rows(self._pass, len(self), start, count)

    def captions(self, start: int, count: int) -> list[str]:
        """The caption level of the samples at the positions from `start` on; "" if there is one."""
        if not len(self._up_to):
            return [self.levels[0] if self.levels else ""] * count
        draws = stream_rows(self._draw, len(self), start, count)  # (count,)
        places = torch.searchsorted(self._up_to, draws, right=True)
        return [self.levels[place] for place in places.tolist()]

    def _draw(self, number: int) -> Tensor:
        if number not in self._draws:
            generator = seeded("cpu", "caption", self.seed, number)
            kept = {n: draws for n, draws in self._draws.items() if abs(n - number) == 1}
            draws = torch.rand(len(self), generator=generator, dtype=torch.float64)
            self._draws = kept | {number: draws}
        return self._draws[number]

    def batch(self, start: int, count: int) -> Batch:
        """The samples at positions `start` to `start + count`, float32 on the device.

        Raises:
            UserError: a sample is damaged, of another shape or not finite; names file and sample.
        """
        read = self._pending.pop((start, count), None) or self._submit(start, count)
        self._look_ahead(start, count)
        latents, text = read.result()
        # bfloat16 crosses to the GPU, half the bytes; float32 is what losses compute in.
        latents = latents.to(self.device, non_blocking=True).float()
        return make_batch(latents, self._conditioning(text), self.conditioning_frames)

    def _conditioning(self, text: Tensor | list[str]) -> Conditioning:
        if isinstance(text, list):
            if self.encode_prompt is None:
                raise UserError(f"{self.folder} stores no text embeddings; encode it with --text")
            return self.encode_prompt(text)
        # (B L' D) of this batch, padded with zeros to the family's (B L D).
        length, width = self.index.prompt_embeds
        embeds = torch.zeros(len(text), length, width, device=self.device)
        embeds[:, : text.shape[1]] = text.to(self.device, non_blocking=True)
        return Conditioning(embeds)

    def _pass(self, number: int) -> Tensor:
        if number not in self._passes:
            generator = seeded("cpu", "order", self.seed, number)
            rows = torch.randperm(len(self), generator=generator)  # (N,) r
            place = torch.randperm(len(self.index.shards), generator=generator)  # (S,) π
            window = place[self._shard_of[rows]] // self.window  # (N,) of each row of r
            # The neighbour stays: reading ahead crosses from one pass to the next and back.
            kept = {n: order for n, order in self._passes.items() if abs(n - number) == 1}
            self._passes = kept | {number: rows[window.argsort(stable=True)]}
        return self._passes[number]

    def _look_ahead(self, start: int, count: int) -> None:
        """Start reading what will be asked for next; forget what was not."""
        if start > self._last:  # a probe looks back and says nothing of what comes next
            step = start - self._last
            if self._last >= 0 and step <= self.period:
                self._steps[self._last % self.period] = step
            self._last = start
        wanted = []
        for position in self._following(count):
            wanted.append((position, count))
            if len(wanted) >= max(2, AHEAD // count):
                break
        for key in [key for key in self._pending if key not in wanted]:
            self._pending.pop(key).cancel()
        for key in wanted:
            if key not in self._pending:
                self._pending[key] = self._submit(*key)

    def _following(self, count: int) -> Iterator[int]:
        position = self._last
        while True:
            position += self._steps.get(position % self.period, count)
            yield position

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READERS, "latents")

    def _submit(self, start: int, count: int) -> Future[_Read]:
        # The order is looked up here: readers share nothing that changes.
        rows, levels = self.rows(start, count).tolist(), self.captions(start, count)
        return self._readers.submit(self._read, rows, levels)

    def _read(self, rows: list[int], levels: list[str]) -> _Read:
        samples = [self._sample(row, level) for row, level in zip(rows, levels, strict=True)]
        latents = self._room(len(rows), *self.index.latents)
        for i, (sample, _) in enumerate(samples):
            latents[i] = sample
        if self.encodes:
            return _Read(latents, [bytes(text.tolist()).decode() for _, text in samples])
        # Padded to the longest prompt of the batch only: Wan's 512 rows are mostly zeros.
        longest, width = max(len(text) for _, text in samples), self.index.prompt_embeds[1]
        embeds = self._room(len(rows), longest, width)
        for i, (_, text) in enumerate(samples):
            embeds[i, : len(text)] = text
        return _Read(latents, embeds)

    def _room(self, *shape: int) -> Tensor:
        pin = self.device.type == "cuda"  # pageable memory would make the copy wait
        return torch.zeros(shape, dtype=torch.bfloat16, pin_memory=pin)

    def _sample(self, row: int, level: str | None = None) -> list[Tensor]:
        level = next(iter(self.levels), "") if level is None else level
        number = int(self._shard_of[row])
        shard, place = self.index.shards[number], row - int(self._first[number])
        path, member = self.folder / shard.name, Member(shard.offsets[place], shard.sizes[place])
        try:
            data = read_member(path, member)
        except OSError as error:
            raise UserError(f"{path}: {os.strerror(error.errno or 0)}; check the disk") from None
        where = f"{path}: sample {shard.keys[place]}"
        texts = None if self.encodes else self.index.prompt_embeds
        return unpack(data, where, self.index.latents, texts, level)
