"""How far real clips of one caption lie apart: the right side of DFD's validity condition.

Used by the sources of clips, for the fairness record. A run logs the left side, E‖x − G‖².
"""

from collections.abc import Callable

import torch
from torch import Tensor


def caption_spread(captions: Tensor, clip: Callable[[int], Tensor]) -> float | None:
    """δ² = ½ E‖x − x'‖² per element, over pairs of clips of one caption (2606.18478 Eq. 7).

    Of each caption this is its clips' unbiased variance, over n − 1; captions are weighed by their
    clips, and those of a single clip say nothing.

    Args:
        captions: (N,) whole numbers, the caption of each clip; a negative one is not known.
        clip: latents (C T H W) of a clip, by its row in `captions`.

    Returns:
        None where no caption has two clips, or latents are not finite.
    """
    names, counts = captions[captions >= 0].unique(return_counts=True)
    total, clips = 0.0, 0
    for name in names[counts > 1].tolist():
        rows = (captions == name).nonzero().flatten().tolist()
        first = clip(rows[0]).double()
        away, square = torch.zeros_like(first), 0.0  # Σ (x − first), Σ ‖x − first‖²
        for row in rows[1:]:
            step = clip(row).double() - first
            away += step
            square += float(step.square().sum())
        n = len(rows)
        variance = (square - float(away.square().sum()) / n) / ((n - 1) * first.numel())
        total, clips = total + n * variance, clips + n
    spread = total / clips if clips else float("nan")
    return spread if torch.isfinite(torch.tensor(spread)) else None
