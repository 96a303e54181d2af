"""`make` in a folder with a Python that only notes how it was called."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from test_house import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")
INDEX = "https://download.pytorch.org/whl/cpu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile and what it installs from, with a .venv whose programs note their calls."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "dfdbench"):
        program = tmp_path / ".venv" / "bin" / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> calls\n')
        program.chmod(0o755)
    uname = tmp_path / "bin" / "uname"
    uname.parent.mkdir()
    uname.write_text("#!/bin/sh\necho ${SYSTEM:-Linux}\n")
    uname.chmod(0o755)
    return tmp_path


def make(folder: Path, *words: str, system: str = "Linux") -> tuple[int, str, list[str]]:
    """Exit code, output and calls of one `make`."""
    (folder / "calls").write_text("")
    path = f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["make", *words],
        cwd=folder,
        env={"PATH": path, "SYSTEM": system},
        capture_output=True,
        text=True,
        timeout=60,
    )
    calls = (folder / "calls").read_text().splitlines()
    return done.returncode, done.stdout + done.stderr, calls


def test_the_first_install_tells_what_comes_and_what_it_took(folder: Path) -> None:
    code, said, calls = make(folder, "quickstart")
    assert code == 0, said
    first, second, *_ = said.splitlines()
    assert "PyTorch with CUDA, about 7 GB" in first and "make quickstart TORCH=cpu saves" in first
    assert second.startswith("dfdbench installed in 0 min; .venv has ")
    assert [call for call in calls if call.endswith(" -e .")] and INDEX not in "".join(calls)
    assert calls[-1] == "dfdbench quickstart --out runs/quickstart"
    code, said, calls = make(folder, "quickstart")
    assert said == "" and calls == ["dfdbench quickstart --out runs/quickstart"]


def test_an_install_again_after_a_change_tells_no_sizes_that_are_not_coming(folder: Path) -> None:
    make(folder, "quickstart")
    old = time.time() - 60
    os.utime(folder / ".venv" / ".installed", (old, old))
    (folder / "constraints.txt").touch()
    code, said, _ = make(folder, "quickstart")
    assert code == 0 and "about 7 GB" not in said and "dfdbench installed in" in said


def test_wheels_without_cuda_come_from_pytorchs_own_index_and_only_if_asked_for(folder) -> None:
    code, said, calls = make(folder, "quickstart", "TORCH=cpu")
    assert code == 0 and "without CUDA, about 3 GB" in said
    torch, rest = (call for call in calls if "pip install" in call)
    assert torch.endswith(f"-c constraints.txt --no-deps --index-url {INDEX} torch torchvision")
    assert INDEX not in rest and rest.endswith(" -e .")


def test_a_system_whose_usual_wheels_have_no_cuda_takes_those(folder: Path) -> None:
    code, said, calls = make(folder, "quickstart", "TORCH=cpu", system="Darwin")
    assert code == 0 and "GB" not in said.splitlines()[0] and INDEX not in "".join(calls)


def test_another_torch_is_refused_and_a_venv_with_cuda_is_named(folder: Path) -> None:
    code, said, calls = make(folder, "quickstart", "TORCH=gpu")
    assert code == 2 and "TORCH=gpu is unknown; write TORCH=cpu" in said and calls == []
    (folder / ".venv/lib/python3.11/site-packages/nvidia").mkdir(parents=True)
    code, said, _ = make(folder, "quickstart", "TORCH=cpu")
    assert code == 0 and "make clean first" in said


def test_an_install_that_fails_leaves_no_stamp(folder: Path) -> None:
    program = folder / ".venv" / "bin" / "python"
    program.write_text("#!/bin/sh\nexit 1\n")
    code, said, _ = make(folder, "quickstart")
    assert code == 2 and "installed in" not in said
    assert not (folder / ".venv" / ".installed").exists()
    code, said, _ = make(folder, "quickstart", "TORCH=cpu")
    assert code == 2 and "PyTorch's index gave no such wheel" in said
