"""What `data describe` notes of latents that `data encode` made, without decoding them.

Length, size and rate are those that the clips were encoded at, captions are in the set, copies are
latents of the same bits. A latent's feature is its mean over time in 4×4 equal parts of the picture
(C·16 numbers, of length one): what lies where, in the autoencoder's channels. It compares clips of
one autoencoder, and is not the embedding of a network of pictures. Used by set_rows.py.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from dfdbench.distill.data.curate.work import Done, Stage
from dfdbench.distill.data.format import Member, SetIndex, members, read_index, read_member
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Open, Text, parse_json, validate

PARTS = 4  # of height and width
REMEDY = "encode or copy the shard again"


class Facts(Open):
    """KEY.json of a sample, as far as it is used here."""

    prompt: Text | None = None
    captions: dict[str, Text] = {}  # noqa: RUF012


def latent_stage(
    folder: Path, out: Path, name: str
) -> tuple[Stage, list[str], Callable[[list[str]], Iterator[Done]]]:
    """The stage that describes a latent set, its keys, and the work on some of them.

    Clips that encoding left out are keys too.

    Raises:
        UserError: as `read_index`.
    """
    index = read_index(folder)
    at = {
        f"{shard.name}:{key}": (folder / shard.name, key, Member(offset, size))
        for shard in index.shards
        for key, offset, size in zip(shard.keys, shard.offsets, shard.sizes, strict=True)
    }
    left_out = {
        f"{shard.name}: {source}": why.removeprefix(f"{source}: ")
        for shard in index.shards
        for source, why in shard.left_out
    }
    settings = {"parts": PARTS, "vae": index.vae_sha256, "latents": index.latents}
    stage = Stage(out, name, settings, packages=["torch"], reads={"latents": index.sha256})

    def work(keys: list[str]) -> Iterator[Done]:
        tar, files = Path(), dict[str, dict[str, Member]]()
        for item in keys:
            if item in left_out:
                yield Done(item, {"left_out": left_out[item]})
                continue
            path, key, member = at[item]
            try:
                if path != tar:
                    tar, files = path, members(path)
                row, feature = _of_sample(path, item, member, files.get(key, {}), index)
            except UserError as error:
                yield Done(item, {"left_out": str(error).removeprefix(f"{item}: ")})
                continue
            yield Done(item, row, feature)

    return stage, [*at, *left_out], work


def _of_sample(
    path: Path, where: str, member: Member, files: dict[str, Member], index: SetIndex
) -> tuple[dict[str, Any], np.ndarray]:
    try:
        latents = load(read_member(path, member))["latents"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{where}: damaged ({error}); {REMEDY}") from None
    if [*latents.shape] != index.latents:
        raise UserError(
            f"{where}: of shape {[*latents.shape]}, its set of {index.latents}; {REMEDY}"
        )
    if not torch.isfinite(latents).all():
        raise UserError(f"{where}: holds latents that are not finite; {REMEDY}")
    text = read_member(path, files["json"]).decode("utf-8", "replace") if "json" in files else "{}"
    facts = validate(Facts, parse_json(text, where, REMEDY), where, REMEDY)
    captions = facts.captions or ({"caption": facts.prompt} if facts.prompt else {})
    latents = latents.float()
    row = {
        "seconds": round(index.frames / index.fps, 4),
        "frames": index.frames,
        "fps": index.fps,
        "height": index.height,
        "width": index.width,
        "latent_change": round(change(latents), 6) if latents.shape[1] > 1 else None,
        "words": {level: len(caption.split()) for level, caption in captions.items()},
        "sha256": hashlib.sha256(latents.numpy().tobytes()).hexdigest(),
    }
    return row, latent_feature(latents)


def change(latents: Tensor) -> float:
    """Mean |z(t+1) − z(t)| over latents (C T H W), T at least 2."""
    return float((latents[:, 1:] - latents[:, :-1]).abs().mean(dtype=torch.float64))


def latent_feature(latents: Tensor) -> np.ndarray:
    """float32 (C·16,) of length one (or all 0) of latents (C T H W); see the module."""
    pooled = adaptive_avg_pool2d(latents.mean(dim=1), PARTS).flatten().double()
    return (pooled / pooled.norm().clamp_min(1e-12)).float().numpy()


def incomparable(first: Path, second: Path) -> str | None:
    """Why features of two latent sets cannot be compared; None: they can."""
    a, b = read_index(first), read_index(second)
    if a.vae_sha256 != b.vae_sha256:
        return "their autoencoders differ"
    return None if a.latents[0] == b.latents[0] else "their latents have other channels"
