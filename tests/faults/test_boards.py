"""Boards and reports under kills, two writers at once, hostile names and hostile entries."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from score_runs import add_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.store import Store
from dfdbench.report.leaderboard.entries import digest
from dfdbench.report.leaderboard.render import rendered
from dfdbench.report.leaderboard.verify import verify
from dfdbench.utils.errors import UserError

DFD = "entries/b/dfd.json"


def call(*words: object):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ with DMD2 and DFD, boards/ with their entries; treat as read-only."""
    folder = tmp_path_factory.mktemp("made")
    for arm in ("dmd2", "dfd"):
        add_run(folder / "runs" / arm, arm, 0)
    boards = folder / "boards"
    assert (
        call("leaderboard", "add", folder / "runs", "--board", "b", "--folder", boards).exit_code
        == 0
    )
    assert call("leaderboard", "render", "--folder", boards).exit_code == 0
    return folder


@pytest.fixture
def boards(made: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(made / "boards", tmp_path / "boards"))


def edit(boards: Path, change) -> None:
    entry = json.loads((boards / DFD).read_text())
    change(entry)
    entry["sha256"] = digest(entry)
    (boards / DFD).write_text(json.dumps(entry))


@pytest.mark.fault("B.sweep")
@pytest.mark.parametrize("name", [".dfd.ab12cd34.json", ".dfd.1a2b3c4d.part.json"])
def test_what_a_killed_add_left_counts_for_nothing_and_is_swept(made, boards, name):
    shutil.copyfile(boards / DFD, boards / "entries/b" / name)
    shutil.copyfile(
        boards / "evidence/b/dfd.csv", boards / "evidence/b" / name.replace("json", "csv")
    )
    before = rendered(boards)
    assert verify(boards).faults == [] and verify(boards).measured == 2
    assert before["README.md"] == (boards / "README.md").read_text()
    done = call("leaderboard", "add", made / "runs/dfd", "--board", "b", "--folder", boards)
    assert done.exit_code == 0, done.output
    assert [p for p in boards.rglob(".*") if p.name != ".lock"] == []


ADD = [sys.executable, "-m", "dfdbench", "leaderboard", "add"]


@pytest.mark.fault("B.kill")
@pytest.mark.slow
@pytest.mark.parametrize("after", [0.5, 1.5, 2.0, 2.5, 3.0, 3.5])
def test_a_kill_at_any_time_leaves_boards_that_verify(made, boards, after):
    words = [*ADD, str(made / "runs"), "--board", "b", "--folder", str(boards)]
    work = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    work.send_signal(signal.SIGKILL)
    work.wait()
    faults = [f for f in verify(boards).faults if "not what the entries render to" not in f]
    assert faults == []
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.fault("B.lock")
def test_two_adds_at_once_both_count(made, tmp_path):
    words = [*ADD, "--board", "b", "--folder", str(tmp_path / "boards")]
    both = [subprocess.Popen([*words, str(made / "runs" / arm)]) for arm in ("dmd2", "dfd")]
    assert [work.wait(120) for work in both] == [0, 0]
    assert call("leaderboard", "render", "--folder", tmp_path / "boards").exit_code == 0
    verdict = verify(tmp_path / "boards")
    assert verdict.measured == 2 and verdict.faults == []


HOSTILE = {
    "html": "<img src=x onerror=alert(1)>",
    "comment": "<!-- x",
    "newline": "a\nb",
    "return": "a\rb",
    "separator": "a\u2028b",
    "escape": "\x1b[2Jx",
    "nul": "a\x00b",
    "turned": "a\u202eb",
}


@pytest.mark.fault("E.names")
@pytest.mark.parametrize("field", ["name", "suite", "created"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_names_that_are_markup_or_more_than_a_line_do_not_verify(boards, kind, field):
    text = HOSTILE[kind]
    places = {"name": lambda e: e.update(name=text),
              "suite": lambda e: e["suite"].update(version=text),
              "created": lambda e: e["provenance"].update(created=text)}  # fmt: skip
    edit(boards, places[field])
    done = call("leaderboard", "verify", "--folder", boards)
    assert done.exit_code == 1
    says = "holds HTML" if kind in ("html", "comment") else "holds a control character"
    assert any(says in line for line in done.stdout.splitlines())
    assert not set(done.stdout) & set("\x1b\x00\r\u2028\u202e")
    texts = rendered(boards)  # and whoever renders them anyway shows letters
    assert "<img" not in texts["README.md"] + texts["index.html"]
    assert not set("".join(texts.values())) & set("\x1b\x00\u202e")


@pytest.mark.fault("E.names")
@pytest.mark.parametrize("kind", HOSTILE)
def test_such_names_are_not_added(made, tmp_path, kind):
    words = ["add", made / "runs/dfd", "--board", "b", "--name", f"n{HOSTILE[kind]}"]
    done = call("leaderboard", *words, "--folder", tmp_path / "boards")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.fault("A2")
@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(name="real clips"),
        lambda e: e.update(name="Real_clips (reference)"),
        lambda e: e.update(name="teacher"),
        lambda e: e.update(name="DMD2"),
    ],
)
def test_an_entry_named_after_another_method_does_not_verify(boards, change):
    edit(boards, change)
    assert any("and the clips are of dfd" in fault for fault in verify(boards).faults)


@pytest.mark.fault("A2")
def test_a_methods_clips_as_real_clips_do_not_verify(made, boards, tmp_path):
    """As `eval --reference FOLDER` once named a teacher's clips."""
    run = Path(shutil.copytree(made / "runs/dfd", tmp_path / "run"))
    (run / "run.json").unlink()
    with Store(run / "scores.sqlite") as store:
        store._db.execute("UPDATE samples SET method = 'real'")
        store._db.execute("UPDATE groups SET method = 'real'")
        store._db.commit()
    done = call("leaderboard", "add", run, "--board", "b", "--folder", boards)
    assert done.exit_code == 0, done.output
    assert any("real.json: its clips are those of" in fault for fault in verify(boards).faults)
    done = call("leaderboard", "add", made / "runs/dfd", "--board", "b", "--name", "real clips",
                "--folder", boards)  # fmt: skip
    assert done.exit_code == 2 and "is what real is called" in done.stderr


NAMES = ["$x$", "$", "a $\\frac{", "\\alpha_{", "%s {0} {x}", "😀🎬", "日本語", "x" * 3000,
         "_hidden",
         "<img src=x onerror=alert(1)>", "a|b`c", "[x](http://y)", "=1+1", "@x", "a&b;", "\u202ex",
         "a\nb", "\x1b[31m", "^{", "~"]  # fmt: skip


@pytest.mark.fault("C.figures", "E.markdown", "E.html", "E.csv")
def test_any_name_and_prompt_goes_through_a_whole_report(tmp_path):
    add_run(tmp_path / "run", "dfd", 0)
    store = tmp_path / "run/scores.sqlite"
    for i, name in enumerate(NAMES):
        shutil.copyfile(store, tmp_path / f"{i}.sqlite")
        with Store(tmp_path / f"{i}.sqlite") as opened:
            for table in ("samples", "groups"):
                opened._db.execute(f"UPDATE {table} SET method = ?", (name,))
            opened._db.execute("UPDATE samples SET prompt = ?, path = 'run/' || path", (name,))
            opened._db.commit()
    done = call("report", *sorted(tmp_path.glob("*.sqlite")), "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert (out / "figures/seed-grid.png").is_file()
    from xml.etree import ElementTree

    for svg in out.glob("figures/*.svg"):
        ElementTree.parse(svg)
    for name in ("report.md", "index.html", "deltas.md", "table.md"):
        text = (out / name).read_text(encoding="utf-8")
        assert "<img src=x" not in text and not set(text) & set("\x1b\u202e\x00")
    with open(out / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} >= {"'=1+1", "'@x", "a\nb"}


@pytest.mark.fault("C.clips")
@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_a_clip_broken_after_scoring_is_named_and_the_report_goes_on(tmp_path, content):
    add_run(tmp_path / "dfd", "dfd", 0)
    clip = tmp_path / "dfd/videos/toy-t2v/ball-desert/2.mp4"
    clip.write_bytes(clip.read_bytes()[:300] if content is None else content)
    done = call("report", tmp_path / "dfd", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out/report.md").read_text()
    assert "## Left out" in text and "2.mp4" in text
    assert (tmp_path / "out/figures/seed-grid.png").is_file()


HUGE = [
    float("nan"),
    float("inf"),
    1e308,
    -1e300,
    10**400,
    2**70,
    "0.5",
    None,
    True,
    [],
    {},
    "x" * 5000,
]
VALUES = st.one_of(st.sampled_from(HUGE), st.text(max_size=8), st.integers(), st.floats())


def paths_of(value, at=()):
    yield at
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in parts:
        yield from paths_of(part, (*at, key))


@pytest.mark.fault("F.entry")
@settings(derandomize=True, max_examples=30, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_any_entry_is_verified_in_lines_and_rendered_or_refused(made, tmp_path, data):
    boards = tmp_path / "boards"
    if not boards.exists():
        shutil.copytree(made / "boards", boards)
    entry = json.loads((made / "boards" / DFD).read_text())
    places = [place for place in paths_of(entry) if place]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places))
        part = entry
        try:
            for key in place[:-1]:
                part = part[key]
            if data.draw(st.booleans()):
                part[place[-1]] = data.draw(VALUES)
            else:
                del part[place[-1]]
        except (KeyError, IndexError, TypeError):  # the first change took it away
            continue
    with suppress(ValueError):
        entry["sha256"] = digest(entry)
    text = json.dumps(entry)
    if data.draw(st.integers(0, 4)) == 0:
        text = text[: data.draw(st.integers(0, len(text)))]
    (boards / DFD).write_text(text)
    verdict = verify(boards)
    assert all("\n" not in fault for fault in verdict.faults)
    if verdict.faults:  # else it was rendered for the verdict
        try:
            rendered(boards)
        except UserError as error:
            assert "\n" not in str(error)
    assert (boards / DFD).read_text() == text


@pytest.mark.fault("C.entry")
@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "{", "[" * 5000, "\ufeff{}", '{"schema": 1}',
     '{"kind": "measured", "schema": 1}'],
)  # fmt: skip
def test_a_torn_entry_is_one_line(made, boards, content):
    (boards / DFD).write_text(content)
    assert call("leaderboard", "verify", "--folder", boards).exit_code == 1
    for words in (["render"], ["add", made / "runs/dmd2", "--board", "b"]):
        done = call("leaderboard", *words, "--folder", boards)
        assert (
            done.exit_code in (0, 2)
            and done.stderr.count("\n") <= 1
            and "Traceback" not in done.output
        )


@pytest.mark.fault("C.board")
def test_there_is_no_board_where_nothing_is(tmp_path):
    done = call("leaderboard", "render", "--folder", tmp_path / "none")
    assert done.exit_code == 2 and "no entries" in done.stderr and os.listdir(tmp_path) == []
