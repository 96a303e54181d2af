"""Messages: one line that does nothing to a terminal; faults of disk and memory become one."""

import errno
import json
import pickle
import sqlite3

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from dfdbench.utils.errors import (
    OutOfMemory,
    UserError,
    as_user_error,
    clean,
    clean_json,
    is_out_of_memory,
    memory_remedy,
    pass_out_of_memory,
)
from dfdbench.utils.progress import Bar, say

NASTY = {
    "a\x1b[31mred\x1b[0m": r"a\x1b[31mred\x1b[0m",
    "two\nlines": r"two\nlines",
    "back\rto the start": r"back\rto the start",
    "bell\x07": r"bell\x07",
    "c1\x9b31m": r"c1\x9b31m",
    "line\u2028separator": r"line\u2028separator",
    "override\u202etxt": r"override\u202etxt",
    "bytes\udcff": r"bytes\udcff",
    "nul\0": r"nul\x00",
    "Grüße, 猫 — 🎬": "Grüße, 猫 — 🎬",
}


@pytest.mark.fault("E.terminal")
@pytest.mark.parametrize("text", NASTY)
def test_control_characters_are_never_printed_raw(text, capsys):
    assert clean(text) == NASTY[text] == clean(clean(text))
    assert str(UserError(text)) == NASTY[text]
    say(text)
    with Bar(2, text) as bar:
        bar.step(2, note=text)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == NASTY[text] and len(lines) == 2
    assert lines[1].startswith(NASTY[text]) and lines[1].endswith(NASTY[text])


@pytest.mark.fault("E.terminal")
@pytest.mark.parametrize("text", NASTY)
def test_json_output_keeps_the_text_by_its_own_escapes(text):
    printed = clean_json(json.dumps({"name": text}, ensure_ascii=False, indent=2))
    assert json.loads(printed) == {"name": text}
    assert printed == "\n".join(map(clean, printed.split("\n")))


@pytest.mark.fault("E.terminal")
def test_a_bar_takes_no_markup_from_a_name():
    from rich.console import Console

    from dfdbench.utils.progress import _display

    console = Console(record=True, width=100, force_terminal=True)
    with _display(console) as display:
        display.add_task("[red]arm[/red] [/]", total=1, rate="", note="[link=x]y")
    assert "[red]arm[/red] [/]" in console.export_text()


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "x", "/a/b"), "/a/b: no space left on device; make room"),
        (OSError(errno.EROFS, "x", "/a/b"), "/a/b: read-only file system; name a place"),
        (PermissionError(errno.EACCES, "x", "/a/b"), "/a/b: permission denied; name another"),
        (OSError(errno.ENAMETOOLONG, "x", "/a/b"), "/a/b: file name too long; shorten it"),
        (NotADirectoryError(errno.ENOTDIR, "x", "/a/b"), "/a/b: not a directory; what is there"),
        (IsADirectoryError(errno.EISDIR, "x", "/a/b"), "/a/b: is a directory; what is there"),
        (OSError(errno.EMFILE, "x"), "too many open files; raise the limit"),
        (OSError("in words alone"), "in words alone; check the path"),
        (MemoryError("cannot allocate 9 GB"), "out of memory (cannot allocate 9 GB); close other"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory (CUDA out of mem"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "/a/b"), "out of memory ("),
        (sqlite3.OperationalError("disk full"), "score store: disk full; check the file"),
    ],
)
def test_faults_of_the_machine_become_one_line_with_a_remedy(error, says):
    found = as_user_error(error)
    assert isinstance(found, UserError) and str(found).startswith(says)


def refused(kind: str) -> Exception:
    """What a library says when it gets no memory."""
    try:
        if kind == "torch on a CPU":
            torch.empty(10**15)
        elif kind == "numpy":
            np.empty(10**15)
    except Exception as error:
        return error
    return {
        "torch on a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "CUDA": RuntimeError("CUDA error: out of memory"),
        "cuBLAS": RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        "oneDNN": RuntimeError("could not create a primitive: std::bad_alloc"),
        "safetensors": SafetensorError("I/O error: Cannot allocate memory (os error 12)"),
    }[kind]


@pytest.mark.fault("C.environment")
@pytest.mark.parametrize(
    "kind", ["torch on a CPU", "numpy", "torch on a GPU", "CUDA", "cuBLAS", "oneDNN", "safetensors"]
)
def test_every_librarys_failed_allocation_is_told_from_other_errors(kind):
    error = refused(kind)
    assert is_out_of_memory(error), repr(error)
    with pytest.raises(type(error)) as raised:
        pass_out_of_memory(error)
    assert raised.value is error
    says = r"^out of memory \(.*\); lower --batch$"
    with pytest.raises(OutOfMemory, match=says) as told, memory_remedy("lower --batch"):
        raise error
    again = pickle.loads(pickle.dumps(told.value))  # from a process of a study
    assert str(again) == str(told.value) and isinstance(again, OutOfMemory)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[2]' is invalid for input of size 3"),
        ValueError("/clips/out of memory.mp4: no video"),
        UserError("a clip called out of memory"),
        SafetensorError("header too large"),
        OSError(errno.ENOSPC, "x"),
    ],
)
def test_other_errors_are_no_failed_allocations(error):
    assert not is_out_of_memory(error)
    pass_out_of_memory(error)
    with pytest.raises(type(error)) as raised, memory_remedy("lower --batch"):
        raise error
    assert raised.value is error


def test_of_several_remedies_the_commands_own_counts():
    processes, batch = memory_remedy("fewer --processes"), memory_remedy("smaller --batch")
    with pytest.raises(OutOfMemory) as told, processes, batch:
        raise MemoryError("no 9 GB")
    assert str(told.value) == "out of memory (no 9 GB); fewer --processes"


def test_other_errors_do_not():
    assert as_user_error(ValueError("x")) is None and as_user_error(KeyError("x")) is None
    error = UserError("mine")
    assert as_user_error(error) is error
