"""`import dfdbench`: the four functions, each a room that can be called, and the chain of them."""

import inspect
import json
import pydoc
import subprocess
import sys
from importlib import import_module

import pytest

import dfdbench
from dfdbench.evaluate.summary import Summary
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

HOMES = {
    "distill": "dfdbench.distill.distillation",
    "generate": "dfdbench.generate.generation",
    "evaluate": "dfdbench.evaluate.evaluation",
    "report": "dfdbench.report.page",
}  # function -> module that holds it, which the command of that name calls
TINY = (
    "data.count=4", "optim.batch=2", "student.steps=1", "schedule.student_updates=1",
    "log.every=1", "log.probe_every=0", "log.decode_every=0",
)  # fmt: skip


def test_importing_the_package_loads_no_library_and_asking_for_a_room_no_torch():
    code = (
        "import sys, dfdbench; before = set(sys.modules); assert callable(dfdbench.evaluate); "
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'rich', 'typer'}; "
        "sys.exit(len(heavy & (before | set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", HOMES)
def test_a_room_has_call_signature_and_documentation_of_its_function(name):
    room, function = getattr(dfdbench, name), getattr(import_module(HOMES[name]), name)
    assert room is import_module(f"dfdbench.{name}") and inspect.ismodule(room)
    assert inspect.signature(room) == inspect.signature(function)
    text = pydoc.render_doc(room, renderer=pydoc.plaintext)
    for parameter in inspect.signature(function).parameters:
        assert parameter in text
    assert inspect.getdoc(function).splitlines()[0] in text
    assert name in dir(dfdbench)


def test_a_room_calls_the_function_that_its_module_holds_now(monkeypatch):
    monkeypatch.setattr("dfdbench.report.page.report", lambda *args, **named: (args, named))
    assert dfdbench.report(["a"], out="b") == ((["a"],), {"out": "b"})


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'dfdbench' has no attribute 'evalute'"):
        dfdbench.evalute  # noqa: B018


def test_the_chain_from_a_method_to_a_page(tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    run = dfdbench.distill("dmd2", model=str(tiny_checkpoint), seed=3, changes=TINY)
    assert isinstance(run, Run) and run.path.as_posix() == "runs/dmd2-seed3"
    samples = dfdbench.generate(run, seeds=[1, 2])
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert samples.name == "samples.jsonl" and {row["seed"] for row in rows} == {1, 2}
    assert dfdbench.generate(str(run.path), seeds=[2]) == samples
    real = dfdbench.generate(arm="real", model=str(tiny_checkpoint), out="runs/real", seeds=[1])
    assert real.as_posix() == "runs/real/videos/toy-t2v/samples.jsonl"
    summary = dfdbench.evaluate(
        [samples], suite="toy-t2v", metrics="colour", out=tmp_path / "scores"
    )
    assert isinstance(summary, Summary) and summary.scored == len(rows)
    page = dfdbench.report(["scores"], "page")
    assert page.as_posix() == "page/index.html" and page.is_file()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: dfdbench.distill(), "teacher_forcing, ode_init, or --recipe"),
        (lambda: dfdbench.distill("dmd3"), "did you mean dmd2"),
        (lambda: dfdbench.generate(), "name either a run folder or --arm"),
        (lambda: dfdbench.generate("nowhere"), "nowhere is not a run folder"),
        (lambda: dfdbench.report(["nowhere"], "page"), "nowhere: no such run, folder or store"),
    ],
)
def test_faults_are_user_errors(call, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        call()
    assert list(tmp_path.iterdir()) == []
