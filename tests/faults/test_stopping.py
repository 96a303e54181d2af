"""Signals and two at once: one line, a checkpoint, and the work goes on where it was."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from calls import SMALL, invoke, refused, sets, start
from safetensors.torch import load_file

from dfdbench.distill import checkpoint
from dfdbench.distill.loop import Trainer, distill
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.run import Run
from dfdbench.utils.stopping import LINE, Stopped, deferred, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONG = ("schedule.student_updates=5000", "checkpoint.every_seconds=1e9")
LIMIT_SECONDS = 120


@pytest.fixture(autouse=True)
def heeded():
    """Signals as a terminal's programs have them: a shell's background jobs ignore some."""
    before = {n: signal.getsignal(n) for n in SIGNALS}
    for number in SIGNALS:
        heed = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, heed)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def weights(run: Run) -> dict:
    return load_file(run.student / "transformer" / "diffusion_pytorch_model.safetensors")


def updates(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count('"kind": "update"') if file.is_file() else 0


def wait_for(run: Path, least: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while updates(run) < least:
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.05)


@pytest.mark.fault("B.signals")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_signal_is_one_line_and_a_keyboard_interrupt(number, capfd):
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Stopped), interruptible():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert capfd.readouterr().err == f"{LINE}\n"
    assert [signal.getsignal(n) for n in SIGNALS] == before
    assert "give the same command again" in LINE and "--resume" in LINE


@pytest.mark.fault("B.signals")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_deferred_signal_is_noted_and_said_once(number, capfd):
    with deferred() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        if number != signal.SIGINT:  # twice Ctrl-C ends at once
            os.kill(os.getpid(), number)
        assert stop.requested
    assert capfd.readouterr().err == f"{LINE}\n"


@pytest.mark.fault("B.signals")
def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible(), deferred() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.fault("B.signals")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("at", [1, 2])
def test_training_stops_with_a_checkpoint_and_goes_on_to_the_same_weights(
    at, number, tiny_checkpoint, tmp_path, monkeypatch, finished
):
    recipe = load_recipe("toy/dmd2", [f"model={tiny_checkpoint}", *SMALL])
    cycle = Trainer.cycle

    def signalled(self, update):
        cycle(self, update)
        if update == at:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "cycle", signalled)
        with pytest.raises(Stopped):
            distill(recipe, tmp_path / "run")
    assert [p.name for p in checkpoint.complete(tmp_path / "run" / "checkpoints")] == [f"step-{at}"]
    assert updates(tmp_path / "run") == at
    resumed, whole = distill(recipe, tmp_path / "run", resume=True), Run.open(finished)
    assert resumed.info["student_sha256"] == whole.info["student_sha256"]
    assert resumed.metrics_file.read_text() == whole.metrics_file.read_text()
    assert not [p for p in resumed.path.rglob(".*") if p.name != ".lock"]


@pytest.mark.fault("B.signals", "B.lock")
def test_a_run_is_held_by_one_process_and_stopped_by_a_line(tiny_checkpoint, tmp_path):
    out = tmp_path / "run"
    words = ("distill", "--method", "dmd2", "--model", tiny_checkpoint, *sets((*SMALL, *LONG)))
    first = start(*words, "--out", out)
    try:
        wait_for(out, 2, first)
        line = refused(*words, "--out", out, "--resume")
        assert f"{out} is in use by process {first.pid} on " in line
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=LIMIT_SECONDS)
    finally:
        first.kill()
    assert first.returncode == 130
    assert said.count(LINE) == 1 and "Traceback" not in said and "error" not in said
    (kept,) = checkpoint.complete(out / "checkpoints")
    assert kept.name == f"step-{updates(out)}", "nothing that was trained is lost"


STUDY = """
seeds = 1
set = [{sets}]
[arms.dmd2]
recipe = "toy/dmd2"
[arms.other]
recipe = "toy/dmd2"
"""


@pytest.mark.slow
@pytest.mark.fault("B.signals", "B.lock")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_study_stops_its_processes_and_goes_on(processes, number, tiny_checkpoint, tmp_path):
    file, out = tmp_path / "study.toml", tmp_path / "out"
    file.write_text(STUDY.format(sets=", ".join(f'"{value}"' for value in (*SMALL, *LONG))))
    words = ("study", file, "--model", tiny_checkpoint, "--processes", processes, "--out", out)
    first, run = start(*words), out / "runs" / "dmd2-seed0"
    try:
        wait_for(run, 2, first)
        assert "is in use by process" in refused(*words)
        first.send_signal(number)
        _, said = first.communicate(timeout=LIMIT_SECONDS)
    finally:
        first.kill()
    assert "Traceback" not in said and said.count(LINE) == (number == signal.SIGTERM)
    time.sleep(0 if number == signal.SIGTERM or processes == 1 else 10)  # orphans see it
    before = updates(run)
    time.sleep(2)
    assert updates(run) == before, "no process of the study is left"
    if number == signal.SIGTERM or processes == 2:
        assert checkpoint.complete(run / "checkpoints")


@pytest.mark.fault("B.signals")
def test_generation_is_stopped_with_its_finished_clips_noted(tiny_checkpoint, tmp_path):
    out = tmp_path / "real"
    words = ("generate", "--arm", "real", "--model", tiny_checkpoint, "--out", out, "--batch", 1)
    process = start(*words, "--seeds", "1-50")
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while len(list(out.rglob("*.mp4"))) < 4 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130 and said.count(LINE) == 1 and "Traceback" not in said
    noted = (out / "videos/toy-t2v/samples.jsonl").read_text().count("\n")
    made = [p for p in out.rglob("*.mp4") if not p.name.startswith(".")]
    assert noted == len(made) >= 4
    assert not [p for p in out.rglob("*.part*")]


@pytest.mark.fault("B.lock")
def test_two_encodings_into_one_folder_are_one(clips, tiny_checkpoint, tmp_path):
    from dfdbench.utils.folders import locked

    words = ("data", "encode", clips, "--model", tiny_checkpoint, "--out", tmp_path / "latents")
    with locked(tmp_path / "latents"):
        assert "is in use by process" in refused(*words)
    with locked(tmp_path / "latents", "1-of-2"):
        assert "is in use by process" in refused(*words, "--shard", "1/2")
        assert invoke(*words, "--shard", "2/2").exit_code in (0, 2)
    assert invoke(*words).exit_code == 0


@pytest.mark.fault("B.lock")
def test_two_trainings_of_the_toy_into_one_folder_are_one(tiny_checkpoint, tmp_path):
    from dfdbench.utils.folders import locked

    with locked(tmp_path / "toy"):
        words = ("toy", "train", "--out", tmp_path / "toy")
        assert "is in use by process" in refused(*words)
        assert "is in use by process" in refused(*words, "--t2v", tiny_checkpoint)
