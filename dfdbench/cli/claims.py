"""What README says of the toy, held against the data of a study or a check.

Behind `quickstart`, `study` and `check`: a claim that their data do not show is said, so that
nobody takes a small experiment for the evidence of README, with 7 training seeds and 280 updates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dfdbench.utils.reading import Open, read_json


class Claim(NamedTuple):
    """`arm` has more (sign 1) or less (sign -1) of a metric than `rival`."""

    arm: str
    rival: str
    metric: str
    sign: int

    @property
    def pair(self) -> str:
        """As reports and checks name the difference."""
        return f"{self.arm} - {self.rival}"


CLAIMS = {
    "toy-t2v": (
        Claim("dmd2", "teacher", "hue_entropy", -1),
        Claim("dmd2", "teacher", "saturation_mean", 1),
        Claim("dfd", "dmd2_control", "saturation_mean", -1),
        Claim("dfd_mixture", "dmd2_control", "saturation_mean", -1),
        Claim("dfd_mixture", "dmd2_control", "hue_entropy", 1),
    ),
    "toy-i2v": (Claim("dmd2", "teacher", "contrast_rms", 1),),
}
"""By model: what README says of its students."""


class Row(Open):
    """A difference in deltas.json; no interval where one prompt gives none."""

    mean: float | None
    low: float | None
    high: float | None


def unshown(model: str, deltas: Path) -> list[str]:
    """A line for each claim about `model` whose interval in the report's deltas.json does not show
    it; claims about arms that the report lacks are left out."""
    made = read_json(deltas, dict[str, dict[str, Row]], "write the report again")
    lines = []
    for claim in CLAIMS.get(model, ()):
        row = made.get(claim.pair, {}).get(claim.metric)
        if row is None or row.mean is None:
            continue
        nearest = row.low if claim.sign > 0 else row.high
        if nearest is None or nearest * claim.sign <= 0:
            known = row.low is not None and row.high is not None
            between = f" [{row.low:+.3f}, {row.high:+.3f}]" if known else ""
            lines.append(_line(claim, f"{row.mean:+.3f}{between}", "take more --training-seeds"))
    return lines


def unshown_signs(model: str, values: Mapping[str, float]) -> list[str]:
    """The same of a check's values, "arm - rival metric" → a difference without an interval."""
    lines = []
    for claim in CLAIMS.get(model, ()):
        value = values.get(f"{claim.pair} {claim.metric}")
        if value is not None and value * claim.sign <= 0:
            lines.append(_line(claim, f"{value:+.3f}", "a check is too small for it: see study"))
    return lines


def _line(claim: Claim, value: str, remedy: str) -> str:
    way = "higher" if claim.sign > 0 else "lower"
    return (
        f"not shown here: README has {claim.metric} of {claim.arm} {way} than of {claim.rival}; "
        f"these data give {value}; {remedy}"
    )
