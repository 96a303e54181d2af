"""Clips of which the official VBench sees other frames than a player shows: it reads with decord.

decord enters streams in the middle, drops edit lists, mirrors, marks of damage and ten bits, and
takes the larger of two streams with the rate of the other; so dfdbench decodes with PyAV
(utils/decode.py). Values that the official package computed elsewhere are of decord's frames. Where
those are not ours, `dfdbench eval --official-results` says so.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.evaluate.store import Store
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import UserError, pass_out_of_memory
from dfdbench.utils.video import read_video

NEAR = 1  # grey levels by which converters to RGB may differ


@cache
def _decord() -> Any:
    """The decord module, quiet; None where no wheel exists (ARM, macOS)."""
    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def seen_otherwise(stores: Iterable[Path], suite: Suite) -> list[str]:
    """A line for each clip of the suite in `stores` whose official values are of other frames."""
    lines = []
    for path in stores:
        with Store(path) as store:
            clips = store.samples(suite.name)["path"]
        for clip in clips:
            try:
                difference = difference_to_decord(path.parent / clip)
            except UserError:
                continue  # said when it was scored
            if difference:
                lines.append(
                    f"{clip}: decord, which the official vbench reads with, {difference}; its "
                    "official values are of those"
                )
    return lines


def difference_to_decord(path: Path) -> str | None:
    """What decord sees otherwise in the clip; None where nothing, or where decord is not here.

    Raises:
        UserError: the clip is not readable.
    """
    ours = read_video(path, allow_damaged=True).frames
    decord = _decord()
    if decord is None:
        return None
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        theirs = reader.get_batch(range(len(reader))).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        pass_out_of_memory(error)
        return "cannot read it"
    if len(theirs) != len(ours):
        return f"sees {len(theirs)} frames, not {len(ours)}"
    if theirs.shape != ours.shape:
        (height, width), (high, wide) = theirs.shape[1:3], ours.shape[1:3]
        return f"sees {width}x{height} pixels, not {wide}x{high}"
    off = (np.maximum(ours, theirs) - np.minimum(ours, theirs)).max(axis=(1, 2, 3)) > NEAR
    return f"sees {off.sum()} of {len(ours)} frames otherwise" if off.any() else None
