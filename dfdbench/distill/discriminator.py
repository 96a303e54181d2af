"""The optional GAN of DMD2: heads on transformer features of noised clips, and their losses.

Used by matching.py when the recipe has a GAN weight. The features come from the fake score
(DMD2's text, 2405.14867 Section 4.3, whose discriminator loss also trains that network) or from
the frozen teacher (FastGen).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dfdbench.distill import losses
from dfdbench.distill.batch import Batch
from dfdbench.distill.nets import Networks
from dfdbench.distill.sections import Gan
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.flow import add_noise
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path

HIDDEN = 128
FILE = "heads.safetensors"  # in a finished run's heads/


class Heads(nn.Module):
    """One small head a tapped block, applied to every token: hidden states to patch logits."""

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
            )
            for _ in range(blocks)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, blocks · L) of features (B L D) each."""
        pairs = zip(self.heads, features, strict=True)
        return torch.cat([head(hidden.float()).squeeze(-1) for head, hidden in pairs], dim=1)


def tapped_blocks(options: Gan, count: int) -> tuple[int, ...]:
    """The recipe's blocks, else those at 1/2, 3/4 and the end of `count` (15, 22, 29 of 30)."""
    blocks = options.blocks or tuple(
        sorted({count // 2, min(3 * count // 4, count - 1), count - 1})
    )
    if min(blocks) < 0 or max(blocks) >= count:
        raise UserError(
            f"recipe key 'gan.blocks' is {list(blocks)}, but the model has blocks 0 to {count - 1}"
        )
    return blocks


def _looks(blocks: Sequence[int], features: str) -> dict[str, str]:
    """What heads look at, as their file states it; one entry, as several have no fixed order."""
    return {"looks_at": " ".join([features, *map(str, blocks)])}


def save_heads(heads: nn.Module, folder: Path, blocks: Sequence[int], features: str) -> None:
    """Write heads, with the blocks and the network (`gan.features`) that they look at."""
    weights = {name: value.detach().cpu() for name, value in heads.state_dict().items()}
    with atomic_path(folder / FILE) as temporary:
        temporary.write_bytes(save(weights, _looks(blocks, features)))


def heads_fit(folder: Path, blocks: Sequence[int], features: str) -> bool:
    """Whether the heads in `folder` look at these blocks of this network."""
    with safe_open(folder / FILE, framework="pt") as opened:
        return bool(opened.metadata() == _looks(blocks, features))


def load_heads(heads: nn.Module, folder: Path) -> None:
    """Put the weights in `folder` into `heads`, which look at as many blocks."""
    heads.load_state_dict(load_file(folder / FILE))


def logits(batch: Batch, nets: Networks, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v̂ of the feature network at x_t, and the discriminator's logits (B, blocks · L)."""
    assert nets.heads is not None
    module = nets.family.teacher if nets.gan_teacher else nets.fake_score
    v, features = nets.with_features(module, x_t, t, batch.conditioning)
    return v, nets.heads(features)


def loss_terms(
    batch: Batch, nets: Networks, options: Gan, rng: Stream, draw: Draw, fake_logits: Tensor
) -> dict[str, Tensor]:
    """The discriminator's loss terms, weighted; real clips get the same t and ε as G.

    Approximate R1 (APT, 2501.08316) perturbs the noised input itself: perturbing the clean clip
    while the network is told the noisy t would penalise something else.
    """
    x_t = add_noise(batch.latents, draw.eps, draw.t)
    _, real_logits = logits(batch, nets, x_t, draw.t)
    loss = losses.discriminator_gan_loss(real_logits, fake_logits)
    terms = {"gan_critic": options.discriminator_weight * loss}
    if options.r1_weight:
        shaken = x_t + options.r1_alpha * rng.normal("r1", x_t)
        _, shaken_logits = logits(batch, nets, shaken, draw.t)
        terms["r1"] = options.r1_weight * losses.approximate_r1(real_logits, shaken_logits)
    return terms
