"""What the papers claim, held against the differences of a report, one verdict a claim.

Behind `quickstart` and `study`, which end with these lines, and results/. A claim is about two arms
and one metric; it holds where the 95 % interval over training seeds lies on its side of 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dfdbench.cli.doctor import table
from dfdbench.report.statistics import FEWEST_SEEDS
from dfdbench.utils.reading import Open, read_json

MARGIN = 0.05
"""Claims that two arms are alike hold where the interval lies within this of 0."""


class Claim(NamedTuple):
    """`arm` has more (sign 1) or less (sign -1) of a metric than `rival`, or as much (sign 0)."""

    text: str
    arm: str
    rival: str
    metric: str
    sign: int


CLAIMS = (
    Claim("DMD2 loses diversity", "dmd2", "teacher", "open_gini", -1),
    Claim("DMD2 over-saturates", "dmd2", "teacher", "sprite_saturation", 1),
    Claim("DFD brings diversity back", "dfd", "dmd2_control", "open_gini", 1),
    Claim("DFD brings usable modes back", "dfd", "dmd2_control", "modes", 1),
    Claim("DFD brings saturation back", "dfd", "dmd2_control", "sprite_saturation", -1),
    Claim("the teacher at x matters", "dfd", "regression", "open_gini", 1),
    Claim("DP-DMD keeps more diversity than DMD2", "dp_dmd", "dmd2_control", "open_gini", 1),
    Claim("a few updates of DFD suffice", "dfd_320", "dfd_80", "open_gini", 0),
    Claim("DFD from scratch fails", "dfd_scratch", "dfd", "modes", -1),
    Claim("a GAN does not help DFD", "dfd_gan", "dfd", "open_gini", 0),
    Claim("w = ½ is like w = 1", "dfd_p1", "dfd", "open_gini", 0),
    Claim("two student steps are too few", "dfd_two_steps", "dfd", "modes", -1),
)
"""In the order of the papers; the text says what 2606.18478 and 2602.03139 say."""


class Row(Open):
    """A difference in deltas.json; no interval below three training seeds."""

    mean: float | None
    low: float | None
    high: float | None
    seeds: int = 0


class Verdict(NamedTuple):
    """A claim beside its measured difference."""

    claim: Claim
    mean: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def word(self) -> str:
        """holds, not shown, too few, one seed, or the opposite."""
        if self.low is None or self.high is None:
            return "one seed" if self.seeds <= 1 else "too few" if self.seeds < FEWEST_SEEDS else ""
        if self.claim.sign == 0:
            alike = self.low > -MARGIN and self.high < MARGIN
            apart = self.low > 0 or self.high < 0
            return "holds" if alike else "the opposite" if apart else "not shown"
        low, high = sorted((self.claim.sign * self.low, self.claim.sign * self.high))
        return "holds" if low > 0 else "the opposite" if high < 0 else "not shown"

    def effect(self) -> str:
        """Such as +0.120 [+0.050, +0.190]."""
        between = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.mean:+.3f}{between}"


def verdicts(deltas: Path, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """The claims about arms and metrics that a report's deltas.json has."""
    made = read_json(deltas, dict[str, dict[str, Row]], "write the report again")
    found = []
    for claim in claims:
        row = made.get(f"{claim.arm} - {claim.rival}", {}).get(claim.metric)
        if row is not None and row.mean is not None:
            found.append(Verdict(claim, row.mean, row.low, row.high, row.seeds))
    return found


def verdict_lines(found: Sequence[Verdict]) -> list[str]:
    """A block for the terminal: claim, what was measured, training seeds, verdict."""
    if not found:
        return []
    rows = []
    for v in found:
        measured = f"{v.claim.metric}: {v.claim.arm} - {v.claim.rival}"
        rows.append((v.claim.text, measured, v.effect(), str(v.seeds), v.word))
    lines = table(("claim", "measured", "effect", "seeds", "verdict"), rows)
    if any(v.word in ("one seed", "too few") for v in found):
        lines.append(
            f"A claim about a method needs {FEWEST_SEEDS} training seeds: one training says what "
            "this one student does. More: dfdbench study toy/main --training-seeds 0-6"
        )
    return lines
