"""A GPU that is not there: CUDA's rules, and the engine's gradients from the walk of a graph."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from dfdbench.distill.plan import fake_cuda
from dfdbench.distill.plan.measure import Live


def test_a_fake_gpu_has_cudas_rules_and_not_the_cpus():
    """Layer norm and powers in float32, attention fused, gradients on the device, no GPU asked."""
    with fake_cuda.fake_gpu():
        weight = torch.nn.Parameter(torch.empty(16, 16, device=fake_cuda.DEVICE))
        with torch.autocast("cuda", torch.bfloat16):
            x = torch.nn.functional.linear(torch.empty(1, 2, 8, 16, device="cuda"), weight)
            assert x.dtype is torch.bfloat16
            assert torch.nn.functional.layer_norm(x, (16,)).dtype is torch.float32
            assert x.pow(2).dtype is torch.float32
            attended = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        assert "Flash" in type(attended.grad_fn).__name__
        fake_cuda.backward(attended.float().sum())
        assert weight.grad.device == fake_cuda.DEVICE and weight.grad.dtype is torch.float32


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_walk_of_the_graph_gives_the_engines_gradients_and_holds_as_much(checkpointing):
    torch.manual_seed(0)
    make = lambda: torch.nn.Sequential(  # noqa: E731
        torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 16)
    )
    parts, scale = [make() for _ in range(3)], torch.nn.Parameter(torch.randn(1, 1, 16))
    x = torch.randn(5, 300, 16)

    def loss():
        y = x
        for part in parts:
            run = partial(checkpoint, part, use_reentrant=False) if checkpointing else part
            y = y + scale * run(y + scale)
        q, k = y.chunk(2, -1)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, q)
        return (attended**2).mean() + 0.1 * y.sum()

    leaves = [scale, *(p for part in parts for p in part.parameters())]
    found = []
    for run in (torch.Tensor.backward, fake_cuda.backward):
        for leaf in leaves:
            leaf.grad = None
        with Live() as live:
            value = loss()
            run(value)
        found.append(([leaf.grad for leaf in leaves], live.peak))
    (engine, most), (walk, held) = found
    assert all(torch.equal(a, b) for a, b in zip(engine, walk, strict=True))
    assert held == pytest.approx(most, rel=0.01)
