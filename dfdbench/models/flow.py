"""The flow-matching path, its conversions, time shift, CFG and the student's time grid.

Used by sampling, every method and the diagnostics. Pure functions. x, v, ε and scores are
(B C T H W) float tensors; t is (B,) in (0, 1], float32 or float64, and is broadcast inside; on the
path and in x̂0 it may be (B T), each frame's own.

    x_t = (1 − t) x0 + t ε        v = ε − x0        score s(x_t, t) = −ε̂ / t

(Lipman et al. 2210.02747, rectified-flow path; Wan 2503.20314 for the shift.)
"""

import torch
from torch import Tensor

T_FIRST = 0.999  # the student never sees t = 1 exactly: the path carries no signal there


def _over(t: Tensor, x: Tensor) -> Tensor:
    """`t` (B,), or (B T), shaped to broadcast over `x` (B C T H W), cast only after its arithmetic
    is done."""
    shape = (-1, 1, t.shape[1], 1, 1) if t.ndim == 2 else (-1, *([1] * (x.ndim - 1)))
    return t.reshape(shape).to(x.dtype)


def add_noise(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """The point x_t = (1 − t) x0 + t ε on the path."""
    return _over(1 - t, x0) * x0 + _over(t, x0) * eps


def velocity(x0: Tensor, eps: Tensor) -> Tensor:
    """v = ε − x0, the derivative of the path in t."""
    return eps - x0


def x0_from_v(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """x̂0 = x_t − t v̂."""
    return x_t - _over(t, x_t) * v


def eps_from_v(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """ε̂ = x_t + (1 − t) v̂."""
    return x_t + _over(1 - t, x_t) * v


def score_from_v(x_t: Tensor, v: Tensor, t: Tensor) -> Tensor:
    """s = −(x_t + (1 − t) v̂) / t."""
    return -eps_from_v(x_t, v, t) / _over(t, x_t)


def shift_time(u: Tensor, shift: float) -> Tensor:
    """shift·u / (1 + (shift − 1)·u): maps [0, 1] onto itself, towards 1 for shift > 1."""
    return shift * u / (1 + (shift - 1) * u)


def student_times(steps: int, shift: float) -> Tensor:
    """Times of an N-step student, float64 (N + 1,): shifted multiples of 1/N, ending in 0.

    The first is clamped to 0.999: 4 steps at shift 5 give [0.999, 0.937, 0.833, 0.625, 0].
    """
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift_time(u, shift).clamp(max=T_FIRST)


def teacher_times(steps: int, shift: float) -> Tensor:
    """The teacher's own sampling grid, float64 (steps + 1,) from 1 to 0."""
    return shift_time(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift)


def sample_t(
    count: int,
    generator: torch.Generator,
    shift: float,
    low: float = 0.001,
    high: float = 0.999,
) -> Tensor:
    """Score-matching times (count,) float32 on the generator's device: shifted uniform, clamped."""
    u = torch.rand(count, generator=generator, device=generator.device)
    return shift_time(u, shift).clamp(low, high)


def cfg_combine(conditional: Tensor, negative: Tensor, scale: float | Tensor) -> Tensor:
    """Standard classifier-free guidance: negative + g·(conditional − negative).

    g = 1 is no guidance. `scale` may be (B,). The other convention in use, cond + g'·(cond − neg),
    has g' = g − 1. Works on x0, v or scores alike, which are affine in one another.
    """
    if isinstance(scale, Tensor):
        scale = _over(scale, conditional)
    return negative + scale * (conditional - negative)
