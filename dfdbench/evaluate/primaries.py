"""Which metric stands for which of the three primaries: the one place that says so.

Used by `eval` for the scores it prints first, and by the report for what it tests.
"""

from collections.abc import Collection

PRIMARIES = {
    "diversity": (
        "open_gini",
        "open_gini_given_image",
        "hue_entropy",
        "clip_vit_l14_diversity",
        "dinov2_l_diversity",
        "dinov3_l_diversity",
        "effnet_lite2_diversity",
    ),
    "saturation": ("sprite_saturation", "sprite_saturation_given_image", "saturation_mean"),
    "yield": ("sprite_intact", "sprite_continues"),
}
"""Primary → its metrics; the first that a report has is the one that is tested."""


def primaries(present: Collection[str]) -> dict[str, str]:
    """Metric → the primary that it stands for, of a report that has the metrics `present`."""
    chosen = {
        primary: next((name for name in names if name in present), None)
        for primary, names in PRIMARIES.items()
    }
    return {metric: primary for primary, metric in chosen.items() if metric}
