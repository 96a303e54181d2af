"""Errors that nobody foresaw, interrupts, and what is printed of names from outside."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.utils.stopping import Stopped


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """`dfdbench doctor` that raises."""
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))

    def run(error: BaseException):
        def raising(verify):
            raise error

        monkeypatch.setattr("dfdbench.cli.doctor.examine", raising)
        return CliRunner().invoke(app, ["doctor"])

    return run


@pytest.mark.fault("C.internal")
@pytest.mark.parametrize("error", [KeyError("x"), ValueError("a\nb\x1b[31m"), AssertionError()])
def test_an_error_of_our_own_is_one_line_and_its_traceback_a_file(doctor, error, tmp_path):
    result = doctor(error)
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {type(error).__name__}") and "\x1b" not in line
    file = Path(line.rpartition(" ")[2])
    assert file.parent == tmp_path / "cache" / "errors"
    assert "Traceback" in file.read_text() and type(error).__name__ in file.read_text()


@pytest.mark.fault("C.internal")
def test_it_is_shown_to_who_asks(doctor, monkeypatch):
    monkeypatch.setenv("DFDBENCH_DEBUG", "1")
    result = doctor(KeyError("x"))
    assert result.exit_code == 1 and "Traceback" in result.stderr


@pytest.mark.fault("C.internal")
def test_a_traceback_that_cannot_be_written_there_goes_elsewhere(doctor, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    file = Path(doctor(KeyError("x")).stderr.split()[-1])
    assert file.parent == tmp_path and "Traceback" in file.read_text()


@pytest.mark.fault("C.environment")
def test_a_fault_of_the_disk_or_memory_is_no_fault_of_ours(doctor):
    result = doctor(OSError(28, "x", "/data/a"))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: /data/a: no space left on device; make room there")
    result = doctor(MemoryError())
    assert result.exit_code == 2 and result.stderr.startswith("error: out of memory")


@pytest.mark.fault("B.signals")
def test_an_interrupt_that_was_said_is_not_said_again(doctor):
    result = doctor(Stopped())
    assert result.exit_code == 130 and result.output == ""
    result = doctor(KeyboardInterrupt())
    assert result.exit_code == 130 and result.stderr.startswith("stopped; give the same command")


@pytest.mark.fault("E.terminal")
def test_names_from_outside_are_printed_harmlessly_by_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "\x1b[31mred\x9b\u202e" + os.fsdecode(b"\xff")
    for words in (["report", name], ["eval", name], ["generate", name], ["list", name],
                  ["distill", "--method", name], ["study", name], ["explain", name],
                  ["distill", "--method", "dfd", "--set", f"{name}=1"], ["assets", "get", name],
                  ["distill", "--method", "dmd2", "--model", name]):  # fmt: skip
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2, words
        printed = result.output.rstrip("\n")
        assert printed.count("\n") == 0 and printed.isprintable(), words


@pytest.mark.fault("E.terminal")
def test_shown_text_and_json_are_harmless(capsys):
    from dfdbench.cli.options import show

    name = "\x1b[31mred\udcff"
    show({"name": name}, True, "")
    assert json.loads(capsys.readouterr().out)["name"] == name
    show({}, False, f"one {name}\ntwo")
    assert capsys.readouterr().out == "one \\x1b[31mred\\udcff\ntwo\n"
