"""Where the blocks of a causal student's clips begin, for the column `blocks` of samples.jsonl.

Used by clips.py, for clips as trained and for streams; the metric family `seams` reads it.
"""

from dfdbench.distill.stages import recipe_of
from dfdbench.models.family import ModelFamily
from dfdbench.utils.run import Run


def blocks_column(run: Run, family: ModelFamily, frames: int) -> dict[str, str]:
    """`blocks` of a clip of so many frames: "9+12" where the first block is of 9 frames and those
    after it of 12; nothing for a clip of one block, or of what is no causal student."""
    layout = recipe_of(run).student.layout if run.info.get("recipe") else None
    if layout is None:
        return {}
    each = family.frames_per_latent
    blocks = layout.blocks(1 + (frames - 1) // each)
    if len(blocks) < 2:
        return {}
    return {"blocks": f"{1 + (len(blocks[0]) - 1) * each}+{layout.block_frames * each}"}
