"""Order, label, colour and marker of every arm, the same in each table and figure of a report.

Colours are Okabe and Ito's palette, which people with any common colour blindness tell apart; the
markers repeat the distinction in shape. Used by collect.py, tables.py and figures.py.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

APART = " · "
"""Between an arm's name and what tells it from others of the name (identity.py)."""
REFERENCES = ("real", "teacher")
"""Arms that students are measured against; they are never marked best."""
TEACHERS = "teacher_"
"""The beginning of the names of a teacher sampled in other ways, which is no student either."""


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
    "regression": Look("regression", "#56B4E9", "P"),
    "dp_dmd": Look("DP-DMD", "#CC79A7", "^"),
    "dfd": Look("DFD", "#009E73", "D"),
    # Autoregressive students, in the order of their stages; colours are of Tol's muted set.
    "teacher_forcing": Look("teacher forcing", "#332288", "v"),
    "ode_init": Look("ODE initialisation", "#88CCEE", "X"),
    "self_forcing_dmd": Look("Self Forcing, DMD", "#CC6677", "o"),
    "self_forcing_control": Look("Self Forcing control", "#DDCC77", "s"),
    "self_forcing_dp_dmd": Look("Self Forcing, DP-DMD", "#AA4499", "^"),
    "self_forcing_dfd": Look("Self Forcing, DFD", "#117733", "D"),
}
SPARE = ("#6B4E16", "#8C6BB1", "#B2182B", "#999933", "#999999", "#882255")
SPARE_MARKERS = ("v", "X", "<", ">", "h", "d")


def _parted(arm: str) -> tuple[str, str]:
    """Name as the longest known arm that it begins with and what follows; ("", name) if none.

    So "dfd_20" is an arm of "dfd" and "dmd2_control_long" one of "dmd2_control"; real clips have no
    variants, so "real_estate" is a name of its own.
    """
    known = [k for k in KNOWN if arm == k or (k != "real" and arm.startswith(f"{k}_"))]
    base = max(known, key=len, default="")
    return base, arm[len(base) :].lstrip("_")


def ordered(arms: Iterable[str]) -> list[str]:
    """The distinct `arms`: known ones in their fixed order, each before those that its name begins
    (numbers by size: dfd, dfd_5, dfd_20), then the others by name."""
    known = list(KNOWN)

    def place(arm: str) -> tuple[int, list[tuple[int, str]], str]:
        base, rest = _parted(arm.partition(APART)[0])
        parts = [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", rest) if p]
        return known.index(base) if base else len(known), parts, arm

    return sorted(set(arms), key=place)


def label_of(arm: str) -> str:
    """An arm's name as people read it, such as "DFD, 20" for dfd_20, "teacher, CFG 3"."""
    name, apart, rest = arm.partition(APART)
    base, more = _parted(name)
    more = re.sub(r"(?<![^_])cfg(?=\d)", "CFG ", more)
    more = re.sub(r"(?<![^_])gan(?![^_])", "GAN", more)
    label = ", ".join(filter(None, (KNOWN[base].label if base else "", more.replace("_", " "))))
    return f"{label}{apart}{rest}"


def looks(arms: Iterable[str], references: Collection[str] = ()) -> dict[str, Look]:
    """A look for every arm; unknown arms take spare colours in order of their names.

    references: arms that the sources name as what the others are compared with; labels say so.
    """
    result, spare = {}, 0
    for arm in ordered(arms):
        if arm in KNOWN:
            result[arm] = KNOWN[arm]
        else:
            i = spare % len(SPARE)
            result[arm] = Look(label_of(arm), SPARE[i], SPARE_MARKERS[i])
            spare += 1
        if arm in references:
            result[arm] = result[arm]._replace(label=f"{result[arm].label} (reference)")
    return result


def samples_teacher(arm: str) -> bool:
    """Whether the name is of a teacher sampled in another way; teacher_forcing is a student's."""
    return arm.startswith(TEACHERS) and arm not in KNOWN


def is_reference(arm: str, references: Collection[str] = ()) -> bool:
    """Whether students are measured against it: real clips, the teacher, or what sources name."""
    base = arm.partition(APART)[0]
    return arm in references or base in REFERENCES or samples_teacher(base)


def reference_arm(arms: Sequence[str], references: Collection[str] = ()) -> str | None:
    """What nearness is to: what the sources name, else `real`, else `teacher`, else None."""
    named = [arm for arm in ordered(arms) if arm in references]
    return next((arm for arm in (*named, *REFERENCES) if arm in arms), None)
