"""Order, label, colour and marker of every arm, the same in each table and figure of a report.

Colours are Okabe and Ito's palette, which people with any common colour blindness tell apart; the
markers repeat the distinction in shape. Used by collect.py, tables.py and figures.py.
"""

from collections.abc import Iterable
from typing import NamedTuple

REFERENCES = ("real", "teacher")
"""Arms that students are measured against; they are never marked best."""


class Look(NamedTuple):
    """How an arm is drawn: label, colour (hex), matplotlib marker."""

    label: str
    colour: str
    marker: str


KNOWN = {
    "real": Look("real clips", "#444444", "*"),
    "teacher": Look("teacher", "#0072B2", "p"),
    "dmd2": Look("DMD2", "#D55E00", "o"),
    "dmd2_control": Look("DMD2 control", "#E69F00", "s"),
    "dp_dmd": Look("DP-DMD", "#CC79A7", "^"),
    "dfd": Look("DFD", "#009E73", "D"),
}
SPARE = ("#56B4E9", "#8C6BB1", "#7F6000", "#B2182B", "#1B7837", "#999999")
SPARE_MARKERS = ("v", "X", "<", ">", "h", "d")


def ordered(arms: Iterable[str]) -> list[str]:
    """The distinct `arms`: known ones in their fixed order, then the others by name."""
    known = list(KNOWN)
    return sorted(
        set(arms), key=lambda arm: (known.index(arm) if arm in known else len(known), arm)
    )


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """A look for every arm; unknown arms take spare colours in order of their names."""
    result, spare = {}, 0
    for arm in ordered(arms):
        if arm in KNOWN:
            result[arm] = KNOWN[arm]
        else:
            i = spare % len(SPARE)
            result[arm] = Look(arm.replace("_", " "), SPARE[i], SPARE_MARKERS[i])
            spare += 1
    return result
