"""What methods share that are for causal students alone, or for bidirectional ones alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dfdbench.distill.sections import Recipe
from dfdbench.utils.errors import UserError


def causal_only(recipe: Recipe) -> None:
    """Refuse a bidirectional student."""
    if recipe.student.layout is None:
        raise UserError(
            f"method {recipe.method} trains a causal student; set student.block_frames, say to 3"
        )


def bidirectional_only(recipe: Recipe) -> None:
    """Refuse a causal student."""
    if recipe.student.layout is not None:
        raise UserError(
            f"method {recipe.method} trains a bidirectional student; leave out student.block_frames"
        )


def per_frame(values: Tensor, blocks: Sequence[range]) -> Tensor:
    """One value a clip and block (B · blocks,) as one a frame (B T)."""
    lengths = torch.tensor([len(block) for block in blocks], device=values.device)
    return values.view(-1, len(blocks)).repeat_interleave(
        lengths, 1, output_size=sum(map(len, blocks))
    )
