"""Cells: the mean over the clips of one metric, arm, prompt and training seed, and their file.

Every number of a report's tables, summary.json and deltas.* follows from cells.csv alone
(summary.recompute). Used by sets.py (makes them), page.py (writes them), summary.py (reads them)
and leaderboard/entries.py, whose evidence has the same rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import BeforeValidator, Field

from dfdbench.report.statistics import NO_TRAINING_SEED, POOLED
from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Outside, read_csv
from dfdbench.utils.table import from_csv, to_csv

COLUMNS = ["metric", "arm", "prompt", "training_seed", "n", "value"]
DIGITS = 7
LARGEST = 1e100  # of a number that means something
Name = Annotated[str, Field(min_length=1, max_length=1000), BeforeValidator(from_csv)]
PromptName = Annotated[str, Field(max_length=1000), BeforeValidator(from_csv)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
TrainingSeed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Cell(Outside):
    """Mean of `n` clips of one prompt and training seed (None: nothing was trained)."""

    metric: Name
    arm: Name
    prompt: PromptName = POOLED
    training_seed: TrainingSeed | None = None
    n: int = Field(ge=1, lt=2**53)
    value: Number


def rounded(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with values as cells.csv has them, of DIGITS digits."""
    return cells.assign(value=[float(f"{value:.{DIGITS}g}") for value in cells["value"]])


def cells_csv(cells: pd.DataFrame) -> str:
    """cells.csv: COLUMNS, training_seed empty where there is none.

    cells: a row a cell with COLUMNS, training_seed NO_TRAINING_SEED where there is none.
    """
    rows = (
        (*row[:3], "" if row[3] == NO_TRAINING_SEED else row[3], row[4], f"{row[5]:.{DIGITS}g}")
        for row in cells[COLUMNS].itertuples(index=False, name=None)
    )
    return to_csv(COLUMNS, rows)


def read_rows(path: Path, remedy: str) -> list[Cell]:
    """The cells of a CSV file, whatever the order of its columns.

    Raises:
        UserError: no such file, a malformed line, or a cell given twice; names the line.
    """
    cells = dict[tuple[str, str, str, int | None], Cell]()
    for number, cell in read_csv(path, Cell, remedy):
        key = (cell.metric, cell.arm, cell.prompt, cell.training_seed)
        if key in cells:
            raise UserError(f"{path}:{number}: given twice; {remedy}")
        cells[key] = cell
    return list(cells.values())


def frame_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """Cells as a frame with COLUMNS, training_seed NO_TRAINING_SEED where there is none."""
    frame = pd.DataFrame(map(dict, cells), columns=COLUMNS)
    seeds = [
        NO_TRAINING_SEED if cell.training_seed is None else cell.training_seed for cell in cells
    ]
    return frame.assign(training_seed=pd.Series(seeds, frame.index, "int64"))


def read_cells(path: Path) -> pd.DataFrame:
    """The cells of a report's cells.csv; raises what `read_rows` does."""
    return frame_of(read_rows(path, "write the report again"))
