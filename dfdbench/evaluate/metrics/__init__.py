"""Metrics, one file a family. base.py holds their types, registry.py their names.

The names below are all that other rooms need; a family's file imports from base.py.
"""

from dfdbench.evaluate.metrics.base import (
    Compute,
    Direction,
    GroupValue,
    Metric,
    MetricFamily,
    Reading,
    Setting,
    plain,
)
from dfdbench.evaluate.metrics.registry import (
    FAMILY_NAMES,
    all_metrics,
    families_of,
    get_family,
    get_metric,
    register,
)

__all__ = [
    "FAMILY_NAMES",
    "Compute",
    "Direction",
    "GroupValue",
    "Metric",
    "MetricFamily",
    "Reading",
    "Setting",
    "all_metrics",
    "families_of",
    "get_family",
    "get_metric",
    "plain",
    "register",
]
