"""What the fuzz tests share: how many examples, values of any kind, TOML text, and a time limit.

The examples are the same in every run. DFDBENCH_FUZZ sets their number; `make test-all` takes more.
"""

import json
import math
import os
from contextlib import AbstractContextManager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from judge import limit

from dfdbench.utils.errors import clean

LIMIT = 5  # seconds for one input

FUZZ = settings(
    max_examples=int(os.environ.get("DFDBENCH_FUZZ", "40")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

ODD = ["", " ", "\ufeffa", "a\0b", "a\u2028b", "a\nb", "\x1b[31m", "=1+1", "<b>", "../x", "nan"]
texts = st.one_of(st.sampled_from(ODD), st.text(max_size=12))
numbers = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**70, 10**400]),
    st.floats(),
    st.sampled_from([1e400, -math.inf, math.nan, 1.9, 3.0, -0.0, 5e-324]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # whatever JSON can hold


def limited() -> AbstractContextManager[None]:
    """Fail where the body takes more than LIMIT seconds."""
    return limit(LIMIT)


def same(read: Any, written: Any) -> bool:
    """Whether a value came back as it was: equal, and a truth value no number."""
    if isinstance(written, dict) and isinstance(read, dict):
        return read.keys() == written.keys() and all(same(read[k], written[k]) for k in written)
    if isinstance(written, list | tuple) and isinstance(read, list | tuple):
        return len(read) == len(written) and all(map(same, read, written))
    if isinstance(written, float) and math.isnan(written):
        return isinstance(read, float) and math.isnan(read)
    if isinstance(read, float) and type(written) is int:
        return read == float(written)  # as near as a float is
    return bool(read == written) and isinstance(read, bool) == isinstance(written, bool)


def one_line(error: Exception) -> bool:
    """Whether a refusal is one short line without what moves a terminal."""
    text = str(error)
    return clean(text) == text and 0 < len(text) < 2000


def put(table: Any, path: list[Any], value: Any) -> Any:
    """A copy of nested tables and lists with one value changed."""
    copied = json.loads(json.dumps(table))
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def paths(table: Any, prefix: tuple[Any, ...] = ()) -> list[list[Any]]:
    """The place of every value in nested tables and lists."""
    inner = table.items() if isinstance(table, dict) else enumerate(table)
    found = []
    for key, value in inner:
        found.append([*prefix, key])
        if isinstance(value, dict | list):
            found += paths(value, (*prefix, key))
    return found


def toml(table: dict[str, Any]) -> str:
    """A table of scalars, lists and tables as TOML; None is written as a word, which is none."""
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = (f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
