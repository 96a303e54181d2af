"""Latent sets for tests: small random ones, written without a model."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dfdbench.distill.data.format import INDEX, NEGATIVE, Sample, SetIndex, write_index, write_shard

LATENTS, TEXT = [4, 2, 3, 3], [6, 5]
FACTS = {
    "model": "tiny",
    "vae_sha256": "v",
    "text_encoder_sha256": "t",
    "frames": 5,
    "height": 24,
    "width": 24,
    "fps": 8.0,
    "negative_prompt": "ugly",
    "format": 1,
}


def random_samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents (N C T H W) and embeddings (N L D) that bfloat16 holds exactly; 1 to L tokens."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, *LATENTS, generator=generator)
    embeds = torch.randn(count, *TEXT, generator=generator)
    for i in range(count):
        embeds[i, 1 + i % TEXT[0] :] = 0
    return latents.bfloat16().float(), embeds.bfloat16().float()


def write_set(
    folder: Path, latents: Tensor, embeds: Tensor, shard_size: int, **facts: object
) -> Path:
    """A finished set of these samples, in their order; `facts` change its index.

    With `caption_levels` among them level number n holds its embedding times n + 1.
    """

    def text(row: int) -> Tensor | dict[str, Tensor]:
        levels = facts.get("caption_levels")
        if not isinstance(levels, tuple):
            return embeds[row]
        return {level: embeds[row] * (n + 1) for n, level in enumerate(levels)}

    shards = []
    for number, start in enumerate(range(0, len(latents), shard_size)):
        rows = range(start, min(start + shard_size, len(latents)))
        samples = [Sample(f"{i:05d}", latents[i], text(i), {"prompt": f"clip {i}"}) for i in rows]
        shards.append(write_shard(folder / f"shard-{number:05d}.tar", samples))
    given = {**FACTS, "latents": list(latents.shape[1:]), "prompt_embeds": list(embeds.shape[1:])}
    index = SetIndex(**{**given, "samples": len(latents), "shards": shards, **facts})
    write_index(folder / INDEX, index)
    save_file({"prompt_embeds": torch.ones(*embeds.shape[1:])}, folder / NEGATIVE)
    return folder
