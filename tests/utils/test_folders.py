"""One writer a folder: the second is refused with the name of the first."""

import os
import subprocess
import sys
import time

import pytest

from dfdbench.utils.errors import UserError
from dfdbench.utils.folders import locked

HOLD = """
import sys, time
from pathlib import Path
from dfdbench.utils.folders import locked
with locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """Start a process that holds a folder, or a part of it."""
    started = []

    def hold(folder, part=""):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), part], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "held\n"
        started.append(process)
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.fault("B.lock")
def test_the_second_writer_is_refused_with_the_name_of_the_first(tmp_path, holder):
    first = holder(tmp_path / "run")
    start = time.monotonic()
    with pytest.raises(UserError) as caught, locked(tmp_path / "run"):
        pass
    says = str(caught.value)
    assert says.startswith(f"{tmp_path / 'run'} is in use by process {first.pid} on ")
    assert says.endswith("wait until that has ended, or stop it, then give the same command again")
    assert time.monotonic() - start < 2


@pytest.mark.fault("B.lock")
def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, holder):
    first = holder(tmp_path / "run")
    first.kill()
    first.wait()
    with locked(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / ".lock").read_text()
    with locked(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.fault("B.lock")
def test_parts_of_a_folder_are_held_apart(tmp_path, holder):
    holder(tmp_path, "1-of-2")
    with locked(tmp_path, "2-of-2"):
        pass
    with pytest.raises(UserError, match="is in use"), locked(tmp_path, "1-of-2"):
        pass


@pytest.mark.fault("B.lock")
def test_one_process_does_not_hold_a_folder_twice(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="is in use"), locked(tmp_path):
        pass


@pytest.mark.fault("C.output")
def test_what_cannot_be_held_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError) as caught, locked(folder):
            pass
        assert caught.value.filename
    assert (tmp_path / "file").read_text() == "x"
