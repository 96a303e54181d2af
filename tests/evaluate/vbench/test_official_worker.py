"""Starting the official package: which interpreters and answers are refused, and how."""

import ast
import json
import sys
from pathlib import Path

import pytest
from fake_vbench import Fake

from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, NATIVE
from dfdbench.evaluate.vbench.official import (
    FILES,
    WORKER,
    Failed,
    check_python,
    last_line,
    read_answer,
)
from dfdbench.evaluate.vbench.totals import COLUMNS
from dfdbench.utils.errors import UserError

PYTHON = Path(sys.executable)


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "{}", '{"videos": [{"path": "a"}]}',
     '{"videos": [{"path": "a", "value": "good"}]}', '{"videos": [{"path": "a", "value": null}]}'],
)  # fmt: skip
def test_a_malformed_answer_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "answer.json").write_text(text)
    with pytest.raises(Failed, match=r"no usable answer; see .*\.log$"):
        read_answer(tmp_path / "answer.json", ["a"], "scene", tmp_path / "scene.log")
    with pytest.raises(Failed, match="no usable answer"):
        read_answer(tmp_path / "none.json", ["a"], "scene", tmp_path / "scene.log")


def test_values_come_in_the_order_of_the_clips_and_nan_is_none(tmp_path: Path) -> None:
    videos = [{"path": p, "value": v} for p, v in (("b", 50.0), ("a", 25.0), ("c", float("nan")))]
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"score": 1, "videos": videos}))
    found = read_answer(answer, ["a", "b", "c"], "scene", answer)
    assert found == [25, 50, None]
    assert read_answer(answer, ["a", "b", "c"], "imaging_quality", answer) == [0.25, 0.5, None]


def program(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_interpreter_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("text")
    cases = {
        tmp_path / "none": "no such file",
        tmp_path: "not a program",
        tmp_path / "text": "not a program",
        program(tmp_path, "#!/bin/sh\necho hello\n"): "not a Python interpreter",
        PYTHON: "has no vbench; ",
    }
    if not (Path(sys.prefix) / "vbench").exists():
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for path, reason in cases.items():
        with pytest.raises(UserError, match=reason) as caught:
            check_python(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    program(tmp_path, "nothing that could be run")
    with pytest.raises(UserError, match="not a Python interpreter"):
        check_python(tmp_path / "program")
    program(tmp_path, '#!/bin/sh\necho \'{"python": [3, 7], "vbench": "0.1.5"}\'\n')
    with pytest.raises(UserError, match=r"is Python 3\.7"):
        check_python(tmp_path / "program")
    monkeypatch.setenv("PYTHONPATH", str(Fake(tmp_path / "old", "0.1.4").site))
    with pytest.raises(UserError, match=r"has vbench 0\.1\.4; .*vbench==0\.1\.5"):
        check_python(PYTHON)


def test_the_last_line_is_the_last_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\nValueError: it fell \xff over\n  \n\n")
    assert last_line(tmp_path / "log") == "ValueError: it fell \ufffd over"
    (tmp_path / "log").write_text("")
    assert last_line(tmp_path / "log") == "it said nothing"


def test_the_worker_needs_no_newer_python_and_nothing_of_dfdbench() -> None:
    tree = ast.parse(WORKER.read_text(encoding="utf-8"), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports if isinstance(n, ast.Import) for a in n.names}
    names |= {str(n.module) for n in imports if isinstance(n, ast.ImportFrom)}
    assert names == {
        "__future__", "json", "os", "sys", "threading", "importlib", "importlib.metadata",
        "torch", "vbench.utils",
    }  # fmt: skip


def test_every_dimension_of_the_package_is_known() -> None:
    assert {*BRIDGED, *NATIVE} == set(FILES) == set(COLUMNS[:16])
