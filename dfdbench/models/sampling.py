"""Samplers of the student and the teacher, and the noise that belongs to a prompt and a seed.

Used by generation, by backward simulation and by DP-DMD's anchor. A predictor is
`predict_v(x_t, t) -> v̂` with its network and conditions already bound. `decode_clips` makes frames
of what they give.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfdbench.models.blocks import run_blocks
from dfdbench.models.causal import Cache, CausalVariant
from dfdbench.models.conditioning import Conditioning, concatenate
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, cfg_combine, teacher_times, x0_from_v
from dfdbench.utils.device import release_memory
from dfdbench.utils.errors import UserError, is_out_of_memory, unknown_name
from dfdbench.utils.progress import say

Predictor = Callable[[Tensor, Tensor], Tensor]
NoiseFn = Callable[[int], Tensor]  # step number (1, 2, …) -> fresh noise (B C T H W)

SAMPLERS = ("ode", "sde")


def sample_noise(
    prompt_id: str, seed: int, shape: Sequence[int], step: int = 0, part: int = 0
) -> Tensor:
    """Standard normal noise of `shape`, float32 on the CPU, from (prompt id, seed, step) alone.

    Step 0 is the start of a sample, later ones the fresh noise of an sde sampler. Batch size and
    order of a generation therefore change nothing. Parts beyond 0 are of a clip that is longer than
    `shape`, see `LongNoise`.
    """
    names = [prompt_id, seed, step, *([part] if part else [])]
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(tuple(shape), generator=generator)


def batch_noise(
    prompt_ids: Sequence[str], seeds: Sequence[int], shape: Sequence[int], step: int = 0
) -> Tensor:
    """`sample_noise` of B samples: (B C T H W)."""
    pairs = zip(prompt_ids, seeds, strict=True)
    return torch.stack([sample_noise(name, seed, shape, step) for name, seed in pairs])


class LongNoise:
    """Noise of one sample of any length, of which no more than one part a step is held.

    It begins as `sample_noise` of a clip of `shape`, (C T H W), whatever the length; further parts
    of T latent frames follow.
    """

    def __init__(self, prompt_id: str, seed: int, shape: Sequence[int]) -> None:
        self.prompt_id, self.seed, self.shape = prompt_id, seed, shape
        self.held: dict[int, tuple[int, Tensor]] = {}  # step -> part and its noise

    def __call__(self, step: int, frames: range) -> Tensor:
        """Noise (1 C T' H W) of the latent frames `frames`."""
        length, pieces = self.shape[1], []
        for part in range(frames.start // length, (frames.stop - 1) // length + 1):
            if self.held.get(step, (-1,))[0] != part:
                new = sample_noise(self.prompt_id, self.seed, self.shape, step, part)
                self.held[step] = (part, new)
            begin = part * length
            own = slice(max(frames.start - begin, 0), frames.stop - begin)
            pieces.append(self.held[step][1][:, own])
        return torch.cat(pieces, 1)[None]


def guided_v(
    family: ModelFamily,
    module: nn.Module,
    x_t: Tensor,
    t: Tensor,
    conditioning: Conditioning,
    negative: Conditioning | None = None,
    cfg: float | Tensor = 1.0,
    passes: str = "batched",
    conditional: Tensor | None = None,
) -> Tensor:
    """v̂ (B C T H W) under standard guidance g = `cfg` (a number or (B,)).

    Without `negative`, or with the number 1, the negative pass is left out. `passes`: "batched"
    runs both branches as one batch of 2 B, "sequential" one after the other at half the memory.
    `conditional`: v̂ (B C T H W) with the prompt, where an earlier pass gave it.
    """
    if negative is None or (isinstance(cfg, float | int) and cfg == 1):
        return family.predict(module, x_t, t, conditioning) if conditional is None else conditional
    negative = negative.given(conditioning.image_latents)  # guidance is on the text alone
    if conditional is not None:
        return cfg_combine(conditional, family.predict(module, x_t, t, negative), cfg)
    if passes == "sequential":
        conditional, unconditional = (
            family.predict(module, x_t, t, branch) for branch in (conditioning, negative)
        )
        return cfg_combine(conditional, unconditional, cfg)
    both = concatenate([conditioning, negative])
    v = family.predict(module, torch.cat([x_t, x_t]), torch.cat([t, t]), both)
    conditional, unconditional = v.chunk(2)
    return cfg_combine(conditional, unconditional, cfg)


def compute_precision(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 on CUDA, as in training, whatever the weights are held in; float32 on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def compile_blocks(family: ModelFamily, *modules: nn.Module) -> None:
    """torch.compile each transformer block where it stands; equal ones share their code."""
    for module in modules:
        run_blocks(family.blocks(module), compiled=True)


def predictor(
    family: ModelFamily,
    module: nn.Module,
    conditioning: Conditioning,
    negative: Conditioning | None = None,
    cfg: float = 1.0,
) -> Predictor:
    """`guided_v` with everything but (x_t, t) bound: what the samplers take."""
    return lambda x_t, t: guided_v(family, module, x_t, t, conditioning, negative, cfg)


def _full(x: Tensor, time: float | Tensor) -> Tensor:
    """`time` for every row of `x`: (B,) float32."""
    return torch.full((x.shape[0],), float(time), device=x.device, dtype=torch.float32)


def start_at(noise: Tensor, first: float | Tensor) -> Tensor:
    """The student's first input ε·t₁: its first time is a little below 1 and carries no signal."""
    return noise * float(first)


class StudentStep(NamedTuple):
    """v̂ and x̂0 at a student time, and the point at the next one; all (B C T H W)."""

    v: Tensor
    x0: Tensor
    following: Tensor


def student_step(
    predict_v: Predictor,
    x_t: Tensor,
    now: float | Tensor,
    after: float | Tensor,
    fresh: Tensor | None = None,
) -> StudentStep:
    """One student step from time `now` to time `after`: sde with `fresh` noise, ode without.

    ode re-noises x̂0 with the ε recovered from (x_t, x̂0), which is an Euler step along v̂.
    """
    t = _full(x_t, now)
    v = predict_v(x_t, t)
    x0 = x0_from_v(x_t, v, t)
    if fresh is None:
        return StudentStep(v, x0, x_t + (float(after) - float(now)) * v)
    return StudentStep(v, x0, add_noise(x0, fresh, _full(x_t, after)))


def sample_student(
    predict_v: Predictor,
    noise: Tensor,
    times: Tensor,
    sampler: str = "ode",
    noise_fn: NoiseFn | None = None,
) -> Tensor:
    """x̂0 (B C T H W) of the last of N student steps.

    Args:
        noise: ε (B C T H W), standard normal.
        times: (N + 1,) falling, the last 0.
        sampler: "ode" keeps the sample's own ε; "sde" draws fresh noise from `noise_fn(i)` for the
            step to times[i].
    """
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    if sampler == "sde" and noise_fn is None:
        raise ValueError("the sde sampler needs noise_fn")
    x = start_at(noise, times[0])
    x0 = x
    for i in range(len(times) - 1):
        last = i == len(times) - 2
        fresh = noise_fn(i + 1) if sampler == "sde" and noise_fn and not last else None
        _, x0, x = student_step(predict_v, x, times[i], times[i + 1], fresh)
    return x0


def stream_blocks(
    family: ModelFamily,
    module: nn.Module,
    conditioning: Callable[[range], Conditioning],
    noise: Callable[[int, range], Tensor],
    frames: int,
    times: Tensor,
    sampler: str = "ode",
) -> Iterator[Tensor]:
    """x̂0 (B C T' H W) of a causal student, block after block (Self Forcing, 2506.08009).

    Each block is sampled after the cache of those before it, and then remembered by a pass at
    t = 0. Under a window nothing that is held grows with the number of blocks.

    Args:
        conditioning: of the latent frames of a block; another prompt finds the same cache.
        noise: of a step and the latent frames of a block: (B C T' H W), step 0 is the start.
        frames: latent frames of the clip.

    Raises:
        UserError: the student is bidirectional, or the clip does not fill a block.
    """
    if family.causal is None:
        raise UserError(f"a model of the family {family.name} has no causal variant")
    causal, past = family.causal, None
    for block in causal.layout(module).blocks(frames):
        text = conditioning(block)
        predict_v = _causal_predictor(causal, module, text, past)
        x0 = sample_student(predict_v, noise(0, block), times, sampler, _of_block(noise, block))
        yield x0
        if block.stop < frames:
            past = causal.remember(module, x0, text, past)


def sample_blocks(
    family: ModelFamily,
    module: nn.Module,
    conditioning: Conditioning,
    noise: Tensor,
    times: Tensor,
    sampler: str = "ode",
    noise_fn: NoiseFn | None = None,
) -> Iterator[Tensor]:
    """`stream_blocks` under one prompt. Arguments as of `sample_student`; noise (B C T H W) is of
    the whole clip."""

    def cut(step: int, block: range) -> Tensor:
        if step and noise_fn is None:
            raise ValueError("the sde sampler needs noise_fn")
        whole = noise_fn(step) if step and noise_fn else noise
        return whole[:, :, block.start : block.stop]

    return stream_blocks(
        family, module, lambda _: conditioning, cut, noise.shape[2], times, sampler
    )


def _causal_predictor(
    causal: CausalVariant, module: nn.Module, conditioning: Conditioning, past: Cache | None
) -> Predictor:
    return lambda x_t, t: causal.predict(module, x_t, t, conditioning, past)


def _of_block(noise: Callable[[int, range], Tensor], block: range) -> NoiseFn:
    return lambda step: noise(step, block)


def sample_teacher(
    predict_v: Predictor,
    noise: Tensor,
    steps: int,
    shift: float,
    stop_after: int | None = None,
) -> tuple[Tensor, float]:
    """Euler steps of the flow ODE from ε at t = 1 on the teacher's own grid.

    Args:
        predict_v: guided already where guidance is wanted (see `predictor`).
        stop_after: leave after so many steps (DP-DMD's K); None goes to t = 0.

    Returns:
        The state (B C T H W) and the time it stands at: 0 for a whole trajectory.
    """
    times = teacher_times(steps, shift)
    last = steps if stop_after is None else stop_after
    x = noise
    for i in range(last):
        x = x + float(times[i + 1] - times[i]) * predict_v(x, _full(x, times[i]))
    return x, float(times[last])


def decode_clips(family: ModelFamily, latents: Tensor) -> Iterator[Tensor]:
    """The clips (3 T H W) in [−1, 1] of latents (B C T H W), each when it is asked for.

    As many at once as `ModelFamily.clips_at_once`, which is one but for small clips on a CPU, so
    that memory holds the working set and the frames of one. Where one alone does not fit, it and
    all that this autoencoder decodes later go through diffusers' tiles, whose blended edges move
    pixels a little; `is_tiled` says so.
    """
    for rows in latents.split(family.clips_at_once(latents.shape)):
        yield from _decode(family, rows)  # no name keeps one while the next is decoded


def _decode(family: ModelFamily, latents: Tensor) -> Tensor:
    """Frames (B 3 T H W) of latents; in tiles where they do not fit otherwise."""
    try:
        return family.decode_latents(latents)
    except Exception as error:
        if is_tiled(family) or not is_out_of_memory(error):
            raise
    # Out of the handler: the error would keep the tensors of the try that failed.
    say("a clip does not fit the memory: the autoencoder goes through tiles from here on")
    family.vae.enable_tiling()
    release_memory()
    return family.decode_latents(latents)


def is_tiled(family: ModelFamily) -> bool:
    """Whether the autoencoder decodes in tiles."""
    return bool(family.vae.use_tiling)
