"""Folds the main directions of a VAE's latents into a VAE with fewer channels.

The VAE learns fastest with 16 latent channels but leaves most of them nearly empty: five
directions carry its pictures, and noise in the others only burdens the teacher. A rotation of the
channels can be folded into the layers beside the latents, so the smaller VAE is a plain
AutoencoderKLWan and encodes exactly the projection of what the large one encodes.
"""

from typing import Any  # diffusers classes are untyped

import torch

POSTERIOR_LOG_VARIANCE = -6.0  # of the folded VAE, a constant; only means are ever used
SMALLEST_SCALE = 0.2  # of the largest: a weaker channel keeps less than unit variance


def main_directions(latents: torch.Tensor, channels: int) -> torch.Tensor:
    """The `channels` principal directions (channels, C) of latents (N C T H W), largest first."""
    rows = latents.movedim(1, -1).flatten(0, -2)
    _, vectors = torch.linalg.eigh(torch.cov(rows.T))
    directions = vectors.flip(1)[:, :channels].T
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    return directions * signs  # eigenvectors have no sign of their own


@torch.no_grad()
def fold(vae: Any, small: Any, latents: torch.Tensor) -> Any:
    """Give `small` the weights of `vae`, its latents projected on their main directions.

    Args:
        vae: AutoencoderKLWan with C latent channels.
        small: the same with fewer; returned.
        latents: (N C T H W) posterior means of `vae`, not normalised; they fix the directions.

    Encoding is exact. Decoding adds the mean of what was dropped; away from the border, where
    the decoder pads with zeros, that too is exact.
    """
    kept = small.config.z_dim
    down = main_directions(latents, kept)  # kept, C
    mean = latents.mean((0, 2, 3, 4))
    state = vae.state_dict()
    neighbours = ("encoder.conv_out.", "quant_conv.", "post_quant_conv.", "decoder.conv_in.")
    shared = {k: v for k, v in state.items() if not k.startswith(neighbours)}
    small.load_state_dict(small.state_dict() | shared)

    def linear(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return state[f"{name}.weight"][:, :, 0, 0, 0], state[f"{name}.bias"]

    weight, bias = linear("quant_conv")
    to_latents = down @ weight[: len(mean)]
    convolution, offset = state["encoder.conv_out.weight"], state["encoder.conv_out.bias"]
    out = small.encoder.conv_out
    out.weight.zero_()
    out.weight[:kept] = torch.einsum("ko,oithw->kithw", to_latents, convolution)
    out.bias.fill_(POSTERIOR_LOG_VARIANCE)
    out.bias[:kept] = to_latents @ offset + down @ bias[: len(mean)]
    _make_identity(small.quant_conv)

    weight, bias = linear("post_quant_conv")
    from_latents = weight @ down.T  # C, kept
    constant = bias + weight @ (mean - down.T @ (down @ mean))
    # What of the constant lies in the span goes before the padding, the rest into the bias.
    inside = torch.linalg.lstsq(from_latents, constant[:, None]).solution[:, 0]
    _make_identity(small.post_quant_conv)
    small.post_quant_conv.bias.copy_(inside)
    convolution = state["decoder.conv_in.weight"]
    small.decoder.conv_in.weight.copy_(torch.einsum("oithw,ik->okthw", convolution, from_latents))
    rest = torch.einsum("oithw,i->o", convolution, constant - from_latents @ inside)
    small.decoder.conv_in.bias.copy_(state["decoder.conv_in.bias"] + rest)
    return small


def _make_identity(layer: Any) -> None:
    layer.weight.copy_(torch.eye(layer.weight.shape[0]).view_as(layer.weight))
    layer.bias.zero_()


def scale(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and divisor (C,) of each channel; weak channels are not blown up to unit variance."""
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    return mean, std.clamp(min=SMALLEST_SCALE * std.max())
