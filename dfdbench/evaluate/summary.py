"""What one call of scoring did, for people and for --json. Made by engine.py, shown by the cli."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfdbench.evaluate.score_table import NEEDS, in_short
from dfdbench.utils.errors import clean
from dfdbench.utils.manifest import capped


@dataclass
class Summary:
    """What one call of `score` did.

    stores: score stores written. videos: clips named by the inputs; scored: clips for which
    something was computed; reused: clips with all scores there already; failures: (path, reason)
    of clips left out; mixed: prompts left out of group values because their clips differ in size;
    missing: prompts of the suite without a clip, a line a method; skipped: families without their
    weights, with the reason; notes: what the scores depend on; written: files beside the stores;
    partial: VBench's scores or totals lack something; seconds: wall time; scores: the means of the
    main metrics (score_table.py), table: the same as lines; left_out_file: holds what is left out
    where it is too much to print.
    """

    suite: str
    stores: list[Path] = field(default_factory=list)
    videos: int = 0
    scored: int = 0
    reused: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    partial: bool = False
    seconds: float = 0.0
    scores: list[dict[str, Any]] = field(default_factory=list)
    table: list[str] = field(default_factory=list)
    left_out_file: str = ""

    @property
    def exit_code(self) -> int:
        """0, or 1 when something could not be scored."""
        return 1 if self.failures or self.mixed else 0

    def lines(self, whole: bool = False) -> list[str]:
        """What a person should read, the scores last: five of them, or the `whole` table."""
        head = (
            f"{self.suite}: {self.videos} videos, {self.scored} scored, {self.reused} known, "
            f"{len(self.failures)} left out, {self.seconds:.1f} s"
        )
        return [head, *(f"scores: {path}" for path in self.stores), *self.details(whole)]

    def details(self, whole: bool = False) -> list[str]:
        """Files written, what a reader of the scores must know, the scores, and what has none."""
        absent = [note for note in self.notes if NEEDS in note]
        about = {
            "written": self.written,
            "note": [note for note in self.notes if note not in absent],
            "missing": self.missing,
        }
        bad = {"no group values": self.mixed, "left out": [reason for _, reason in self.failures]}
        lines = [f"{kind}: {clean(line)}" for kind, own in about.items() for line in own]
        where = self.left_out_file or "the store"
        last = [f"{kind}: {line}" for kind, own in bad.items() for line in capped(own, where)]
        table = self.table if whole else in_short(self.scores)
        without = [f"skipped: {clean(line)}" for line in self.skipped]
        without += [f"note: {clean(line)}" for line in absent]
        blank = [""] if table else []
        return [*lines, *blank, *map(clean, table), *(blank if without else []), *without, *last]
