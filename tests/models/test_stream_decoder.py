"""Decoding as latents come is decoding the whole."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from dfdbench.models.stream_decoder import StreamDecoder
from dfdbench.toy.checkpoint import TINY, build_vae


def plain_vae():
    """With the options of Wan2.1: no patches, no residual up-sampling."""
    return AutoencoderKLWan(base_dim=8, z_dim=4, dim_mult=[1, 1, 2, 2], num_res_blocks=1)


@pytest.fixture(scope="module", params=["wan2.1", "toy"])
def vae(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        made = plain_vae() if request.param == "wan2.1" else build_vae(TINY)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 3, 1], [2, 5]])
def test_pieces_of_any_length_give_the_frames_of_the_whole(vae, cuts):
    latents = torch.randn(1, vae.config.z_dim, 7, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = vae.decode(latents).sample
    decode = StreamDecoder(vae)
    pieces = [decode(piece) for piece in latents.split(cuts, 2)]
    assert [p.shape[2] for p in pieces] == [4 * cut - 3 * (i == 0) for i, cut in enumerate(cuts)]
    torch.testing.assert_close(torch.cat(pieces, 2), expected, atol=1e-5, rtol=0)
    alone = StreamDecoder(vae)(latents[:, :, cuts[0] :]) if len(cuts) > 1 else None
    if alone is not None:  # what is tested is not true of pieces decoded each for itself
        begin = 4 * cuts[0] - 3
        own = alone[:, :, 1:] if alone.shape[2] > 1 else alone
        assert (own - expected[:, :, begin + 3 :][:, :, : own.shape[2]]).abs().max() > 1e-3


def test_a_clip_is_not_told_of_the_one_before_it_nor_of_another_decode(vae):
    latents = torch.randn(1, vae.config.z_dim, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected, decode = vae.decode(latents).sample, StreamDecoder(vae)
    first = decode(latents[:, :, :2])
    vae.decode(latents + 1)  # scoring may decode meanwhile
    both = torch.cat([first, decode(latents[:, :, 2:])], 2)
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(StreamDecoder(vae)(latents), expected, atol=1e-5, rtol=0)


def test_a_family_decodes_a_stream_as_it_decodes_the_whole(tiny_family):
    latents = torch.randn(1, TINY.latent_channels, 5, 8, 8)
    decode = tiny_family.stream_decoder()
    pieces = torch.cat([decode(piece) for piece in latents.split(2, 2)], 2)
    torch.testing.assert_close(pieces, tiny_family.decode_latents(latents), atol=1e-5, rtol=0)
