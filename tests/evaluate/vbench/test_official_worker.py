"""Starting the official package: which interpreters are refused, and what the worker needs."""

import ast
import sys
from pathlib import Path

import pytest
from fake_vbench import Fake

from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, NATIVE
from dfdbench.evaluate.vbench.official import WORKER, check_python, last_line
from dfdbench.generate.suites.dimensions import T2V
from dfdbench.utils.assets import ASSETS
from dfdbench.utils.errors import UserError

PYTHON = Path(sys.executable)


def test_an_interpreter_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("text")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(Fake(tmp_path / "old", "0.1.4").site))
    cases = {
        tmp_path / "none": "No such file",
        tmp_path: "Permission denied",
        tmp_path / "text": "Permission denied",
        program: r"has no vbench 0\.1\.5 \(hello\)",
        PYTHON: r"has no vbench 0\.1\.5 \(0\.1\.4\); .*vbench==0\.1\.5",
    }
    for path, reason in cases.items():
        with pytest.raises(UserError, match=reason) as caught:
            check_python(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_last_line_is_the_last_that_says_something() -> None:
    said = b"first\nValueError: it fell \xff over\n  \n\n"
    assert last_line(said) == "ValueError: it fell \ufffd over"
    assert last_line(b"") == "it said nothing"


def test_the_worker_needs_no_newer_python_and_nothing_of_dfdbench() -> None:
    tree = ast.parse(WORKER.read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {str(n.module) for n in imports if isinstance(n, ast.ImportFrom)}
    assert names == {"os", "sys", "threading", "torch", "vbench"}


def test_every_dimension_of_the_package_is_known_with_its_weights() -> None:
    assert {*BRIDGED, *NATIVE} == set(T2V)
    weighed = {dimension for asset in ASSETS.values() for dimension in asset.dimensions}
    assert set(T2V) - weighed == {"temporal_flickering"}
