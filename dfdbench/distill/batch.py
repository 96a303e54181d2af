"""A batch of real clips and their prompts: what every source of data makes and every loss takes."""

from typing import NamedTuple

from torch import Tensor

from dfdbench.models.conditioning import Conditioning


class Batch(NamedTuple):
    """Real clips and their prompts. The student input is noised from these very clips (paired).

    Attributes:
        latents: (B C T H W) float32, normalised.
    """

    latents: Tensor
    conditioning: Conditioning


def make_batch(latents: Tensor, conditioning: Conditioning, conditioning_frames: int = 0) -> Batch:
    """The batch of clips (B C T H W) and their prompts: the one place where every source's is made.

    conditioning_frames: the family's; so many first latent frames of the clip are what it is given.
    The autoencoder is causal: they are those of the clip's beginning encoded alone.
    """
    if conditioning_frames:
        conditioning = conditioning.given(latents[:, :, :conditioning_frames])
    return Batch(latents, conditioning)
