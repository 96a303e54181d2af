"""f-divergences as weights of DMD's step: h(r) for a density ratio r, with mean 1 over a batch.

Used by f_distill.py. Table 1 of f-distill (2502.15681): the reverse KL is h = 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dfdbench.distill.statistics import RunningMean

FLAT = 1e-3  # spread of h below which it is as good as 1
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "js": lambda r: r / (1 + r),
    "kl": lambda r: r,
    "jeffreys": lambda r: 1 + r,
    "hellinger": torch.sqrt,
}


class Ratios(nn.Module):
    """Running mean of r at each noise level; mean and spread of h in the newest batch.

    Args:
        divergence: a name of WEIGHTS. levels: of noise. decay: of the running mean, which begins at
            1, the ratio of an undecided discriminator.
    """

    mean_h: Tensor
    spread: Tensor

    def __init__(self, divergence: str, levels: int, decay: float) -> None:
        super().__init__()
        self.means = RunningMean(levels, decay, start=1.0)
        self.divergence = divergence
        self.register_buffer("mean_h", torch.ones(()))
        self.register_buffer("spread", torch.zeros(()))

    def h(self, rows: Tensor) -> Tensor:
        """(B,), over the mean of the batch that `update` saw last.

        Args:
            rows: (B, 2), noise level and r of each clip.
        """
        return self._raw(rows) / self.mean_h

    def _raw(self, rows: Tensor) -> Tensor:
        return WEIGHTS[self.divergence](rows[:, 1] / self.means.mean[rows[:, 0].long()])

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Take in the rows of a whole batch, from which h is then weighed."""
        self.means.update(rows)
        self.mean_h.copy_(self._raw(rows).mean())
        self.spread.copy_(self.h(rows).std(correction=0))

    def warning(self) -> str:
        """A line where h is flat."""
        flat = "h_spread is 0: all clips have the same weight, so this trains as DMD2 with a GAN"
        return flat if self.spread < FLAT else ""
