"""The numbers of the DFD paper's tables, as printed: published.csv and its loader.

Used by report/paper.py (beside measured values, never in one column with them) and leaderboard
(entries of kind "published"). Nothing here was measured by this project.
"""

import csv
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dfdbench.utils.errors import UserError, unknown_name

FILE = Path(__file__).parent / "published.csv"
COLUMNS = ["source", "table", "setting", "method", "metric", "value"]
DIRECTION = "higher"
"""Every column of these tables is better high: quality, diversity and camera spread."""


class Published(NamedTuple):
    """One printed number. text: as printed, with its trailing zeros."""

    source: str
    table: int
    setting: str
    method: str
    metric: str
    value: float
    text: str


def read(path: Path = FILE) -> tuple[Published, ...]:
    """The rows of a file like published.csv, in its order.

    Raises:
        UserError: other columns, a malformed field, or a number given twice; names the line.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != COLUMNS:
            raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}")
        rows, seen = list[Published](), dict[tuple[str, str, str], int]()
        for number, line in enumerate(lines, start=2):
            row = _row(line, f"{path}:{number}")
            key = (row.setting, row.method, row.metric)
            if key in seen:
                raise UserError(
                    f"{path}:{number}: the number of line {seen[key]} again; remove one"
                )
            seen[key] = number
            rows.append(row)
    return tuple(rows)


def _row(line: dict[str, str | None], place: str) -> Published:
    source, table, setting, method, metric, value = (line[name] or "" for name in COLUMNS)
    if not re.fullmatch(r"arXiv \d{4}\.\d{5}", source):
        raise UserError(f"{place}: source '{source}'; write it like arXiv 2606.18478")
    if not re.fullmatch(r"[1-9]\d*", table):
        raise UserError(f"{place}: table '{table}'; write the number of the paper's table")
    for name in (setting, method, metric):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.]*", name):
            raise UserError(f"{place}: name '{name}'; write it in small letters like t2v_wan")
    if not re.fullmatch(r"-?\d+(\.\d+)?", value):
        raise UserError(f"{place}: value '{value}'; write a plain number")
    return Published(source, int(table), setting, method, metric, float(value), value)


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
