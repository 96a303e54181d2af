"""Turn clips with captions into a latent set: `dfdbench data encode`.

A pipeline of threads: some decode clips, one runs the autoencoder, one the text encoder, and the
main one packs and writes what they made, in the clips' order; the bytes are those of one thread.
Shard k holds the clips number k · shard_size and up, is written whole or not at all, and never
redone once its own index is there; so a stopped call goes on, and `--shard 1/4` on each of four
GPUs fills one folder together.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from dfdbench.distill.data import format as layout
from dfdbench.distill.data.format import Sample, SetIndex, ShardIndex
from dfdbench.distill.data.sources import LEVELS, Decoded, Source, Target, decode, find_sources
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.utils.device import choose_device, compute_dtype, uses_tf32
from dfdbench.utils.errors import UserError, memory_remedy
from dfdbench.utils.files import atomic_path
from dfdbench.utils.folders import locked
from dfdbench.utils.progress import Bar
from dfdbench.utils.reading import read_json
from dfdbench.utils.shards import Shard


@dataclass(frozen=True)
class Summary:
    """What a call left: samples of the whole set so far, clips left out with reasons, all done?"""

    folder: Path
    samples: int
    left_out: list[list[str]]
    finished: bool


@memory_remedy(
    "take fewer --workers, each of which holds decoded clips, or smaller clips: --frames, --height "
    "and --width"
)
def encode(
    inputs: Sequence[Path],
    model: str,
    out: Path,
    target: Target | None = None,
    shard_size: int = 100,
    workers: int | None = None,
    device: str = "auto",
    negative: str | None = None,
    resume: bool = False,
    shard: Shard | None = None,
    store_texts: bool = True,
    *,
    caption_levels: bool = False,
) -> Summary:
    """Encode every clip of `inputs` and write the set `out`; see format.py for its files.

    Args:
        model: as in `load_family`; its autoencoder and text encoder are used.
        target: frames, size and rate of clips; zeros are the model's own.
        shard_size: clips a shard. workers: decoding threads, else one a core.
        negative: text for the branch without the prompt, else the model's own.
        shard: which part of the set to do, where several calls fill one folder.
        store_texts: keep prompt embeddings; else prompts, which training encodes again each time.
        caption_levels: keep a text of each of LEVELS, for training to draw from; a clip without
            all of them is left out.

    Raises:
        UserError: no clip can be used, `out` holds another set, sizes do not fit the model, or the
            disk is full.
    """
    sources = [source for path in inputs for source in find_sources(path)]
    where = choose_device(device)
    family = load_family(model, compute_dtype(where), where)
    defaults, wanted = family.defaults, target or Target(0, 0, 0, 0)
    target = Target(
        wanted.frames or defaults.frames,
        wanted.height or defaults.height,
        wanted.width or defaults.width,
        wanted.fps or defaults.fps,
    )
    latents = list(family.latent_shape(target.frames, target.height, target.width))
    negative = defaults.negative_prompt if negative is None else negative
    settings = {
        **asdict(target),
        "vae_sha256": layout.weights_of(family.path / "vae"),
        "text_encoder_sha256": layout.weights_of(family.path / "text_encoder"),
    }
    if not store_texts:  # left out otherwise: the plans of sets made before stay as they are
        settings["texts_stored"] = False
    if uses_tf32(family.device):
        settings["tf32"] = True
    if caption_levels:
        settings["caption_levels"] = [*LEVELS]
    jobs = [
        _Job(out, number, sources[start : start + shard_size], settings)
        for number, start in enumerate(range(0, len(sources), shard_size))
    ]
    ours = shard.of(jobs) if shard else jobs
    part = f"{shard.index}-of-{shard.count}" if shard else ""
    with locked(out, part), layout.room_on_disk(out):
        todo = _unfinished(ours, out, resume)
        _encode(todo, family, target, workers or os.cpu_count() or 1, ours)
        written = [done for job in jobs if (done := job.finished())]
        left_out = [row for done in written for row in done.left_out]
        samples = sum(len(done.keys) for done in written)
        complete = len(written) == len(jobs)
        if complete and not samples:
            for job in jobs:
                job.index.unlink()
            raise UserError(f"no clip could be used; the first: {left_out[0][1]}")
        if complete:
            index = SetIndex(
                model=Path(model).name,
                latents=latents,
                prompt_embeds=_write_negative(out, family, negative),
                negative_prompt=negative,
                samples=samples,
                shards=[done for done in written if done.keys],
                format=1,
                **settings,
            )
            layout.write_index(out / layout.INDEX, index)
    family.warn_of_cut_prompts()
    return Summary(out, samples, left_out, complete)


@dataclass
class _Job:
    """One shard to be."""

    folder: Path
    number: int
    sources: list[Source]
    settings: dict[str, Any]

    @property
    def tar(self) -> Path:
        return self.folder / f"shard-{self.number:05d}.tar"

    @property
    def index(self) -> Path:
        return self.tar.with_suffix(".json")

    @property
    def plan(self) -> str:
        """Hash of all that decides the shard's content, but for the bytes of its clips."""
        clips = [(source.name, source.prompt) for source in self.sources]
        return hashlib.sha256(json.dumps([self.settings, clips]).encode()).hexdigest()

    def finished(self) -> ShardIndex | None:
        """Its index where it is written and whole.

        Raises:
            UserError: it was made with other settings or from other clips.
        """
        path = self.index
        if not path.is_file():
            return None
        index = read_json(path, ShardIndex, "delete it and its tar")
        if index.plan != self.plan:
            raise UserError(
                f"{path} was made from other clips or settings; repeat those or give another --out"
            )
        if index.keys and (not self.tar.is_file() or self.tar.stat().st_size != index.size):
            return None
        return index


def _unfinished(ours: Sequence[_Job], out: Path, resume: bool) -> list[_Job]:
    if not resume and any(job.index.exists() for job in ours):
        raise UserError(f"{out} already holds latents; pass --resume to go on, or another --out")
    return [job for job in ours if not job.finished()]


Texts = Tensor | str | Mapping[str, Tensor | str]
"""Of a clip: its prompt's embeddings (L D), or its prompt; by level where it has several."""


class _Encoded(NamedTuple):
    """A clip on its way: facts of it, its latents (C T H W), its texts; each once it is there."""

    decoded: Future[Decoded]
    latents: Future[Tensor]
    text: Future[Texts]


def _encode(
    todo: Sequence[_Job], family: ModelFamily, target: Target, workers: int, ours: Sequence[_Job]
) -> None:
    clips = [source for job in todo for source in job.sources]
    total = sum(len(job.sources) for job in ours)
    store_texts = bool(todo) and todo[0].settings.get("texts_stored", True)
    levels = any("caption_levels" in job.settings for job in todo)
    if todo:  # here: loading sets torch's default dtype, which threads share
        _ = family.vae, family.text_encoder if store_texts else None
    with (
        ThreadPoolExecutor(workers, "decode") as decoders,
        ThreadPoolExecutor(1, "autoencoder") as video,
        ThreadPoolExecutor(1, "text") as text,
        Bar(total, "encoding clips", done=total - len(clips)) as bar,
    ):

        def begin(source: Source) -> _Encoded:
            decoded = decoders.submit(decode, source, target, levels)
            return _Encoded(
                decoded,
                video.submit(_latents, decoded, family),
                text.submit(_text, decoded, family, store_texts, levels),
            )

        encoded = _in_order(begin, clips, workers + 2)
        try:
            for job in todo:
                _write_shard(job, encoded, bar)
        finally:
            for pool in (decoders, video, text):
                pool.shutdown(wait=False, cancel_futures=True)


def _in_order(
    begin: Callable[[Source], _Encoded], clips: Sequence[Source], ahead: int
) -> Iterator[_Encoded]:
    """Each clip, begun; at most `ahead` clips are kept in memory."""
    running: deque[_Encoded] = deque()
    for clip in clips:
        running.append(begin(clip))
        if len(running) > ahead:
            yield running.popleft()
    while running:
        yield running.popleft()


def _latents(decoded: Future[Decoded], family: ModelFamily) -> Tensor:
    """Latents (C T H W) of a clip, on the CPU."""
    video = torch.from_numpy(decoded.result().frames).permute(3, 0, 1, 2)[None]  # (1 3 T H W)
    return family.encode_video(video.to(torch.float32) / 127.5 - 1)[0].cpu()


def _text(decoded: Future[Decoded], family: ModelFamily, store_texts: bool, levels: bool) -> Texts:
    """A clip's prompt embeddings (L D), on the CPU; or its prompt; of each level it has."""
    clip = decoded.result()
    prompts: Mapping[str, str] = clip.facts["captions"] if levels else {"": clip.prompt}
    texts: dict[str, Tensor | str] = {**prompts}
    if store_texts:
        texts = {k: family.encode_prompt([p]).prompt_embeds[0].cpu() for k, p in prompts.items()}
    return texts if levels else texts[""]


def _write_shard(job: _Job, encoded: Iterator[_Encoded], bar: Bar) -> None:
    """Write a shard's clips, then its index; a clip that fails is listed and left out."""
    left_out: list[list[str]] = []

    def samples() -> Iterator[Sample]:
        for i, source in enumerate(job.sources):
            try:
                yield _sample(f"{job.number:05d}-{i:05d}", next(encoded))
            except UserError as error:
                left_out.append([source.name, str(error)])
            bar.step()

    index = layout.write_shard(job.tar, samples(), job.plan, left_out)
    if not index.keys:  # readers of WebDataset take an empty tar for a fault
        job.tar.unlink()
    layout.write_index(job.index, index)


def _sample(key: str, clip: _Encoded) -> Sample:
    facts, latents, text = clip.decoded.result().facts, clip.latents.result(), clip.text.result()
    texts = text.values() if isinstance(text, Mapping) else [text]
    if not all(torch.isfinite(x).all() for x in (latents, *texts) if isinstance(x, Tensor)):
        name = facts["source"]
        raise UserError(f"{name}: the model's latents or text embeddings of it are not finite")
    return Sample(key, latents, text, facts)


def _write_negative(out: Path, family: ModelFamily, text: str) -> list[int]:
    """Write the negative prompt's embedding; returns the shape (L, D) of any prompt's."""
    embeds = family.encode_prompt([text]).prompt_embeds[0].float().cpu().contiguous()
    with atomic_path(out / layout.NEGATIVE) as temporary:
        temporary.write_bytes(save({"prompt_embeds": embeds}))
    return list(embeds.shape)
