"""First frames: which crop of VBench's image suite, or which image of a folder, a clip continues.

Used by generate/clips.py and evaluate/match.py. VBench-I2V keeps each image in four ratios,
crop/16-9/<image name> and so on, and compares a clip with the crop of its own ratio.
"""

import math
from pathlib import Path

from dfdbench.generate.suites.base import Prompt, text_key
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import Sample

RATIOS = {"1-1": 1.0, "8-5": 8 / 5, "7-4": 7 / 4, "16-9": 16 / 9}  # width : height
CROPS = ("crop", "data/crop", "vbench2_beta_i2v/data/crop")  # in the folder that the user names
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def nearest_ratio(width: int, height: int) -> str:
    """The name of the ratio next to width / height on a logarithmic scale."""
    return min(RATIOS, key=lambda name: abs(math.log(width / height / RATIOS[name])))


def crop(folder: Path, prompt: Prompt, ratio: str) -> Path | None:
    """The image of a VBench-I2V prompt in one ratio; None for a prompt that names none.

    Args:
        folder: that of the image suite. ratio: a name of RATIOS.

    Raises:
        UserError: the folder has no crops of this ratio, or the image is not among them.
    """
    name = prompt.attributes.get("image_name")
    if not name:
        return None
    crops = next((p for place in CROPS if (p := folder / place / ratio).is_dir()), None)
    if crops is None:
        raise UserError(
            f"{folder}: no crops of ratio {ratio} in it; unpack VBench-I2V's crop.zip there, so "
            f"that {folder / CROPS[0] / ratio} holds its images"
        )
    if not (crops / name).is_file():
        raise UserError(f"{crops / name}: no such image, but the info file names it; add it")
    return crops / name


def images_in(folder: Path) -> dict[str, Path]:
    """The images of a folder by their name without suffix.

    Raises:
        UserError: there are none, or two of one name.
    """
    images: dict[str, Path] = {}
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    for path in sorted(p for p in visible if p.suffix.lower() in SUFFIXES and p.is_file()):
        stem = text_key(path.stem)
        if stem in images:
            raise UserError(f"--images {folder}: {images[stem].name} and {path.name}; remove one")
        images[stem] = path
    if not images:
        raise UserError(f"--images {folder}: no picture in it ({', '.join(SUFFIXES)})")
    return images


def first_frame_of(images: dict[str, Path], sample: Sample) -> Path | None:
    """The image called after a clip's file, its prompt id or its prompt, in this order."""
    names = (sample.path.stem, sample.prompt_id, sample.prompt or "")
    return next((images[key] for name in names if (key := text_key(name)) in images), None)
