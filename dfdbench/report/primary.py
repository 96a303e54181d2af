"""Which metrics are tested: three named primaries, and the order of the headline rows.

A comparison tests one metric of each primary and corrects for those (Holm); every other metric is
shown without p. Used by summary.py, tables.py and figures.py; evaluate/primaries.py says which
metric stands for which primary.
"""

from collections.abc import Collection

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.evaluate.primaries import PRIMARIES, primaries

__all__ = ["PRIMARIES", "headline", "in_order", "primaries"]

MODES = ("modes", "modes_given_image")
RECALL = "_recall"
"""In the names of metrics that say how much of the reference a method covers."""


def headline(present: Collection[str]) -> list[str]:
    """The metrics that come first in tables: modes, yield, diversity, recall, saturation."""
    of_primary = {primary: metric for metric, primary in primaries(present).items()}
    chosen = [of_primary.get(name) for name in ("yield", "diversity", "saturation")]
    recalls = [m.name for m in all_metrics().values() if RECALL in m.name]
    names = [*MODES, *chosen[:2], *recalls, *chosen[2:]]
    return [name for name in names if name and name in present]


def in_order(present: Collection[str]) -> list[str]:
    """The metrics `present` as tables have them: headline, then the registry's order."""
    first = headline(present)
    return [*first, *(name for name in all_metrics() if name in present and name not in first)]
