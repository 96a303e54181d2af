"""The official package's result files, NAME_eval_results.json, and whose clips they are of.

A file is {dimension: [score, [{"video_path", "video_results", …}, …]]}; dimensions of which no
official values are kept are passed over.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import Field

from dfdbench.evaluate.metrics.vbench.official import BRIDGED, NATIVE
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Open, read_json, validate

PERCENT = "imaging_quality"  # whose clips the package gives 0 to 100
REMEDY = "give a NAME_eval_results.json that the official package wrote"
Values = dict[str, float | None]
"""The clip's path as the package had it → its value, mostly 0 to 1; None where it is NaN."""


class _Video(Open):
    video_path: str
    video_results: Annotated[float, Field(allow_inf_nan=True)]


def read_results(files: Iterable[Path]) -> dict[str, Values]:
    """The values of each dimension; a UserError for a file that is none of the package's."""
    results: dict[str, Values] = {}
    for file in files:
        content = read_json(file, dict[str, Any], REMEDY)
        for dimension in (name for name in (*BRIDGED, *NATIVE) if name in content):
            where, values = f"{file}: {dimension}", results.setdefault(dimension, {})
            for video in validate(tuple[Any, list[_Video]], content[dimension], where, REMEDY)[1]:
                value = video.video_results / (100 if dimension == PERCENT else 1)
                stored = value if math.isfinite(value) else None
                if values.setdefault(video.video_path, stored) != stored:
                    raise UserError(
                        f"{where}: another value of {video.video_path} than in the file before; "
                        "give each of them in a call of its own"
                    )
    return results


def values_by_clip(values: Values, clips: Iterable[str]) -> Values:
    """The values of `clips`, the paths of a store, which may lie elsewhere than they did.

    A path is told by all of it, else by its folder and name, else by its name: by the first of
    these that one clip and one result alone have. A number such as 0.mp4 is not name enough.
    """
    by_clip: Values = {}
    ours = list(clips)
    for parts in (1000, 2, 1):
        of_end, in_store = _by_end(values, parts), _by_end(ours, parts)
        for end in of_end.keys() & in_store.keys():
            by_clip.setdefault(in_store[end], values[of_end[end]])
    return by_clip


def _by_end(paths: Iterable[str], parts: int) -> Mapping[tuple[str, ...], str]:
    """The last `parts` of a path → the path, where no other has the same."""
    ends = {path: PurePath(path).parts[-parts:] for path in paths}
    count = Counter(ends.values())
    return {
        end: path
        for path, end in ends.items()
        if count[end] == 1 and (parts > 1 or not PurePath(path).stem.isdigit())
    }
