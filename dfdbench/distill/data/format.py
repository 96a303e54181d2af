"""How a latent set lies on disk: WebDataset shards with an index for reading at any place.

Written by encode.py, read by shards.py. A folder holds

    shard-00000.tar     KEY.safetensors: latents (C T H W) and prompt_embeds (L' D), bfloat16;
                        KEY.json: prompt, source and what it was. KEY numbers shard and clip.
    shard-00000.json    that the shard is finished: its part of the index, and clips left out
    index.json          model, shapes, hashes, and where in which shard each sample lies
    negative.safetensors    prompt_embeds (L D) of the negative prompt

Zero rows at the end of an embedding are cut (L' ≤ L) and put back when it is read: Wan pads a
prompt's own tokens with zeros; a family that pads with anything else keeps its rows whole.

A set with captions at several lengths (`data encode --caption-levels`) holds one text a level,
`prompt_embeds.long` and so on, in place of the one.

A set without stored texts holds `prompt` (UTF-8 bytes) in place of prompt_embeds, for training to
encode: an embedding of Cosmos-Predict2.5 takes 103 MB, its prompt's bytes a few hundred.
"""

import errno
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, sha256_cached, sha256_file, write_text
from dfdbench.utils.reading import Outside, read_json

INDEX, NEGATIVE = "index.json", "negative.safetensors"


class Member(NamedTuple):
    """Where the bytes of one file of a tar lie."""

    offset: int
    size: int


class Sample(NamedTuple):
    """One clip of a set: latents (C T H W), text, facts for KEY.json.

    text: prompt_embeds (L D), or a prompt for a set without stored texts; by level where the set
    has captions at several lengths.
    """

    key: str
    latents: Tensor
    text: Tensor | str | Mapping[str, Tensor | str]
    facts: Mapping[str, Any]


class ShardIndex(Outside):
    """One finished shard.

    Attributes:
        name: the tar's name. sha256, size: of the tar, in bytes.
        keys, offsets, sizes: one an item, of each sample's safetensors inside the tar.
        plan: hash of the settings and sources that it was made from.
        left_out: clips that could not be used, with the reason.
    """

    name: str
    sha256: str
    size: int
    keys: list[str]
    offsets: list[int]
    sizes: list[int]
    plan: str
    left_out: list[list[str]]


class SetIndex(Outside):
    """A whole latent set; see the module for the files.

    Attributes:
        model, vae_sha256, text_encoder_sha256: what the clips and prompts were encoded with.
        frames, height, width, fps: of the clips that were encoded.
        latents: (C, T, H, W). prompt_embeds: (L, D). samples: how many.
        texts_stored: whether samples hold embeddings, or prompts to encode in training.
        dtype: of what is stored. tf32: whether a GPU's autoencoder computed with it, not float32.
        caption_levels: of which each sample holds a text; none: it holds one.
    """

    model: str
    vae_sha256: str
    text_encoder_sha256: str
    frames: int
    height: int
    width: int
    fps: int | float  # as it was given: written again, it is the same text
    latents: list[int]
    prompt_embeds: list[int]
    negative_prompt: str
    samples: int
    shards: list[ShardIndex]
    texts_stored: bool = True
    caption_levels: tuple[str, ...] = ()
    dtype: str = "bfloat16"
    tf32: bool = False
    format: Literal[1]

    @property
    def sha256(self) -> str:
        """One hash for all samples, in their order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


def read_index(folder: Path) -> SetIndex:
    """The index of a latent set.

    Raises:
        UserError: the folder holds none, or one that this version cannot read.
    """
    path = folder / INDEX
    if not path.is_file():
        raise UserError(
            f"{folder} has no {INDEX}, so it is no finished latent set; make it with dfdbench data "
            "encode, or end one that was stopped with --resume"
        )
    return read_json(path, SetIndex, "it is no index of this version, encode again")


def write_index(path: Path, index: SetIndex | ShardIndex) -> None:
    """Write an index atomically, without spaces: it has numbers for every sample."""
    write_text(path, json.dumps(index.model_dump(), ensure_ascii=False, allow_nan=False))


def pack(latents: Tensor, text: Tensor | str | Mapping[str, Tensor | str]) -> bytes:
    """A sample's safetensors: latents (C T H W), embeddings (L D) or a prompt, or such by level."""
    tensors = {"latents": latents.to("cpu", torch.bfloat16).contiguous()}
    for level, own in text.items() if isinstance(text, Mapping) else [("", text)]:
        ending = f".{level}" if level else ""
        if isinstance(own, str):
            tensors[f"prompt{ending}"] = torch.tensor([*own.encode()], dtype=torch.uint8)
        else:
            used = own.ne(0).any(dim=1).nonzero()  # rows (of L) that are not all zero
            length = int(used[-1]) + 1 if len(used) else 0
            tensors[f"prompt_embeds{ending}"] = own[:length].to("cpu", torch.bfloat16).contiguous()
    return save(tensors)


def unpack(
    data: bytes, where: str, latents: list[int], prompt_embeds: list[int] | None, level: str = ""
) -> list[Tensor]:
    """Latents (C T H W) and cut embeddings (L' D), bfloat16, of a sample's safetensors.

    prompt_embeds: (L, D) of the set; None for prompts, whose bytes then come second.
    level: of the caption, where the set has several.

    Raises:
        UserError: damaged, of another shape than the set's, or not finite; begins with `where`.
    """
    try:
        stored, ending = load(data), f".{level}" if level else ""
        text_name = f"{'prompt_embeds' if prompt_embeds else 'prompt'}{ending}"
        tensors = [stored["latents"], stored[text_name]]
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{where} is damaged ({error}); encode or copy the shard again") from None
    shape, text = list(tensors[0].shape), list(tensors[1].shape)
    length, *width = prompt_embeds or text  # the bytes of a prompt may be of any length
    if shape != latents or text[1:] != width or text[0] > length:
        raise UserError(
            f"{where} holds latents {shape} and text {text}, its set {latents} and at most "
            f"{prompt_embeds}; encode the set again"
        )
    for name, tensor in zip(("latents", "text embeddings"), tensors, strict=True):
        if not torch.isfinite(tensor).all():
            raise UserError(f"{where} holds {name} that are not finite; encode the shard again")
    return tensors


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file, without times and owners: the same samples make the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def members(path: Path) -> dict[str, dict[str, Member]]:
    """Key -> extension -> member, by WebDataset's rule: the key ends at the file name's first dot.

    Raises:
        UserError: `path` is no whole tar file.
    """
    by_key: dict[str, dict[str, Member]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                folder, slash, name = info.name.rpartition("/")
                key, _, extension = name.partition(".")
                if info.isfile() and key and extension:
                    files = by_key.setdefault(folder + slash + key, {})
                    files[extension.lower()] = Member(info.offset_data, info.size)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path}: not a whole tar file ({error}); copy it again") from None
    return by_key


def read_member(path: Path, member: Member) -> bytes:
    """The bytes of a member; fewer than its size where the tar was cut."""
    with open(path, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def write_shard(
    path: Path, samples: Iterable[Sample], plan: str = "", left_out: Sequence[list[str]] = ()
) -> ShardIndex:
    """Write the samples to the tar `path`, atomically, and return its index.

    left_out: read when all samples are written, so their source may still add to it.
    """
    with atomic_path(path) as temporary:
        # Plain headers of one block, which every reader of tars knows.
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                add_member(tar, f"{sample.key}.safetensors", pack(sample.latents, sample.text))
                facts = json.dumps(dict(sample.facts), ensure_ascii=False)
                add_member(tar, f"{sample.key}.json", facts.encode())
        tensors = {key: files["safetensors"] for key, files in members(temporary).items()}
        digest, size = sha256_file(temporary), temporary.stat().st_size
    return ShardIndex(
        name=path.name,
        sha256=digest,
        size=size,
        keys=[*tensors],
        offsets=[member.offset for member in tensors.values()],
        sizes=[member.size for member in tensors.values()],
        plan=plan,
        left_out=[*left_out],
    )


def weights_of(folder: Path) -> str:
    """Hash of a part's safetensors, remembered for files that did not change."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no safetensors weights; give a complete checkpoint")
    return sha256_cached(files)


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """Turn "no space left" into one line; what was half written is gone by then."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{folder}: no space left on the disk; free some and go on with --resume"
        ) from None
