"""Files from outside, read through typed models: one way in, one form of error.

Manifests, sample indexes, run.json, recipes, studies, leaderboard entries, info files and prompt
files all come through here. A fault is one line that names the file, its line where it has lines,
the field, what is wrong, and the remedy:

    clips/manifest.jsonl:3: seed: not a whole number (is 1.9); correct that line
"""

import csv
import difflib
import io
import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dfdbench.utils.errors import UserError

T = TypeVar("T")
LONGEST = 60  # characters of a wrong value that are shown


class Outside(BaseModel):
    """Base of what is read from outside: no field that is not declared, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Open(BaseModel):
    """The same for files that others may add fields to, which are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def plain(value: Any) -> Any:
    """A value of a type that pydantic knows as JSON has it, under the names that files use."""
    adapter = _adapter(type(value))  # type: ignore[arg-type]
    return adapter.dump_python(value, mode="json", by_alias=True)


def validate(kind: type[T], value: Any, where: object, remedy: str, strictly: bool = False) -> T:
    """`value` as `kind`, a pydantic model or any type that pydantic knows.

    Args:
        where: file, or file:line; begins the message.
        remedy: what to do, ends the message.
        strictly: convert nothing but lists to tuples and whole numbers to floats.

    Raises:
        UserError: the value is not a `kind`; names the first field at fault.
    """
    adapter = _adapter(kind)  # type: ignore[arg-type]
    try:
        checked: T = (
            adapter.validate_json(json.dumps(value, default=str), strict=True)
            if strictly
            else adapter.validate_python(value)
        )
    except ValidationError as error:
        faults = error.errors(include_url=False)
        unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
        fault = (unknown or faults)[0]  # a misspelt field says more than the one it leaves missing
        raise UserError(f"{where}: {_in_words(fault, kind)}; {remedy}") from None
    return checked


def _in_words(fault: Any, kind: Any) -> str:
    """One fault of pydantic's as `field: what is wrong (is VALUE)`."""
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"lacks '{field}'"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        beside = [name for name in _names(kind) if name.count(".") == field.count(".")]
        near = difflib.get_close_matches(field, beside, n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        return f"unknown field '{field}'{hint}"
    if fault["type"] == "dataclass_type":
        return f"{field}: not a table (is {fault['input']!r}); set {field}.NAME"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if fault["type"] == "value_error" and isinstance(fault["input"], dict):
        return f"{field}: {message}"
    shown = repr(fault["input"])
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]}…"
    wrong = f"not {message}" if fault["msg"].startswith("Input should be ") else message
    return f"{field}: {wrong} (is {shown})" if field else f"{wrong} (is {shown})"


def _names(kind: Any, prefix: str = "") -> list[str]:
    """Dotted names, as files have them, of the fields of a model and of what is nested in it."""
    own = getattr(kind, "model_fields", {})
    if is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        own = {name: FieldInfo.from_annotation(hint) for name, hint in hints.items()}
    names = []
    for name, item in own.items():
        dotted = prefix + (item.alias or name)
        names += [dotted, *_names(item.annotation, f"{dotted}.")]
    return names


def read_text(path: str | Path, what: str = "text in UTF-8") -> str:
    """The whole file, without a byte-order mark.

    Raises:
        UserError: it is not there, cannot be read, or is not UTF-8; `what` says what was expected.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read as {what}; save it in UTF-8") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as {what} ({error.strerror}); check the path"
        ) from None


def parse_json(text: str, where: object, remedy: str) -> Any:
    """The JSON value of `text`; a UserError that says where it breaks."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{where}: not JSON ({reason}); {remedy}") from None


def read_json(path: str | Path, kind: type[T], remedy: str) -> T:
    """The JSON file as `kind`; see `validate`."""
    return validate(kind, parse_json(read_text(path, "JSON"), path, remedy), path, remedy)


def read_toml(path: str | Path, kind: type[T], remedy: str) -> T:
    """The TOML file as `kind`; see `validate`."""
    try:
        table = tomllib.loads(read_text(path, "TOML"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}; {remedy}") from None
    return validate(kind, table, path, remedy)


def read_jsonl(
    path: str | Path, kind: type[T], remedy: str, what: str = "JSON, one object a line"
) -> Iterator[tuple[int, T]]:
    """Line number and value of each line that is not empty; see `validate`."""
    for number, line in numbered_lines(read_text(path, what)):
        if line.strip():
            where = f"{path}:{number}"
            yield number, validate(kind, parse_json(line, where, remedy), where, remedy)


def read_growing(path: str | Path, kind: Any, remedy: str) -> Iterator[dict[str, Any]]:
    """Lines of a JSONL file that is written as work goes on, each checked to be a `kind`, as is.

    A last line without its end is still being written, or was cut by a kill: it is left out.
    """
    text = read_text(path, "JSON, one object a line")
    for number, line in numbered_lines(text[: text.rfind("\n") + 1]):
        if line:
            where = f"{path}:{number}"
            row: dict[str, Any] = parse_json(line, where, remedy)
            validate(kind, row, where, remedy)
            yield row


def read_csv(path: str | Path, kind: type[T], remedy: str) -> Iterator[tuple[int, T]]:
    """Line number and value of each row under the header; empty cells are left out."""
    rows = csv.DictReader(io.StringIO(read_text(path, "CSV"), newline=""))
    try:
        for row in rows:
            there = {key: cell for key, cell in row.items() if key is not None and cell}
            yield rows.line_num, validate(kind, there, f"{path}:{rows.line_num}", remedy)
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not CSV ({error}); {remedy}") from None


def numbered_lines(text: str) -> Iterable[tuple[int, str]]:
    r"""(number from 1, line) for lines that end in \n or \r\n; no other character ends a line."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return enumerate(lines, start=1)
