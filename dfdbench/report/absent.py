"""Which values over a prompt's clips an arm lacks, and why: a line each, beside the main table.

Used by page.py. Diversity needs two clips of a prompt; without this line a report of one seed a
prompt would drop it without a word.
"""

from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.metrics.registry import FAMILY_NAMES
from dfdbench.report.arms import looks
from dfdbench.report.collect import Collected

MOST_NAMED = 6


def absent_lines(collected: Collected) -> list[str]:
    """A line for each arm with prompts of one clip that lacks what needs two."""
    families = [get_family(name) for name in FAMILY_NAMES if name in collected.families]
    wanted = [m.name for f in families if f.group for m in f.at("prompt") if m.kind == "score"]
    labels, lines = looks(collected.arms, collected.references), []
    for arm in collected.arms:
        has = set(collected.values[collected.values["arm"] == arm]["metric"])
        lacking = [name for name in wanted if name not in has]
        clips = collected.clips[collected.clips["arm"] == arm]
        counts = clips.groupby(["training_seed", "prompt_id"]).size().groupby("prompt_id").max()
        single = int((counts == 1).sum())
        if lacking and single:
            more = f" and {len(lacking) - MOST_NAMED} more" if lacking[MOST_NAMED:] else ""
            lines.append(
                f"{labels[arm].label} has no {', '.join(lacking[:MOST_NAMED])}{more}: {single} of "
                f"{len(counts)} prompts have one clip, and these compare two or more of a prompt"
            )
    return lines
