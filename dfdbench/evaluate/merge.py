"""Join score stores: `eval --shard` leaves one a part, `dfdbench merge` makes one of them.

What follows the scores of an unsharded call (engine.py) follows here, when all clips are together.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dfdbench.evaluate.aggregate import aggregate
from dfdbench.evaluate.follow_ups import write_follow_ups
from dfdbench.evaluate.metrics import MetricFamily, get_family
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.summary import Summary
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.stored import stored_suite
from dfdbench.utils.errors import UserError


def merge(
    stores: Sequence[Path], out: Path, prompts: Path | None = None, images: Path | None = None
) -> tuple[Path, list[str]]:
    """Join score stores into the store `out`, then compute values over prompts and references.

    A store that is there already is added to, and may be named among the stores. What two stores
    both hold must be equal.

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
        Store.reading(path).close()
    out = out if out.suffix == ".sqlite" else out / "scores.sqlite"
    is_new = not out.exists()
    others = [path for path in stores if is_new or not path.samefile(out)]
    lines: list[str] = []
    with Store(out) as target:
        try:
            target.absorb(others)
        except UserError:
            if is_new:
                target.close()
                out.unlink()
            raise
        for suite, families in _suites(target.meta(), prompts, images):
            reference = target.meta().get(f"reference {suite.name}") or None
            summary = Summary(suite.name)
            aggregate(target, suite, families, reference, summary)
            write_follow_ups(out, suite, summary)
            lines += summary.details()
        failures = target.failures()
    return out, lines + [f"left out: {reason}" for reason in failures["reason"]]


def _suites(
    meta: dict[str, str], prompts: Path | None, images: Path | None
) -> Iterator[tuple[Suite, list[MetricFamily]]]:
    """Each suite that a store's meta names, and the families that it was scored with."""
    for key, families in meta.items():
        kind, _, name = key.partition(" ")
        if kind == "families":
            own = prompts if prompts and prompts.stem == name else None
            suite = stored_suite(meta, name, images, own) or get_suite(name)
            yield suite, [get_family(family) for family in families.split(",") if family]
