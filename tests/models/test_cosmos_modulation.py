"""Adaptive norms by frame against diffusers' own, by token."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dfdbench.models.blocks import run_blocks
from dfdbench.models.cosmos_modulation import modulate_by_frame


def build(tiny_i2v):
    module = tiny_i2v.new_module()
    plain = type(module).from_config(module.config)
    plain.load_state_dict(module.state_dict())
    return plain


@pytest.fixture(scope="module")
def tiny_i2v(tmp_path_factory):
    from dfdbench.models.registry import load_family
    from dfdbench.toy.checkpoint_i2v import TINY_I2V, write_checkpoint_i2v

    return load_family(write_checkpoint_i2v(tmp_path_factory.mktemp("i2v") / "m", TINY_I2V, seed=3))


def run(module, frames=5):
    g = torch.Generator().manual_seed(frames)
    channels = module.config.in_channels - 1
    (v,) = module(
        hidden_states=torch.randn(2, channels, frames, 8, 8, generator=g),
        timestep=torch.rand(2, 1, frames, 1, 1, generator=g),
        encoder_hidden_states=torch.randn(
            2, 7, module.config.crossattn_proj_in_channels, generator=g
        ),
        condition_mask=torch.zeros(2, 1, frames, 8, 8),
        padding_mask=torch.zeros(1, 1, 8, 8),
        return_dict=False,
    )
    return v


def gradients(module):
    module.zero_grad(set_to_none=True)
    (run(module) ** 2).mean().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", ["none", "save_attention"])
def test_values_and_gradients_are_those_by_token_at_fewer_flops(tiny_i2v, checkpointing):
    plain = build(tiny_i2v)
    module = copy.deepcopy(plain)
    modulate_by_frame(module)
    run_blocks(module.transformer_blocks, checkpointing=checkpointing)
    counts = []
    with torch.no_grad():
        for net in (plain, module):
            with FlopCounterMode(display=False) as counter:
                run(net)
            counts.append(counter.get_total_flops())
        for frames in (5, 3):  # a clip of another length follows
            torch.testing.assert_close(
                run(module, frames), run(plain, frames), rtol=1e-5, atol=1e-6
            )
    norms = [p for n, p in plain.named_parameters() if ".norm" in f".{n}" and ".linear_" in n]
    by_token, by_frame = (2 * 2 * rows * sum(p.numel() for p in norms) for rows in (5 * 16, 5))
    assert counts[0] - counts[1] == by_token - by_frame > 0
    ours, expected = gradients(module), gradients(plain)
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (ours[name] - gradient).norm() <= 2e-5 * gradient.norm() + 1e-9, name


def test_a_copy_notes_its_own_frames(tiny_i2v):
    module = build(tiny_i2v)
    modulate_by_frame(module)
    other = copy.deepcopy(module)
    with torch.no_grad():
        short = run(other, 3)
        run(module, 5)
        assert torch.equal(run(other, 3), short)
        first = module.transformer_blocks[0].norm1.forward.args[0]
        second = other.transformer_blocks[0].norm1.forward.args[0]
    assert (first.count, second.count) == (5, 3)
