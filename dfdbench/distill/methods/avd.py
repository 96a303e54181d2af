"""AVD (2603.21864): DMD2 and a flow regression on real clips that outliers weigh less in.

L = L_DMD + λ w L_flow. L_flow is the student's flow loss on a real clip noised to one of its own
times, w = 1 − sigmoid(s (L_flow − m)), m the running mean of L_flow at that time. No further
network: at equal data the rival of DFD, and near to the control `regression`. The temporal term and
the interpolation of frames of the paper are left out.
"""

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import Tensor

from dfdbench.distill import losses
from dfdbench.distill.batch import Batch
from dfdbench.distill.causal_stages import bidirectional_only
from dfdbench.distill.inputs import generate
from dfdbench.distill.methods import dmd2
from dfdbench.distill.methods.dmd2 import fake_score_loss, uses_gan
from dfdbench.distill.nets import LossReport, Networks
from dfdbench.distill.sections import MethodOptions, Recipe, Unit
from dfdbench.distill.statistics import RunningMean
from dfdbench.distill.streams import Stream
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import add_noise, velocity

__all__ = ["Options", "fake_score_loss", "generate", "record", "statistics", "student_loss",
           "uses_gan"]  # fmt: skip
REAL_CLIPS = True


@dataclass(frozen=True)
class Options(MethodOptions):
    """[avd]: the regression beside DMD2; weight 0 is DMD2."""

    weight: Annotated[float, Field(ge=0)] = 1.0  # λ
    sharpness: Annotated[float, Field(ge=0)] = 3.0  # s; 0: every clip weighs one half
    ema: Unit = 0.95  # of m, per student update


def record(recipe: Recipe, family: ModelFamily) -> dict[str, Any]:
    """What belongs in the fairness record."""
    bidirectional_only(recipe)
    return {"input": recipe.student.input, "gan": uses_gan(recipe), "teacher_looks_at": "generated"}


def statistics(recipe: Recipe) -> RunningMean | None:
    """m for each student time; none where there is no regression."""
    return RunningMean(recipe.student.steps, recipe.options.ema) if recipe.options.weight else None


def weights(flow: Tensor, mean: Tensor, sharpness: float) -> Tensor:
    """w (B,) = 1 − sigmoid(s (L_flow − m)), a constant: under one half for the harder clips."""
    return torch.sigmoid(sharpness * (mean - flow)).detach()


def student_loss(batch: Batch, nets: Networks, recipe: Recipe, rng: Stream) -> LossReport:
    """DMD2's loss and, by a student pass of its own, the weighed regression."""
    options: Options = recipe.options
    report = dmd2.student_loss(batch, nets, recipe, rng)
    if not options.weight:
        return report
    x, grid = batch.latents, nets.times[:-1].to(batch.latents.device, torch.float32)
    index = rng.integers("flow_time", len(grid), len(x))  # (B,)
    t, eps = grid[index], rng.normal("flow_eps", x)
    v = nets.student_v(add_noise(x, eps, t), t, batch.conditioning)
    flow = losses.denoising_error(nets.free(v), nets.free(velocity(x, eps)))  # (B,)
    kept = cast(RunningMean, nets.statistics)
    # A time without a mean yet takes each clip's own loss for it: w is one half.
    mean = torch.where(kept.seen[index] > 0, kept.mean[index], flow.detach())
    w = weights(flow, mean, options.sharpness)
    regression = options.weight * (w * flow).mean()
    rows = torch.stack([index.to(flow.dtype), flow.detach()], 1)
    return LossReport(
        report.loss + regression,
        report.parts | {"flow": regression.detach(), "flow_weight": w.mean()},
        report.bins | {"flow_error": (t, flow.detach())},
        rows,
    )
