"""Files beside a store whose clips are scored; used by engine.py and merge.py.

Known values beside the measured ones (comparison.py) and VBench's summary (vbench/summary.py) are
written for the suites that ask for them.
"""

from pathlib import Path

from dfdbench.evaluate.comparison import write_comparison
from dfdbench.evaluate.summary import Summary
from dfdbench.evaluate.vbench.summary import is_partial, summarise, warnings, write_summary
from dfdbench.generate.suites.base import Suite


def write_follow_ups(store: Path, suite: Suite, summary: Summary) -> None:
    """Write the files of `suite` beside `store`; `summary` is told of them."""
    written = write_comparison(store, suite, store.parent) if suite.reference else []
    if suite.protocol:
        methods = summarise(store, suite)
        written += write_summary(store.parent, suite, methods, summary.skipped)
        summary.notes += warnings(methods)
        summary.partial |= is_partial(methods)
    summary.written += map(str, written)
