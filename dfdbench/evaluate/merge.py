"""Join score stores: `eval --shard` leaves one a part, `dfdbench merge` makes one of them.

Values over prompts and against a reference are computed when all clips are together.
"""

from collections.abc import Sequence
from pathlib import Path

from dfdbench.evaluate.aggregate import find_missing, group_values, pooled_values
from dfdbench.evaluate.metrics import get_family
from dfdbench.evaluate.store import Store
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.stored import stored_suite
from dfdbench.utils.errors import UserError


def _summary(store: Path, suite: Suite) -> list[Path]:
    """VBench's summary beside the store, where the suite is one of VBench."""
    if not suite.protocol:
        return []
    from dfdbench.evaluate.vbench.summary import summarise, write_summary

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
