"""Teacher forcing: a causal student learns the flow of real clips, each block after clean frames.

The first stage of an autoregressive student (compared in Self Forcing, 2506.08009, Section 4): flow
matching with a noise level of its own for every block, in one pass over a clean and a noised clip.
What comes of it is not distilled: it takes as many steps as its teacher, and is the control of the
students that are.
"""

from dataclasses import dataclass
from typing import Any

from torch.nn import functional as F

from dfdbench.distill.batch import Batch
from dfdbench.distill.causal_stages import causal_only, per_frame
from dfdbench.distill.inputs import self_forcing as generate
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, velocity

__all__ = ["Options", "generate", "record", "student_loss", "uses_gan"]
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """Teacher forcing has none of its own; the blocks are student.block_frames."""


def uses_gan(recipe: Recipe) -> bool:
    """The method has none."""
    return False


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    causal_only(recipe)
    return {"input": "noised_real", "gan": False, "context": "clean", "score_time_per": "block"}


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """mean (v̂ − (ε − x))² at x noised block by block, each block seeing clean ones before it."""
    x = batch.latents
    blocks = nets.causal.layout(nets.student).blocks(x.shape[2])
    count = len(x) * len(blocks)
    t = rng.times("block_t", recipe.schedule, count)
    t = per_frame(t, blocks)  # (B T)
    eps = rng.normal("block_eps", x)
    v = nets.causal_v(add_noise(x, eps, t), t, batch.conditioning, after=x)
    target = velocity(x, eps)
    loss = F.mse_loss(v, target)
    error = (v - target).detach().square().mean((1, 3, 4))  # (B T)
    bins = {"flow_error": (t.flatten(), error.flatten())}
    return LossReport(loss, {"flow": loss.detach()}, bins)
