"""One display a terminal, whatever nests or counts in threads; plain lines elsewhere."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dfdbench.utils import progress
from dfdbench.utils.progress import Bar, track


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rich take stderr for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let rich take stderr for a file, and a line be due at every step."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress, "PLAIN_EVERY_SECONDS", -1.0)
    yield
    assert not progress._shown


def test_bars_that_nest_share_one_display(terminal: None) -> None:
    with Bar(2, "outer") as outer:
        with Bar(3, "inner") as inner:
            assert inner.display is outer.display
            assert [t.description for t in outer.display.tasks] == ["outer", "inner"]
            inner.step(note="loss 1")
        assert [t.description for t in outer.display.tasks] == ["outer"]
        assert outer.display.live.is_started
    assert not outer.display.live.is_started and not progress._shown


def test_an_error_inside_closes_the_display(terminal: None) -> None:
    with pytest.raises(RuntimeError), Bar(1, "a") as bar:
        raise RuntimeError
    assert not bar.display.live.is_started and not progress._shown


def test_threads_lose_no_step(plain: None) -> None:
    with Bar(400, "clips") as bar, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bar.step(), range(400)))
    assert bar.count == 400


def test_plain_lines_show_count_rate_time_left_and_note(
    plain: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar(5, "clips", done=2) as bar:
        bar.step(note="loss 1")
        bar.step(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("clips: 3/5 in 0:00 (") and first.endswith(" left) loss 1")
    assert last.startswith("clips: 5/5 in 0:00 (") and last.endswith("/s) loss 1")


@pytest.mark.parametrize(
    ("items", "seconds", "shown"),
    [(10, 4.0, "2.50/s"), (3, 3.0, "1.00/s"), (2, 9.0, "4.5 s each"), (1, 130.0, "130.0 s each"),
     (0, 5.0, "0.00/s"), (1, 0.0, "1000000000.00/s")],
)  # fmt: skip
def test_below_one_a_second_the_seconds_of_each_are_shown(items, seconds, shown) -> None:
    assert progress.pace(items, seconds) == shown


def test_a_quiet_bar_says_nothing(plain: None, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(2, "rank 1", quiet=True) as bar:
        bar.step(2)
    assert capsys.readouterr().err == "" and bar.count == 2


def test_tracked_items_come_through(plain: None) -> None:
    assert list(track([1, 2, 3], "items")) == [1, 2, 3]
