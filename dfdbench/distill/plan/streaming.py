"""What a causal student's stream of blocks takes on one GPU: cache, FLOPs, latency, frame rate.

Used by the training plan. Cache and FLOPs are counted; seconds are estimates, as they take a share
of the GPU's peak for granted.
"""

from typing import Any

from dfdbench.distill.plan.memory import Setup
from dfdbench.distill.plan.pieces import Piece
from dfdbench.distill.plan.recording import Passes


def streaming(setup: Setup, frames: int, flops_a_second: float) -> dict[str, Any] | None:
    """The stream of one clip as long as the recipe's; None for a bidirectional student.

    With a window the last block stands for all later ones: what it sees, and so its cost and the
    cache, grow no further once the window is full.

    Args:
        frames: of the clip, counted in pixels' frames.

    Returns:
        block_frames: frames of video a later block gives. first_block_flops, block_flops: student
        steps of the first block, and of the last with the pass that remembered the one before it.
        cache_bytes: of the cache that the last block looks into. seconds_to_first_block,
        frames_a_second: estimates, without the autoencoder.
    """
    layout, latents = setup.recipe.student.layout, setup.shape.latents[1]
    if layout is None:
        return None
    blocks = layout.blocks(latents)
    first, last = blocks[0], blocks[-1]
    steps = setup.recipe.student.steps
    begun = steps * _forward(setup, Piece(layout, "block", first.start, len(first)))
    later = steps * _forward(setup, Piece(layout, "block", last.start, len(last)))
    if len(blocks) > 1:
        later += _forward(setup, Piece(layout, "memory", blocks[-2].start, len(blocks[-2])))
    one = setup.remembered(Piece(layout, "memory", 0, 1)) // setup.micro  # a latent frame's
    seen = {*layout.seen(last.start, last.start + 1)}
    held = sum(len(b) for b in blocks[:-1] if seen & {*b})  # a block is let go as a whole
    shown = len(last) * (frames - 1) / max(1, latents - 1)
    return {
        "block_frames": shown,
        "first_block_flops": begun,
        "block_flops": later,
        "cache_bytes": one * held,
        "grows_with_length": not layout.window_frames,
        "seconds_to_first_block": begun / flops_a_second,
        "frames_a_second": shown * flops_a_second / later,
    }


def _forward(setup: Setup, piece: Piece) -> int:
    return setup.cost(Passes("student", "none", 1, 1, piece)).forward


def in_words(stream: dict[str, Any], guessed: str) -> str:
    """A line of the plan. guessed: what is to be noted of the seconds."""
    grows = (
        ", and grows with the clip" if stream["grows_with_length"] else ", however long the clip"
    )
    return (
        f"streaming a clip on one GPU: first block after {stream['seconds_to_first_block']:.2g} s, "
        f"then {stream['frames_a_second']:.3g} frames/s{guessed}, without the autoencoder; cache "
        f"{stream['cache_bytes'] / 2**30:.2f} GiB{grows}"
    )
