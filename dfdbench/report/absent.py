"""Which values over a prompt's clips an arm lacks, and why: a line each, beside the main table.

Used by page.py. Diversity needs several clips of a prompt; without this line a report of one seed a
prompt would drop it without a word.
"""

from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.metrics.registry import FAMILY_NAMES
from dfdbench.evaluate.score_table import too_few
from dfdbench.report.arms import looks
from dfdbench.report.collect import Collected


def absent_lines(collected: Collected) -> list[str]:
    """A line for each arm that lacks values over a prompt's clips for want of more of them."""
    families = [get_family(name) for name in FAMILY_NAMES if name in collected.families]
    labels, lines = looks(collected.arms, collected.references), list[str]()
    for arm in collected.arms:
        has = set(collected.values[collected.values["arm"] == arm]["metric"])
        clips = collected.clips[collected.clips["arm"] == arm]
        counts = clips.groupby(["training_seed", "prompt_id"]).size().groupby("prompt_id").max()
        lines += [f"{labels[arm].label} has {line}" for line in too_few(families, has, counts)]
    return lines
