"""Every numeric key of every recipe against values that no training can have."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from judge import refused

from dfdbench.distill.methods import SHIPPED, get_method
from dfdbench.distill.sections import Recipe

WRONG = ("nan", "inf", "-inf", "-1", "1e400", "'text'", "true", "[]", "{}")
LARGE = "1000000000000000000000000000000"


def numeric_keys() -> Iterator[tuple[str, str, bool]]:
    """(method, dotted key, whether whole) of every key that holds one number or several."""
    sections: dict[str, tuple[str, Any]] = {
        name: ("dmd2", kind) for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)
    }
    sections |= {name: (name, get_method(name).Options) for name in SHIPPED}
    for section, (method, kind) in sections.items():
        hints = get_type_hints(kind)
        for item in fields(kind):
            text = str(hints[item.name])
            if ("int" in text or "float" in text) and "Literal" not in text:
                yield method, f"{section}.{item.name}", "float" not in text
    yield "dmd2", "seed", True


CASES = [
    (method, key, value)
    for method, key, whole in numeric_keys()
    for value in (*WRONG, *([LARGE] * whole))
]


@pytest.mark.fault("A9", "C.non-finite")
@pytest.mark.parametrize(
    ("method", "key", "value"), CASES, ids=[f"{key}={value}" for _, key, value in CASES]
)
def test_a_number_out_of_its_range_is_one_line_that_names_the_key(
    method: str, key: str, value: str, tmp_path: Path
) -> None:
    if value == "[]" and "tuple" in str(_hint(method, key)):
        pytest.skip("an empty list is the default")
    out = tmp_path / "run"
    # a model that is not there ends quickly, with another line, what should have been refused
    words = ["distill", "--method", method, "--model", str(tmp_path / "none")]
    words += ["--set", f"{key}={value}", "--out", str(out)]
    refused("recipe values", f"{key}={value}", words, key.split(".")[-1])
    assert not out.exists()


def _hint(method: str, key: str) -> Any:
    section, _, name = key.partition(".")
    kind = get_method(method).Options if section == method else get_type_hints(Recipe)[section]
    return get_type_hints(kind)[name] if name else kind


@pytest.mark.fault("A9")
@pytest.mark.parametrize(
    "line",
    [
        "dfd.p=0.3\nseed=7", "dfd.p=0.3\n[optim]\nlr=1", "dfd.p", "=3", "dfd.p=", "dfd..p=1", ".=1",
        "dfd.p=0.3;seed=7", "dfd.p=0.3 # x\nseed=1", "dfd.q=1", "dp_dmd.anchor_step=1", "'dfd.p'=1",
        "dfd=1", "dfd.p.q=1", "optim={lr=1}\x00", "dfd.p=0.3\rseed=7", "dfd.p=0.3\x0bseed=7",
    ],
)  # fmt: skip
def test_a_setting_holds_one_key_and_its_value(line: str, tmp_path: Path) -> None:
    words = ["distill", "--method", "dfd", "--model", str(tmp_path / "none"), "--set", line]
    said = refused("recipe values", repr(line), [*words, "--out", str(tmp_path / "run")])
    assert "none" not in said
    assert not (tmp_path / "run").exists()
