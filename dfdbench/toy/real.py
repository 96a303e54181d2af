"""Real toy clips and their first frames, from (prompt id, seed) alone.

Used by generate.py: the `real` arm's clips, and the first frames that stand for VBench-I2V's
images where a toy run is scored by `vbench-i2v`.
"""

import hashlib
from pathlib import Path

import numpy as np
from torch import Tensor

from dfdbench.errors import UserError
from dfdbench.files import atomic_path
from dfdbench.suites import Prompt
from dfdbench.toy import world
from dfdbench.video import read_image


def attribute_seed(prompt_id: str, seed: int) -> int:
    """The seed of a real clip's free attributes, from (prompt id, seed) alone."""
    digest = hashlib.sha256(f"real\n{prompt_id}\n{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def real_clip(prompt: Prompt, seed: int) -> Tensor:
    """The rendered clip (1 3 T H W) in [0, 1]; UserError for a prompt without shape and scene."""
    fixed = prompt.attributes
    if not {"shape", "scene"} <= set(fixed):
        raise UserError(
            f"prompt {prompt.id}: the real arm renders toy clips and needs a prompt with "
            "shape and scene; use --suite toy-t2v"
        )
    drawn = attribute_seed(prompt.id, seed)
    return world.render(world.sample_attributes(1, drawn, fixed["shape"], fixed["scene"]))


def write_first_frame(path: Path, prompt: Prompt, seed: int) -> None:
    """Write the first frame of `real_clip` to `path` (.png), unless these pixels are there."""
    from PIL import Image

    frame = (real_clip(prompt, seed)[0, :, 0].permute(1, 2, 0) * 255).round().byte().numpy()
    try:
        known = read_image(path)
    except UserError:
        known = None
    if known is None or not np.array_equal(known, frame):
        with atomic_path(path) as temporary:
            Image.fromarray(frame).save(temporary)
