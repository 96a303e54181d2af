"""Real toy clips, and the first frames of toy image-to-video, from prompt and seed alone.

Used by arms.py and clips.py: the `real` arm's clips, and the first frames that condition the suites
toy-i2v (one a prompt, so that its clips show what it leaves open) and, where a toy run is scored,
vbench-i2v (one a clip).
"""

import hashlib
from pathlib import Path

import numpy as np
from torch import Tensor

from dfdbench.generate.suites.base import Prompt
from dfdbench.toy import world
from dfdbench.toy.continuation import continuations
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import atomic_path
from dfdbench.utils.video import read_image


def attribute_seed(prompt_id: str, seed: int) -> int:
    """The seed of a real clip's free attributes, from (prompt id, seed) alone."""
    digest = hashlib.sha256(f"real\n{prompt_id}\n{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _attributes(prompt: Prompt, seed: int) -> world.Attributes:
    fixed = prompt.attributes
    if not {"shape", "scene"} <= set(fixed):
        raise UserError(
            f"prompt {prompt.id}: the real arm renders toy clips and needs a prompt with "
            "shape and scene; use --suite toy-t2v"
        )
    named = (fixed.get("hue"), fixed.get("direction"))
    return world.sample_attributes(
        1, attribute_seed(prompt.id, seed), fixed["shape"], fixed["scene"], *named
    )


def real_clip(prompt: Prompt, seed: int) -> Tensor:
    """The rendered clip (1 3 T H W) in [0, 1]; UserError for a prompt without shape and scene."""
    return world.render(_attributes(prompt, seed))


def opening(prompt: Prompt, seed: int = 0) -> Tensor:
    """A rendered clip (1 3 T H W) in [0, 1] whose first frame is to be continued.

    seed: 0 for the one that all clips of a prompt share.
    """
    return world.render(_attributes(prompt, seed), reveal=True)


def real_continuation(prompt: Prompt, seed: int) -> Tensor:
    """A clip (1 3 T H W) in [0, 1], drawn from those that continue the prompt's first frame."""
    drawn = continuations(_attributes(prompt, 0), 1, attribute_seed(prompt.id, seed))
    return world.render(drawn, reveal=True)


def write_first_frame(path: Path, clip: Tensor) -> None:
    """Write the first frame of a clip (1 3 T H W) to `path` (.png), unless it is there."""
    from PIL import Image

    frame = (clip[0, :, 0].permute(1, 2, 0) * 255).round().byte().numpy()
    try:
        there = read_image(path)
    except UserError:
        there = None
    if there is None or not np.array_equal(there, frame):
        with atomic_path(path) as temporary:
            Image.fromarray(frame).save(temporary)
