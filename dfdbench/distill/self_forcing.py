"""The rollout of a causal student in training (Self Forcing, 2506.08009): G, block after block.

Used by inputs.py as the policy "self_forcing", so that DMD2, DFD and the controls train a causal
student with the losses that they have: teacher and fake score look at the whole clip.
"""

import torch
from torch import Tensor

from dfdbench.distill.batch import Batch
from dfdbench.distill.nets import Networks
from dfdbench.distill.sections import Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.causal import Cache
from dfdbench.models.sampling import Predictor, start_at, student_step


def roll_out(
    batch: Batch, nets: Networks, recipe: Recipe, rng: Stream, begun: Tensor | None = None
) -> tuple[Tensor, float]:
    """G (B C T H W) and the time of the student step that made it.

    Each block takes student steps from noise to a random exit, the last with a gradient. The exit
    is the same for all blocks and for the whole update, as all ranks must do the same work. Then a
    pass of the clean block at t = 0 writes the cache, without gradient: what a block owes to those
    before it is a constant. Noise is drawn for the whole clip, so blocks of another length change
    none of it, and a clip of one block has backward simulation's.

    Args:
        begun: the first block, where it was made otherwise.
    """
    times = nets.times.tolist()
    exit_ = rng.integer("exit", len(times) - 1)
    start = rng.normal("input_eps", batch.latents)  # (B C T H W)
    sde = recipe.student.sampler == "sde"
    fresh = [rng.normal(f"sde_{i}", start) if sde else None for i in range(exit_)]
    past: Cache | None = None
    clean: list[Tensor] = []
    for block in nets.causal.layout(nets.student).blocks(start.shape[2]):
        cut = (slice(None), slice(None), slice(block.start, block.stop))
        predict = _after(past, batch, nets)
        if begun is not None and not clean:
            clean.append(begun)
        else:
            x = start_at(start[cut], times[0])
            with torch.no_grad():
                for i, noise in enumerate(fresh):
                    own = None if noise is None else noise[cut]
                    x = student_step(predict, x, times[i], times[i + 1], own).following
            clean.append(student_step(predict, x, times[exit_], times[exit_ + 1]).x0)
        if block.stop < start.shape[2]:
            past = nets.remember(clean[-1].detach(), batch.conditioning, past)
    return torch.cat(clean, 2), times[exit_]


def _after(past: Cache | None, batch: Batch, nets: Networks) -> Predictor:
    return lambda x_t, t: nets.causal_v(x_t, t, batch.conditioning, past)
