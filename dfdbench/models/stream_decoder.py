"""Decodes latents as they come, with the features that Wan's autoencoder keeps of earlier frames.

Used by family.py for clips that are made block after block. AutoencoderKLWan decodes latent frames
one by one and gives its decoder what it must know of those before them, but forgets it when a call
ends. Here it lasts until the clip ends; only public arguments of the decoder are used.
"""

from typing import Any

import torch
from torch import Tensor


class StreamDecoder:
    """Pixels of one clip whose latents come in pieces of any length, in their order.

    All pieces together are what one `decode` gives; memory does not grow with the clip.
    """

    def __init__(self, vae: Any) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

        self.vae = vae
        causal = [m for m in vae.decoder.modules() if isinstance(m, WanCausalConv3d)]
        self.features: list[Any] = [None] * len(causal)  # one a convolution over time
        self.begun = False

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """Frames (B 3 T H W) in [-1, 1] of the next latents (B C T' H' W'), unnormalised.

        The first latent frame of the clip gives one frame, each later one four.
        """
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        frames = []
        for latent in self.vae.post_quant_conv(latents).split(1, 2):
            first, self.begun = not self.begun, True
            frames.append(
                self.vae.decoder(latent, feat_cache=self.features, feat_idx=[0], first_chunk=first)
            )
        video = torch.cat(frames, 2)
        if self.vae.config.patch_size is not None:
            video = unpatchify(video, patch_size=self.vae.config.patch_size)
        return video.clamp(-1, 1)
