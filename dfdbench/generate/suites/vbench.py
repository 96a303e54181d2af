"""VBench's suites: its own prompts for text and for images, and toy prompts in their place.

Used by suites/__init__.py. `vbench` reads the installed package's info file. `vbench-i2v` reads a
folder that the user gives: VBench's image suite, which no package holds. `vbench-extended` and
`vbench-i2v-extended` have the same prompts, ids and scores, and generate from extended texts. A run
of the shipped toy gets toy captions and toy first frames instead, and clips of any origin keep
their own.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfdbench.generate.suites.base import STAND_INS, VBENCH, VBENCH_QUALITY, Prompt, Suite
from dfdbench.generate.suites.toy import toy_t2v
from dfdbench.generate.suites.vbench_info import (
    AUGMENTED,
    EXTENDED,
    I2V_NAME,
    find_info,
    read_info,
)
from dfdbench.utils.assets import assets_folder
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import sha256_file

SEEDS = tuple(range(5))  # as VBench numbers the clips of a prompt
TOY, CUSTOM, OWN = "toy-i2v", "custom", "vbench-i2v"  # whose first frames
OWN_EXTENDED = f"{OWN}-extended"
T2V = (
    *VBENCH_QUALITY,
    "vbench_static_filter",
    "vbench_human_action",
    "vbench_appearance_style",
    "vbench_viclip",
)
I2V = (*VBENCH_QUALITY, "vbench_i2v_subject", "vbench_i2v_background", "vbench_camera_motion")
PLACES = ("", "vbench2_beta_i2v")  # of the info file in the folder: as given, or VBench's clone
SOURCE = "https://github.com/Vchitect/VBench/tree/master/vbench2_beta_i2v"


def vbench(extended: bool = False) -> Suite:
    """VBench's text-to-video prompts; UserError where its info file is absent."""
    path = find_info(extended)
    return Suite(
        "vbench-extended" if extended else "vbench",
        version=1,
        description="VBench's prompts, each for its own dimensions"
        + ("; clips are made from extended texts" if extended else ""),
        prompts=read_info(path, extended),
        seeds=SEEDS,
        metrics=(*T2V, "vbench_bridge", *STAND_INS),
        protocol="t2v",
        static_filter=True,
        info_sha256=sha256_file(path),
    )


def images_folder() -> Path:
    """Where VBench's image suite is looked for when no option names it."""
    return assets_folder() / "vbench-i2v"


def find_i2v_info(folder: Path, extended: bool = False) -> Path | None:
    """vbench2_i2v_full_info.json in a folder or in a clone of VBench; None if it is not there.

    extended: vbench2_i2v_aug_full_info.json instead.
    """
    name = EXTENDED[I2V_NAME] if extended else I2V_NAME
    return next((p for place in PLACES if (p := folder / place / name).is_file()), None)


def vbench_i2v(folder: Path | None = None, extended: bool = False) -> Suite:
    """VBench's image-to-video prompts, with the images of `folder` (default `images_folder()`).

    extended: clips are generated from the extended texts.

    Raises:
        UserError: no such folder, or no info file in it.
    """
    given = folder is not None
    folder = folder or images_folder()
    if given and not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder; check the path")
    path = find_i2v_info(folder, extended)
    if path is None:
        raise _no_info(folder, given, extended)
    suite = _i2v(
        OWN,
        read_info(path, extended),
        "VBench's image-to-video prompts and images",
        sha256_file(path),
        folder,
    )
    if not extended:
        return suite
    description = f"{suite.description}; clips are made from extended texts"
    return replace(suite, name=OWN_EXTENDED, description=description)


def _no_info(folder: Path, given: bool, extended: bool) -> UserError:
    """What is lacking in `folder`, which was `given` or is where it is looked for."""
    name = EXTENDED[I2V_NAME] if extended else I2V_NAME
    where = f"--images {folder}: no {name} in it" if given else f"no {name}"
    source = SOURCE
    if extended:
        source = f"{AUGMENTED} (or add an aug_prompt_en to each entry of {I2V_NAME}), {SOURCE}"
    return UserError(
        f"{where} (VBench-I2V's prompts); get it and its images from {source} and "
        + ("put it there, or score images of your own with --suite vbench-custom" if given else
           f"put them into {folder}, or name their folder with --images")
    )  # fmt: skip


def toy_i2v() -> Suite:
    """The toy's captions in the place of VBench's: what `vbench-i2v` means for a toy run."""

    suite = _i2v(TOY, toy_t2v().prompts, "toy captions with toy first frames")
    return replace(
        suite,
        notes=("Prompts and first frames are the toy's, not VBench's; compare with toys only.",),
    )


def with_images(name: str, images: Path | None, models: Sequence[str]) -> Suite:
    """A suite of WITH_IMAGES as the first frames and the runs' models want it.

    Args: as of dfdbench.generate.suites.choose_suite.

    Raises:
        UserError: a folder or info file that is not there, images for a toy, or toys beside others.
    """
    from dfdbench.models.registry import takes_first_frame

    if name == "vbench-custom":
        if images and not images.is_dir():
            raise UserError(f"--images {images}: no such folder; check the path")
        suite = vbench_custom()
        return replace(suite, conditions=CUSTOM, images=images) if images else suite
    unseen = tuple(
        f"{model} takes no image: i2v_* compare its clips with a first frame that it never saw."
        for model in dict.fromkeys(models)
        if not takes_first_frame(model)
    )
    if toys := [model for model in models if _is_toy(model)]:
        if len(toys) < len(models):
            raise UserError("toys and other models have other first frames; score them apart")
        if name == OWN_EXTENDED:
            raise UserError(f"--suite {name}: a toy has no extended texts; take --suite {OWN}")
        if images:
            raise UserError(f"--images {images}: a toy's first frames are its own; leave it out")
        suite = toy_i2v()
    elif name == OWN_EXTENDED or models or images or find_i2v_info(images_folder()):
        suite = vbench_i2v(images, name == OWN_EXTENDED)
    else:
        suite = custom()
    return replace(suite, notes=(*suite.notes, *unseen))


def custom() -> Suite:
    """VBench-I2V's dimensions for clips of any origin."""
    return replace(
        _i2v(CUSTOM, (), "any clips by VBench-I2V's dimensions"),
        notes=(
            f"No {I2V_NAME}: prompts and first frames are the clips' own; get VBench's from "
            f"{SOURCE} and name their folder with --images.",
        ),
    )


def _is_toy(model: str) -> bool:
    from dfdbench.models.registry import PACKAGED

    return model in PACKAGED


def _i2v(
    conditions: str,
    prompts: tuple[Prompt, ...],
    description: str,
    info_sha256: str = "",
    images: Path | None = None,
) -> Suite:
    return Suite(
        "vbench-i2v",
        version=1,
        description=description,
        prompts=prompts,
        seeds=SEEDS if prompts else (),
        metrics=(*I2V, *STAND_INS),
        protocol="i2v",
        conditions=conditions,
        info_sha256=info_sha256,
        images=images,
    )


def vbench_custom() -> Suite:
    """VBench's dimensions for clips of any origin and prompt."""
    return Suite(
        "vbench-custom",
        version=1,
        description="any clips by VBench's dimensions, with those of a prompt or image where given",
        prompts=(),
        seeds=(),
        metrics=(*VBENCH, *STAND_INS),
        protocol="t2v",
    )
