"""Files that a suite asks for beside the store once its clips are scored.

Used by engine.py and merge.py: known values beside the measured ones (comparison.py) and VBench's
summary (vbench/summary.py).
"""

from collections.abc import Sequence
from pathlib import Path

from dfdbench.evaluate.comparison import write_comparison
from dfdbench.evaluate.summary import FollowUp
from dfdbench.evaluate.vbench.summary import is_partial, summarise, warnings, write_summary
from dfdbench.generate.suites.base import Suite


def write_follow_ups(store: Path, suite: Suite, skipped: Sequence[str] = ()) -> FollowUp:
    """Write the files of `suite` beside `store`.

    skipped: a line for each family that could not be computed, with the remedy.
    """
    written = write_comparison(store, suite, store.parent) if suite.reference else []
    if not suite.protocol:
        return FollowUp(written=written)
    methods = summarise(store, suite)
    written += write_summary(store.parent, suite, methods, skipped)
    return FollowUp(written=written, notes=warnings(methods), partial=is_partial(methods))
