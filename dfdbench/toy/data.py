"""Real toy clips as latents: what distillation trains on. Encoded once, then read from a cache."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dfdbench.toy import world
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path, cache_folder, sha256_file
from dfdbench.utils.progress import track

CACHE_VERSION = 1  # raise when the renderer changes what it draws
DATA_SEED = 2**41  # away from the seeds of the teacher's training and of held-out clips


def prompts_of(attributes: world.Attributes) -> tuple[torch.Tensor, list[str]]:
    """Each clip's index into the 12 canonical captions, and those captions."""
    index = attributes.shape * len(world.SCENES) + attributes.scene
    return index, [caption.text for caption in world.captions()]


@torch.no_grad()
def real_latents(
    family: Any,
    count: int,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    batch: int = 16,
    level: int = 1,
    mix: str = "all",
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Render `count` clips from `seed` and encode them with the family's VAE.

    Returns:
        latents (N C T H W) float32, normalised; prompt_index (N,) int64; the prompts.

    Raises:
        UserError: a level or mix that this toy world has not.
    """
    for key, value, only in (("level", level, 1), ("mix", mix, "all")):
        if value != only:
            raise UserError(
                f"recipe key 'data.{key}' is {value}, but the toy world of this version has "
                f"{only} alone; leave it out"
            )
    attributes = world.sample_attributes(count, DATA_SEED + seed)
    index, prompts = prompts_of(attributes)
    vae = sha256_file(family.path / "vae" / "diffusion_pytorch_model.safetensors")
    key = hashlib.sha256(
        f"{vae} {count} {seed} {family.device.type} {CACHE_VERSION}".encode()
    ).hexdigest()[:24]
    file = Path(cache_dir or cache_folder()) / f"toy-latents-{key}.safetensors"
    latents = _cached(file, (count, *family.latent_shape(world.FRAMES, world.SIZE, world.SIZE)))
    if latents is not None:
        return latents, index, prompts
    parts = [
        family.encode_video(world.render(attributes[slice(i, i + batch)]) * 2 - 1).float()
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
