"""How VBench judges a clip by many magnitudes of motion, without computing those it can do without.

Used by the families vbench_dynamic_degree and vbench_static_filter.
"""

from collections.abc import Iterator


def exceed(values: Iterator[float], total: int, threshold: float, needed: int) -> bool:
    """Whether at least `needed` of `total` values are above the threshold.

    It reads no more of them than decide it: most clips are settled by a quarter of their pairs.
    """
    spare = total - needed  # so many may be at or below it
    while needed > 0 and spare >= 0:
        above = next(values) > threshold
        needed, spare = needed - above, spare - (not above)
    return needed <= 0
