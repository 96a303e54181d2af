"""Recommended settings of a checkpoint: its family's, but for what `dfdbench.json` in it says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from dfdbench.utils.reading import read_json, validate

DEFAULTS_FILE = "dfdbench.json"
Guidance = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]  # standard g; 1 = none
Shift = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


@dataclass(frozen=True)
class Defaults:
    """Recommended settings of a checkpoint; `dfdbench.json` in its folder overrides its family's.

    Attributes:
        negative_prompt: text of the CFG branch without the prompt.
        cfg: standard guidance scale g; 1 is none.
        steps, shift: the teacher's sampling grid.
        frames, height, width, fps: native clip.
        max_sequence_length: tokens the prompt is padded to.
    """

    negative_prompt: str
    cfg: Guidance
    steps: PositiveInt
    shift: Shift
    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    fps: PositiveInt
    max_sequence_length: PositiveInt = 512


def read_defaults(folder: Path, family: Defaults) -> Defaults:
    """The family's defaults with what the folder's `dfdbench.json` overrides; other keys are left.

    Raises:
        UserError: the file is not JSON, or a setting is of the wrong kind.
    """
    path = folder / DEFAULTS_FILE
    if not path.is_file():
        return family
    remedy = "correct or delete it"
    own = read_json(path, dict[str, Any], remedy)
    return validate(Defaults, vars(family) | own, path, remedy)
