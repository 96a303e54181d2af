"""Earlier reports as sources of a report: a study whose training seeds ran on several machines.

Clips and students are large; a report's own cells.csv, runs.json and provenance.json hold all that
the numbers of a later report need. What needs clips or training curves (pictures, VBench's totals)
is of the runs that are here. Used by collect.py and sets.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import Field

from dfdbench.report.cells import COLUMNS, read_cells
from dfdbench.report.identity import recipe_digest
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Open, read_json, validate
from dfdbench.utils.run import RunInfo

REMEDY = "write that report again, or leave it out"


class Provenance(Open):
    """What the scores of one store depend on, as Store.provenance says it, and their suite."""

    metric_versions: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = Field(default_factory=dict)
    suite: str = ""

    def measured(self) -> dict[str, tuple[Any, ...]]:
        """Metric → version, weights and frame policy."""
        return {
            name: (version, *(self.metrics.get(name, {}).get(key) for key in ("weights", "policy")))
            for name, version in self.metric_versions.items()
        }


class Earlier(NamedTuple):
    """A report's folder: its cells, its runs' run.json, and what its scores depend on."""

    path: Path
    cells: pd.DataFrame
    runs: dict[str, dict[str, Any]]
    provenance: dict[str, Provenance]


def is_report(path: Path) -> bool:
    """Whether a folder holds a report that can be a source."""
    return (path / "cells.csv").is_file() and (path / "runs.json").is_file()


def read_report(path: Path) -> Earlier:
    """The report in a folder.

    Raises:
        UserError: a file of it is not there or not readable.
    """
    runs = read_json(path / "runs.json", dict[str, dict[str, Any]], REMEDY)
    for name, info in runs.items():
        validate(RunInfo, info, f"{path / 'runs.json'}, {name}", REMEDY)
    provenance = read_json(path / "provenance.json", dict[str, Provenance], REMEDY)
    return Earlier(path, read_cells(path / "cells.csv"), runs, provenance)


def suites_of(earlier: Earlier) -> set[str]:
    """The suites that the scores of a report are of: one, as a report has one."""
    return {read.suite for read in earlier.provenance.values()} - {""}


def check_alike(
    earlier: Earlier,
    suite: str,
    runs: Iterable[tuple[str, Mapping[str, Any]]],
    measured: Mapping[str, tuple[Any, ...]],
) -> None:
    """Refuse a report whose numbers are of other things than those of the rest.

    Args:
        runs: arm and run.json of every other run. measured: of their stores, as
            `Provenance.measured` gives it.

    Raises:
        UserError: another suite, an arm of another recipe or teacher, a metric of another version,
            weights or frames.
    """
    if suite not in suites_of(earlier):
        has = ", ".join(sorted(suites_of(earlier))) or "no suite"
        raise UserError(f"{earlier.path}: a report of {has}, not of {suite}; leave it out")
    kinds = dict[str, tuple[Any, ...]]()
    for arm, info in runs:
        kinds.setdefault(arm, _trained_as(info))
    for info in earlier.runs.values():
        arm = str(info.get("arm"))
        if kinds.get(arm, _trained_as(info)) != _trained_as(info):
            raise UserError(
                f"{earlier.path}: its {arm} has another recipe or teacher than that of the other "
                "sources; report them apart"
            )
    for read in earlier.provenance.values():
        for name, there in read.measured().items():
            here = measured.get(name, there)
            if here != there:
                raise UserError(
                    f"{earlier.path}: its {name} (version, weights, frames: {_named(there)}) was "
                    f"measured in another way than that of the other sources ({_named(here)}); "
                    "score its runs again"
                )


def _trained_as(info: Mapping[str, Any]) -> tuple[Any, ...]:
    return recipe_digest(info), info.get("teacher_sha256")


def _named(measured: tuple[Any, ...]) -> str:
    return ", ".join(str(part or "none") for part in measured)


def joined(cells: pd.DataFrame, reports: Sequence[Earlier]) -> pd.DataFrame:
    """The cells with those of earlier reports.

    Of arms without a training seed, which several machines have made alike, the first source's
    count.

    Raises:
        UserError: a cell of a trained arm that two sources have with other values.
    """
    key = ["metric", "arm", "prompt", "training_seed"]
    for earlier in reports:
        both = cells.merge(earlier.cells, on=key, suffixes=("", "_earlier"))
        trained = both[both["training_seed"] != NO_TRAINING_SEED]
        other = trained[
            (trained["value"] != trained["value_earlier"]) | (trained["n"] != trained["n_earlier"])
        ]
        if len(other):
            row = other.iloc[0]
            raise UserError(
                f"{earlier.path / 'cells.csv'}: {row['arm']} of training seed "
                f"{row['training_seed']} has other values than in the other sources (first: "
                f"{row['metric']} of {row['prompt']}); leave one of them out"
            )
        cells = pd.concat([cells, earlier.cells[COLUMNS]], ignore_index=True)
        cells = cells.drop_duplicates(key, ignore_index=True)
    return cells
