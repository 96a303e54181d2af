"""The suite that a score store was made with, from what scoring wrote into its meta.

Used by the report, by `dfdbench vbench export` and by merge. The name alone does not say it:
`vbench-i2v` has toy prompts for a toy run and none for clips of any origin.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dfdbench.generate.suites import choose_suite, get_suite, is_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.vbench import (
    CUSTOM,
    OWN,
    OWN_EXTENDED,
    TOY,
    custom,
    toy_i2v,
    vbench_i2v,
)
from dfdbench.utils.errors import UserError


def stored_suite(
    meta: Mapping[str, str], name: str, images: Path | None = None, prompts: Path | None = None
) -> Suite | None:
    """The suite called `name` in a store; None for one of a user's own prompts without their file.

    Args:
        meta: of the store (Store.meta).
        prompts: the file of a user's own prompts.
        images: folder of VBench's image suite, if it is not where it is looked for.

    Raises:
        UserError: VBench's info file is not here, or is not the one that the store was made with.
    """
    if prompts:
        return choose_suite(name, prompts)
    if not is_suite(name):
        return None
    conditions = meta.get(f"conditions {name}", "")
    if name == OWN and conditions == TOY:
        return toy_i2v()
    if name == OWN and conditions == CUSTOM:
        return custom()
    of_images = name in (OWN, OWN_EXTENDED)
    suite = vbench_i2v(images, name == OWN_EXTENDED) if of_images else get_suite(name)
    info = meta.get(f"info {name}", "")
    if info and info != suite.info_sha256:
        raise UserError(
            f"suite {name}: scored with another info file of VBench than the one here (sha256 "
            f"{info[:12]}…, not {suite.info_sha256[:12]}…); put that one back"
        )
    return replace(suite, conditions=conditions)
