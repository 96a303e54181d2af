"""Work in parts: `--shard 1/3` on each of three machines, or `--shard auto` under a launcher.

Used by generation, scoring and `data encode`, each of which joins its parts in its own way.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dfdbench.utils.errors import UserError

T = TypeVar("T")
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th of `items`, so that parts are alike in size and in prompts."""
        return list(items[self.index - 1 :: self.count])

    def store(self, path: Path) -> Path:
        """Where this part of the store `path` goes."""
        return path.with_name(f"{path.stem}.shard-{self.index}-of-{self.count}{path.suffix}")


WHOLE = Shard(1, 1)


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """`2/3`, or `auto`: the rank and number of processes that torchrun or Slurm set.

    Raises:
        UserError: another text, a part outside 1 … count, or `auto` without a launcher.
    """
    if text == "auto":
        for rank, size in LAUNCHERS:
            if rank in environment and size in environment:
                return Shard(int(environment[rank]) + 1, int(environment[size]))
        raise UserError("--shard auto: neither torchrun nor Slurm started this; write 1/3")
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = Shard(*map(int, match.groups())) if match else None
    if shard is None or not 1 <= shard.index <= shard.count:
        raise UserError(f"--shard {text}: write PART/COUNT such as 1/3, or auto")
    return shard
