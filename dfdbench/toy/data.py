"""Real toy clips as latents: what distillation trains on. Encoded once, then read from a cache."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dfdbench.toy import world
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, cache_folder, sha256_file
from dfdbench.utils.progress import track

CACHE_VERSION = 2  # raise when the renderer changes what it draws
DATA_SEED = 2**41  # away from the seeds of the teacher's training and of held-out clips
PALE = (0.35, 0.50)  # saturation of the sprites of pale clips
MIXES = ("all", "pale", "half_pale")


def drawn_clips(count: int, seed: int = 0, mix: str = "all") -> world.Attributes:
    """Attributes of `count` real clips.

    mix: "all" of the world; "pale", sprites of a saturation in `PALE` alone; "half_pale", every
    second clip so.
    """
    clips = world.sample_attributes(count, DATA_SEED + seed)
    if mix == "all":
        return clips
    low, high = world.SATURATION
    pale = PALE[0] + (clips.saturation - low) / (high - low) * (PALE[1] - PALE[0])
    if mix == "half_pale":
        pale = torch.where(torch.arange(count) % 2 == 0, pale, clips.saturation)
    return replace(clips, saturation=pale)


def prompts_of(attributes: world.Attributes, level: int = 1) -> tuple[torch.Tensor, list[str]]:
    """Each clip's index into the canonical captions of a level, and those captions."""
    captions = [caption.text for caption in world.captions(level)]
    return world.caption_index(attributes, level), captions


@torch.no_grad()
def real_latents(
    family: Any,
    count: int,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    batch: int = 16,
    level: int = 1,
    mix: str = "all",
    reveal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Render `count` clips from `seed` and encode them with the family's VAE.

    Args:
        level: what their captions name: 1 shape and scene, 2 also the hue, 3 also the direction.
        mix: which clips, see `drawn_clips`.
        reveal: as image to video has them, see `world.render`.

    Returns:
        latents (N C T H W) float32, normalised; prompt_index (N,) int64; the prompts.

    Raises:
        UserError: the VAE makes NaN of them.
    """
    attributes = drawn_clips(count, seed, mix)
    index, prompts = prompts_of(attributes, level)
    vae = sha256_file(family.path / "vae" / "diffusion_pytorch_model.safetensors")
    key = hashlib.sha256(
        f"{vae} {count} {seed} {mix} {reveal} {family.device.type} {CACHE_VERSION}".encode()
    ).hexdigest()[:24]
    file = Path(cache_dir or cache_folder()) / f"toy-latents-{key}.safetensors"
    latents = _cached(file, (count, *family.latent_shape(world.FRAMES, world.SIZE, world.SIZE)))
    if latents is not None:
        return latents, index, prompts
    parts = [
        family.encode_video(world.render(attributes[slice(i, i + batch)], reveal) * 2 - 1).float()
        for i in track(range(0, count, batch), "encoding real clips")
    ]
    latents = torch.cat(parts)
    if not torch.isfinite(latents).all():
        raise UserError(
            f"{family.path / 'vae'}: its latents of the toy's clips hold NaN; copy it again"
        )
    with atomic_path(file) as temporary:
        temporary.write_bytes(save({"latents": latents}))
    return latents, index, prompts


def _cached(file: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The latents in the cache; None where there are none, or not these: torn, of another shape."""
    try:
        latents = load_file(file).get("latents")
    except (OSError, SafetensorError):
        return None
    if latents is None or latents.shape != shape or not torch.isfinite(latents).all():
        return None
    return latents
