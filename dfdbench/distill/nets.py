"""The networks of a training run under one precision, and what a batch and a loss report are.

Used by the loop and every method; knows families only through the protocol.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfdbench.distill import parallel
from dfdbench.models.causal import Cache, CausalVariant
from dfdbench.models.conditioning import Conditioning
from dfdbench.models.family import ModelFamily
from dfdbench.models.flow import x0_from_v
from dfdbench.models.sampling import guided_v
from dfdbench.utils.errors import UserError


class LossReport(NamedTuple):
    """A loss with its parts, all on the device; nothing here waits for it.

    Attributes:
        loss: scalar to differentiate.
        parts: detached scalars by name.
        bins: name -> (t (B,), value (B,)), averaged over bins of t in the log.
        observed: rows (B, 2) for the method's statistics after this update, see statistics.py.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    bins: dict[str, tuple[Tensor, Tensor]]
    observed: Tensor | None = None


@dataclass
class Networks:
    """Student G, fake score F, frozen teacher T and, with a GAN, discriminator heads.

    Attributes:
        negative: conditioning of the guidance branch, one row.
        cfg: the teacher's standard guidance scale.
        guidance_passes: "batched", or "sequential" to save memory.
        times: the student's grid (N + 1,) float64, on the CPU.
        autocast: computing dtype of trained networks on CUDA, None for plain float32. The frozen
            teacher computes in the dtype it is held in.
        ema: exponential moving average of the student's weights, where the recipe wants one.
        skeletons: empty copies of student, fake score and heads, where they are cut among
            processes.
        statistics: what the method remembers of earlier updates, see statistics.py.
        whole_batch: whether a loss sees the whole batch of its update: one round, one process.
    """

    family: ModelFamily
    student: nn.Module
    fake_score: nn.Module
    negative: Conditioning
    cfg: float
    times: Tensor
    guidance_passes: str = "batched"
    heads: nn.Module | None = None
    gan_teacher: bool = False
    blocks: tuple[int, ...] = ()
    autocast: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ema: nn.Module | None = None
    skeletons: dict[str, nn.Module] = field(default_factory=dict)
    statistics: nn.Module | None = None
    whole_batch: bool = True

    def precision(self) -> AbstractContextManager[None]:
        """Autocast where it is on. It keeps no cast weights: a pass uses each of them once."""
        return torch.autocast(
            self.device.type,
            dtype=self.autocast,
            enabled=self.autocast is not None,
            cache_enabled=False,
        )

    def free(self, x: Tensor) -> Tensor:
        """The latent frames (B C T' H W) that are generated: all but the given ones."""
        given = self.family.conditioning_frames
        return x[:, :, given:] if given else x

    def student_v(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """v̂ of the student; it runs without guidance."""
        with self.precision():
            return self.family.predict(self.student, x_t, t, conditioning)

    @property
    def causal(self) -> CausalVariant:
        """How a causal student is asked for its blocks."""
        if self.family.causal is None:
            raise UserError(f"a model of the family {self.family.name} has no causal variant")
        return self.family.causal

    def causal_v(
        self, x_t: Tensor, t: Tensor, conditioning: Conditioning, after: Tensor | Cache | None
    ) -> Tensor:
        """v̂ of a causal student whose blocks in x_t follow `after`; see `CausalVariant.predict`."""
        with self.precision():
            return self.causal.predict(self.student, x_t, t, conditioning, after)

    def remember(self, clean: Tensor, conditioning: Conditioning, past: Cache | None) -> Cache:
        """The causal student's cache after a clean block (B C T H W), without gradient."""
        with self.precision():
            return self.causal.remember(self.student, clean, conditioning, past)

    def fake_score_v(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """v̂ of the fake score; it runs without guidance."""
        with self.precision():
            return self.family.predict(self.fake_score, x_t, t, conditioning)

    def teacher_v(
        self,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        cfg: float | Tensor,
        conditional: Tensor | None = None,
        to_input: bool = False,
    ) -> Tensor:
        """Guided v̂ of the teacher; the number 1 skips the negative pass.

        conditional: v̂ with the prompt, where an earlier pass gave it. to_input: let gradients pass
        to x_t; without it there are none.
        """
        unguided = not isinstance(cfg, Tensor) and cfg == 1
        negative = None if unguided else self.negative.repeat(len(x_t))
        with torch.set_grad_enabled(to_input and torch.is_grad_enabled()):
            return guided_v(
                self.family, self.family.teacher, x_t, t, conditioning, negative, cfg,
                self.guidance_passes, conditional,
            )  # fmt: skip

    def teacher_x0(
        self,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        cfg: float | Tensor,
        conditional: Tensor | None = None,
        to_input: bool = False,
    ) -> Tensor:
        """Guided x̂0 of the teacher; arguments as of `teacher_v`."""
        v = self.teacher_v(x_t, t, conditioning, cfg, conditional, to_input)
        return x0_from_v(x_t, v, t)

    def with_features(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """v̂ of `module` and its hidden states at the tapped blocks, of one pass."""
        with self.precision():
            return self.family.predict_with_features(module, x_t, t, conditioning, self.blocks)

    def train_only(self, *modules: nn.Module) -> None:
        """Let gradients reach these networks only, where a loss ties several together."""
        for module in (self.student, self.fake_score, self.heads):
            if module is not None:
                parallel.reshard(module)
                module.requires_grad_(any(module is wanted for wanted in modules))
