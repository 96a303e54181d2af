"""The display of a study's runs: time left from updates and clips, one display, few lines."""

import contextlib
import os
import pty
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from screen import lines_of

from dfdbench.cli import board as board_module
from dfdbench.cli.board import Board
from dfdbench.cli.forecast import Forecast, Planned, schedule
from dfdbench.cli.jobs import Job, _Lines, side_by_side
from dfdbench.utils import progress
from dfdbench.utils.progress import Bar, Report, say, send_to


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def planned(name, updates=100, clips=0, parent=None, arm=None):
    amounts = {"train": updates, "generate": clips, "score": clips}
    return Planned(name, arm or name, updates > 0, amounts, parent)


def training(count, seconds, total=100, first=0):
    return Report("training", count, total, first, seconds, stage="train")


def forecast(*runs, processes=2):
    return Forecast({run.name: run for run in runs}, processes)


def test_time_left_counts_updates_not_runs():
    """One short run of ten updates is done, a run of a thousand has hardly begun."""
    time_left = forecast(planned("short", 10), planned("long", 1000))
    time_left.take("short", training(10, 5.0, 10), 5.0)
    time_left.over.add("short")
    time_left.running = ["long"]
    time_left.take("long", training(100, 50.0, 1000), 50.0)
    assert time_left.left(50.0) == pytest.approx(450.0)


def test_updates_of_an_earlier_call_are_no_part_of_the_rate():
    time_left = forecast(planned("a"))
    time_left.running = ["a"]
    time_left.take("a", training(60, 20.0, first=50), 20.0)
    assert time_left.left(20.0) == pytest.approx(80.0)


def test_between_two_reports_the_time_left_goes_down():
    time_left = forecast(planned("a"))
    time_left.running = ["a"]
    time_left.take("a", training(50, 50.0), 50.0)
    assert time_left.left(60.0) == pytest.approx(40.0) and time_left.left(500.0) == 0.0


def test_work_of_which_nothing_was_done_yet_leaves_the_time_open():
    time_left = forecast(planned("a", 100, clips=8))
    time_left.running = ["a"]
    time_left.take("a", training(50, 50.0), 50.0)
    assert time_left.left(50.0) is None
    time_left.take("a", Report("g", 2, 8, 0, 4.0, stage="generate"), 60.0)
    assert time_left.left(60.0) is None
    time_left.take("a", Report("s", 2, 8, 0, 1.0, stage="score"), 70.0)
    assert time_left.left(70.0) == pytest.approx(3.0)


def test_a_run_counts_at_its_own_rate_else_at_its_arms_else_at_its_kinds():
    runs = [planned("dmd2-0", arm="dmd2"), planned("dmd2-1", arm="dmd2"),
            planned("dfd-0", arm="dfd"), planned("teacher", 0, 10), planned("new")]  # fmt: skip
    time_left = forecast(*runs, processes=1)
    time_left.take("dmd2-0", training(100, 100.0), 0.0)
    time_left.take("dfd-0", training(100, 300.0), 0.0)
    time_left.take("teacher", Report("g", 10, 10, 0, 50.0, stage="generate"), 0.0)
    assert time_left._each(runs[1], "train") == pytest.approx(1.0)
    assert time_left._each(runs[2], "train") == pytest.approx(3.0)
    assert time_left._each(runs[4], "train") == pytest.approx(2.0)
    assert time_left._each(runs[4], "generate") == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("seconds", "parents", "running", "processes", "expected"),
    [
        ({}, {}, [], 2, 0.0),
        ({"a": 5.0, "b": 3.0}, {}, ["a"], 1, 8.0),
        ({"a": 5.0, "b": 3.0}, {}, ["a", "b"], 2, 5.0),
        ({"a": 5.0, "b": 3.0, "c": 4.0}, {}, ["a", "b"], 2, 7.0),
        ({"a": 5.0, "b": 3.0}, {"b": "a"}, ["a"], 2, 8.0),  # a child waits, a process idles
        ({"a": 5.0, "b": 3.0, "c": 1.0}, {"b": "a"}, ["a"], 2, 8.0),
        ({"a": 0.0, "b": 0.0}, {"b": "a"}, ["a"], 1, 0.0),
        ({"b": 3.0}, {"b": "gone"}, [], 1, 3.0),
    ],
)
def test_the_schedule_is_that_of_the_processes(seconds, parents, running, processes, expected):
    assert schedule(seconds, parents, running, processes) == expected


@pytest.fixture
def plain(monkeypatch):
    """Let rich take stderr for a file."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_terminal_a_run_prints_a_line_every_half_minute(plain, capsys):
    clock = Clock()
    with Board([planned("a", 1000), planned("b", 1000)], 2, clock) as board:
        board.begin("a")
        board.begin("b")
        for second in range(1, 121):
            clock.seconds = float(second)
            board.take("a", training(second, float(second), 1000))
            board.take("b", training(2 * second, float(second), 1000))
        board.end("b", "b done in 2:00")
    lines = capsys.readouterr().err.splitlines()
    assert sum(": training" in line for line in lines) == 2 * 4
    assert lines[0].startswith("[ 0:30] a: training 30/1000 (1.00/s, 16:10 left)")
    assert "[ 2:00] total: 0 of 2 runs, about 14:40 left" in lines
    assert lines[-1] == "[ 2:00] b done in 2:00" and all(len(line) < 80 for line in lines)


def test_a_run_that_stands_still_prints_no_line_again(plain, capsys):
    clock = Clock()
    with Board([planned("a")], 1, clock) as board:
        board.begin("a")
        board.take("a", training(1, 70.0))
        for _ in range(5):
            clock.seconds += 31.0
            board.tick()
    lines = capsys.readouterr().err.splitlines()
    assert [line[8:] for line in lines] == [
        "a: training 1/100 (70.0 s each, 1:55:30 left)",
        "total: 0 of 1 runs, about 1:54:59 left",
    ]


def on_a_terminal(monkeypatch, work):
    """What `work` writes on stderr when that is a terminal of 150 columns."""
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    leader, follower = pty.openpty()
    with ThreadPoolExecutor(1) as reader:
        written = reader.submit(read_all, leader)
        with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            work()
        return written.result()


def read_all(leader):
    """What comes out of a terminal's other side until it is closed."""
    text = b""
    with contextlib.suppress(OSError), os.fdopen(leader, "rb", buffering=0) as stream:
        while piece := stream.read(65536):  # at the end Linux raises
            text += piece
    return text.decode()


def test_a_terminal_has_one_line_a_running_run_and_one_total(monkeypatch):
    clock = Clock()

    def work():
        with Board([planned(name) for name in "abc"], 2, clock) as board:
            for name in "ab":
                board.begin(name)
            clock.seconds = 10.0
            board.take("a", training(40, 10.0))
            board.take("b", training(5, 10.0))
            board.take("b", "warning: x")
            board.end("a", "a done in 0:10")
            board.begin("c")
            board.take("c", training(1, 2.0))

    lines = lines_of(on_a_terminal(monkeypatch, work))
    assert lines[:2] == ["[ 0:10] b: warning: x", "[ 0:10] a done in 0:10"]
    assert [line.split()[0] for line in lines[2:]] == ["total", "b:", "c:"]
    assert "1 of 3 runs" in lines[2] and re.search(r"about \d+:\d\d left", lines[2])
    assert "training" in lines[3] and "5/100" in lines[3] and "2.0 s each" in lines[3]


def shown_run(job):
    """In a process of a study: a bar, a line of ours and one of a library, in place of a run."""
    import dfdbench.cli.jobs as jobs

    jobs._name = job.path.name
    with Bar(4, job.path.name, stage="train") as bar:
        for _ in range(4):
            bar.step()
            time.sleep(0.2)
    say("of ours")
    print("of a library")
    return 1.0


@pytest.mark.slow
@pytest.mark.parametrize("live", [True, False])
def test_processes_share_the_one_display(tmp_path, monkeypatch, live, capsys):
    monkeypatch.setattr("dfdbench.cli.jobs._run_in_worker", shown_run)
    monkeypatch.setattr(board_module, "PLAIN_EVERY_SECONDS", 0.0)
    amounts = {"train": 4}
    jobs = [Job(f"r{i}", tmp_path / f"r{i}", "m", range(1), 1, "s", amounts=amounts)
            for i in range(3)]  # fmt: skip
    if live:
        text = on_a_terminal(monkeypatch, lambda: side_by_side(jobs, 2, []))
        lines = lines_of(text)
        assert lines[-1].startswith("total") and "3 of 3 runs" in lines[-1]
        lines = lines[:-1]
    else:
        side_by_side(jobs, 2, [])
        lines = capsys.readouterr().err.splitlines()
        assert any(re.search(r"\] r0: training \d/4 \(", line) for line in lines)
    told = {line[8:] for line in lines}
    assert {f"r{i}: {text}" for i in range(3) for text in ("of ours", "of a library")} <= told
    assert {f"r{i} done in 0:01" for i in range(3)} <= told
    assert all(re.match(r"\[ 0:\d\d\] (r\d|total)", line) for line in lines)


def test_a_handed_over_bar_shows_nothing_here_and_reports_now_and_then(capsys, monkeypatch):
    news = []
    send_to(news.append)
    try:
        with Bar(1000, "clips", done=10, stage="score") as bar:
            for _ in range(990):
                bar.step(note="n")
        say("line\x1b")
        with Bar(3, "rank 1", quiet=True) as bar:
            bar.step()
    finally:
        send_to(None)
    assert news[0] == Report("clips", 10, 1000, 10, news[0].seconds, "", "score")
    assert (news[-2].count, news[-2].note, news[-1]) == (1000, "n", r"line\x1b")
    assert len(news) < 10 and capsys.readouterr().err == "" and not progress._shown


def test_what_a_library_prints_becomes_lines():
    news = []
    send_to(news.append)
    try:
        stream = _Lines()
        for text in ("a", "b\nc", "\r\n", "\n  \nd"):
            stream.write(text)
    finally:
        send_to(None)
    assert news == ["ab", "c"] and not stream.isatty()
