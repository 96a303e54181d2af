"""Score a large set in parts: `--shard 1/3` on each of three machines, then `dfdbench merge`.

Used by scoring (which part of the samples) and by the command merge (joins the stores). A part's
store holds clips only; values over prompts and against a reference are made when all are joined.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dfdbench.errors import UserError
from dfdbench.groups import find_missing, group_values, pooled_values
from dfdbench.metrics import get_family
from dfdbench.scores import Store
from dfdbench.suites import Suite, get_suite
from dfdbench.suites.stored import stored_suite

T = TypeVar("T")
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


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


def local_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """`device`, or for "auto" and "cuda" the GPU of this process among those of its machine."""
    local = next((environment[name] for name in LOCAL_RANKS if name in environment), None)
    if device not in ("auto", "cuda") or local is None:
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{int(local) % count}" if count else device


def _summary(store: Path, suite: Suite) -> list[Path]:
    """VBench's summary beside the store, where the suite is one of VBench."""
    if not suite.protocol:
        return []
    from dfdbench.vbench.summary import summarise, write_summary

    return write_summary(store.parent, suite, summarise(store, suite))


def merge(
    stores: Sequence[Path], out: Path, prompts: Path | None = None, images: Path | None = None
) -> tuple[Path, list[str]]:
    """Join score stores into the store `out`, then compute values over prompts and references.

    A store that is there already is added to. What two stores both hold must be equal.

    Args:
        stores: .sqlite files.
        out: a .sqlite file, or a folder that will hold scores.sqlite.
        prompts: the prompt file of a suite that is not shipped.
        images: VBench-I2V's folder, where it is not the default one.

    Returns:
        The joined store, and lines for a person: what is missing, or left out.

    Raises:
        UserError: no such store, or two stores that contradict each other; `out` is as it was.
    """
    for path in stores:
        if not path.is_file():
            raise UserError(f"{path}: no such score store; name the shards' .sqlite files")
    out = out if out.suffix == ".sqlite" else out / "scores.sqlite"
    lines: list[str] = []
    with Store(out) as target:
        target.absorb(stores)
        for key, names in target.meta().items():
            kind, _, name = key.partition(" ")
            if kind != "families":
                continue
            own = prompts if prompts and prompts.stem == name else None
            suite = stored_suite(target.meta(), name, images, own) or get_suite(name)
            families = [get_family(family) for family in names.split(",") if family]
            reference = target.meta().get(f"reference {name}") or None
            mixed = group_values(target, suite, families, reference)
            lines += [f"no group values: {line}" for line in mixed]
            pooled_values(target, suite, families, reference)
            lines += [f"missing: {line}" for line in find_missing(target, suite)]
            lines += [f"written: {path}" for path in _summary(out, suite)]
        failures = target.failures()
    return out, lines + [f"left out: {reason}" for reason in failures["reason"]]
