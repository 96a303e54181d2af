"""Files from outside, read through typed models: one way in, one form of error.

Manifests, sample indexes, run.json, recipes, studies, leaderboard entries, info files, prompt files
and captions all come through here. Only regular files are opened, for a pipe would be waited for
and a device has no end. A fault is one line that names the file, its line where it has lines, the
field, what is wrong, and the remedy:

    clips/manifest.jsonl:3: seed: not a whole number (is 1.9); correct that line
"""

import csv
import difflib
import json
import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from dfdbench.utils.errors import UserError

T = TypeVar("T")
LONGEST = 60  # characters of a wrong value that are shown
LARGEST = 2**28  # bytes of a text file; a manifest of a million clips has as many
LONGEST_TEXT, LONGEST_NAME = 100_000, 1000  # characters of a prompt or path, of a name
BOM = "\ufeff"
# What cannot be seen: controls, halves of characters. A text may have lines, a name is one line.
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
BREAKS = re.compile(r"[\t\n\r\u2028-\u202e\u2066-\u2069]")  # line ends, turns of direction
Refuse = Callable[[int, UserError], None]  # is told of the line that cannot be used


def clean_text(text: str) -> str:
    """`text`, if it holds only what can be seen, tabs and line ends; else a ValueError."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"longer than {LONGEST_TEXT} characters")
    if fault := UNSEEN.search(text):
        if "\udc80" <= fault[0] <= "\udcff":  # as surrogateescape has what it cannot decode
            raise ValueError("holds a byte that is not UTF-8")
        raise ValueError(f"holds the character {fault[0]!a}")
    if text.startswith(BOM):
        raise ValueError("begins with a byte-order mark")
    return text


def clean_name(text: str) -> str:
    """`text`, if it is one line, not blank and at most LONGEST_NAME long; else a ValueError."""
    if not text.strip():
        raise ValueError("is blank")
    if len(text) > LONGEST_NAME:
        raise ValueError(f"longer than {LONGEST_NAME} characters")
    if fault := BREAKS.search(text):
        raise ValueError(f"holds the character {fault[0]!a}")
    return clean_text(text)


Text = Annotated[str, Strict(), AfterValidator(clean_text)]
Name = Annotated[str, Strict(), AfterValidator(clean_name)]


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
    except RecursionError:
        raise UserError(f"{where}: nested too deep; {remedy}") from None
    return checked


def _in_words(fault: Any, kind: Any) -> str:
    """One fault of pydantic's as `field: what is wrong (is VALUE)`."""
    field = ".".join(str(part)[:LONGEST] for part in fault["loc"])
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
    value = _brief(fault["input"])
    wrong = f"not {message}" if fault["msg"].startswith("Input should be ") else message
    return f"{field}: {wrong} (is {value})" if field else f"{wrong} (is {value})"


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, an integer of too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


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


def read_bytes(path: str | Path, what: str = "text in UTF-8") -> bytes:
    """The whole file.

    Raises:
        UserError: it is not there, no regular file, larger than LARGEST, or cannot be read; `what`
            says what was expected.
    """
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"{path}: cannot be read as {what}: no regular file; name one")
        if state.st_size > LARGEST:
            raise UserError(
                f"{path}: cannot be read as {what}: {state.st_size} bytes, {LARGEST} are "
                "read; name another file or split it"
            )
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read as {what} ({reason}); check the path") from None


def decode(data: bytes, where: object, what: str = "text in UTF-8", errors: str = "strict") -> str:
    """`data` as text, without a byte-order mark, its line ends as they are.

    errors: "surrogateescape" keeps bytes that are no UTF-8 as halves of characters, for a reader
        that refuses the lines which hold some.

    Raises:
        UserError: it is not UTF-8.
    """
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        if not utf16:
            return data.decode("utf-8", errors).removeprefix(BOM)
    except UnicodeDecodeError:
        pass
    other = " (it is in UTF-16)" if utf16 else ""
    raise UserError(f"{where}: cannot be read as {what}{other}; save it in UTF-8")


def read_text(path: str | Path, what: str = "text in UTF-8", errors: str = "strict") -> str:
    """The whole file as text; see `read_bytes` and `decode`."""
    return decode(read_bytes(path, what), path, what, errors)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice[:LONGEST]}' is given twice")
    return table


def parse_json(text: str, where: object, remedy: str) -> Any:
    """The JSON value of `text`; a UserError that says where it breaks or what is given twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
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
    path: str | Path,
    kind: type[T],
    remedy: str,
    what: str = "JSON, one object a line",
    refuse: Refuse | None = None,
) -> Iterator[tuple[int, T]]:
    """Line number and value of each line that is not empty; see `validate`.

    refuse: is told of each line that cannot be used, and the others are read; else the first ends
        the reading.
    """
    text = read_text(path, what, "surrogateescape" if refuse else "strict")
    for number, line in numbered_lines(text):
        if line.strip():
            where = f"{path}:{number}"
            try:
                if not line.isascii() and UNSEEN.search(line):
                    decode(line.encode("utf-8", "surrogateescape"), where)
                value = validate(kind, parse_json(line, where, remedy), where, remedy)
            except UserError as error:
                if refuse is None:
                    raise
                refuse(number, error)
                continue
            yield number, value


def read_growing(path: str | Path, kind: Any, remedy: str) -> Iterator[dict[str, Any]]:
    """Lines of a JSONL file that is written as work goes on, each checked to be a `kind`, as is.

    A last line without its end is still being written, or was cut by a kill: it is left out.
    """
    what = "JSON, one object a line"
    data = read_bytes(path, what)
    text = decode(data[: data.rfind(b"\n") + 1], path, what)  # the cut may be inside a character
    for number, line in numbered_lines(text):
        if line:
            where = f"{path}:{number}"
            row: dict[str, Any] = parse_json(line, where, remedy)
            validate(kind, row, where, remedy)
            yield row


def read_csv(
    path: str | Path, kind: type[T], remedy: str, refuse: Refuse | None = None
) -> Iterator[tuple[int, T]]:
    """Line number and value of each row under the header; empty cells are left out.

    refuse: as of `read_jsonl`.

    Raises:
        UserError: also for a header that names a column twice.
    """
    csv.field_size_limit(sys.maxsize)  # a long cell is its row's fault, and must not cut it in two
    text = read_text(path, "CSV", "surrogateescape" if refuse else "strict")
    rows = csv.reader(_csv_lines(text), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise UserError(f"{path}:1: not CSV ({error}); {remedy}") from None
    if len(set(header)) < len(header):
        raise UserError(f"{path}: names a column twice; keep one")
    while True:
        try:
            cells = next(rows, None)
            where = f"{path}:{rows.line_num}"
            if cells is None:
                return
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{where}: {len(cells)} cells, the header has {len(header)} columns "
                    f"(a text with commas stands in quotes); {remedy}"
                )
            there = {key: cell for key, cell in zip(header, cells, strict=True) if cell}
            value = validate(kind, there, where, remedy)
        except (csv.Error, UserError) as error:
            not_csv = f"{path}:{rows.line_num}: not CSV ({error}); {remedy}"
            fault = error if isinstance(error, UserError) else UserError(not_csv)
            if refuse is None:
                raise fault from None
            refuse(rows.line_num, fault)
            continue
        yield rows.line_num, value


def _csv_lines(text: str) -> Iterator[str]:
    r"""Lines with their ends, which are \n, \r\n or \r: those that csv knows, no others."""
    return (line[0] for line in re.finditer(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$", text))


def numbered_lines(text: str) -> Iterable[tuple[int, str]]:
    r"""(number from 1, line) for lines that end in \n or \r\n; no other character ends a line.

    The byte-order mark of a file that was joined to another is no part of its line.
    """
    lines = (line.removesuffix("\r").removeprefix(BOM) for line in text.split("\n"))
    return enumerate(lines, start=1)
