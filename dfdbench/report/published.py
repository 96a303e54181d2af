"""The numbers of the DFD paper's tables, as printed: published.csv and its loader.

Used by report/paper.py (beside measured values, never in one column with them) and leaderboard
(entries of kind "published"). Nothing here was measured by this project.
"""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.reading import Outside, read_csv

FILE = Path(__file__).parent / "published.csv"
DIRECTION = "higher"
"""Every column of these tables is better high: quality, diversity and camera spread."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$")]


class Published(Outside):
    """One printed number. text: as printed, with its trailing zeros."""

    source: str = Field(pattern=r"^arXiv \d{4}\.\d{5}$")
    table: int = Field(ge=1)
    setting: Name
    method: Name
    metric: Name
    text: str = Field(alias="value", pattern=r"^-?\d+(\.\d+)?$")

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)


def read(path: Path = FILE) -> tuple[Published, ...]:
    """The rows of a file like published.csv, in its order.

    Raises:
        UserError: no rows, another column, a malformed field, or a number given twice; names the
            line.
    """
    rows, seen = list[Published](), dict[tuple[str, str, str], int]()
    for number, row in read_csv(path, Published, "write it like the shipped published.csv"):
        key = (row.setting, row.method, row.metric)
        if key in seen:
            raise UserError(f"{path}:{number}: the number of line {seen[key]} again; remove one")
        seen[key] = number
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: holds no numbers; write a row for each")
    return tuple(rows)


@cache
def shipped() -> tuple[Published, ...]:
    """The rows of the shipped file."""
    return read()


def settings() -> list[str]:
    """Names of the paper's settings, one a table, in its order."""
    return list(dict.fromkeys(row.setting for row in shipped()))


def of_setting(setting: str) -> tuple[Published, ...]:
    """The rows of one setting; an unknown one is refused with near names."""
    rows = tuple(row for row in shipped() if row.setting == setting)
    if not rows:
        raise unknown_name("setting of the paper", setting, settings())
    return rows
