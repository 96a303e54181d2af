"""Folding latent channels is exact algebra."""

from dataclasses import replace

import pytest
import torch

from dfdbench.toy import world
from dfdbench.toy.channels import fold, main_directions, scale
from dfdbench.toy.checkpoint import TINY, build_vae

WIDE = replace(TINY, latent_channels=8)


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    vae = build_vae(WIDE).eval()
    for name in ("quant_conv", "post_quant_conv"):
        torch.nn.init.normal_(getattr(vae, name).bias)  # zero biases would hide a lost one
    return vae


@pytest.fixture(scope="module")
def clips():
    return world.render(world.sample_attributes(4, 0)) * 2 - 1


@pytest.fixture(scope="module")
def latents(wide, clips):
    with torch.no_grad():
        return wide.encode(clips).latent_dist.mean


@pytest.mark.parametrize("kept", [3, 8])
def test_encoding_is_the_projection(wide, clips, latents, kept):
    small = fold(wide, build_vae(replace(TINY, latent_channels=kept)).eval(), latents)
    with torch.no_grad():
        folded = small.encode(clips).latent_dist.mean
    expected = torch.einsum("kc,ncthw->nkthw", main_directions(latents, kept), latents)
    assert folded.shape[1] == kept
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


def test_decoding_with_all_directions_is_unchanged(wide, clips, latents):
    small = fold(wide, build_vae(WIDE).eval(), latents)
    with torch.no_grad():
        expected = wide.decode(latents).sample
        folded = small.decode(small.encode(clips).latent_dist.mean).sample
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


def test_dropping_an_empty_direction_changes_no_picture(wide, latents):
    """Away from the border: there the decoder pads what used to have an offset."""
    flat = latents.clone()
    flat[:, -1] = 0.7  # a channel that says nothing
    small = fold(wide, build_vae(replace(TINY, latent_channels=7)).eval(), flat)
    down = main_directions(flat, 7)
    with torch.no_grad():
        before = wide.post_quant_conv(flat)
        after = small.post_quant_conv(torch.einsum("kc,ncthw->nkthw", down, flat))
        inner = (..., slice(2, None), slice(1, -1), slice(1, -1))
        expected = wide.decoder.conv_in(before)[inner]
        folded = small.decoder.conv_in(after)[inner]
    torch.testing.assert_close(folded, expected, atol=1e-4, rtol=1e-4)


def test_directions_are_the_largest_and_have_a_fixed_sign():
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 3.0, 1.0]).view(1, 3, 1, 1, 1)
    latents = torch.randn(50, 3, 2, 4, 4, generator=rng) * spread
    directions = main_directions(latents, 2)
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(directions, expected, atol=0.1, rtol=0)


def test_weak_channels_are_not_blown_up():
    rng = torch.Generator().manual_seed(0)
    spread = torch.tensor([5.0, 2.0, 0.01]).view(1, 3, 1, 1, 1)
    _, std = scale(torch.randn(100, 3, 2, 4, 4, generator=rng) * spread)
    torch.testing.assert_close(std, torch.tensor([5.0, 2.0, 1.0]), rtol=0.05, atol=0)
