"""Score stores that are none, are damaged, read-only or in use: one line, and never a write."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from score_runs import add_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.evaluate.schema import SCHEMA
from dfdbench.evaluate.store import Store
from dfdbench.utils.errors import UserError

PREVIOUS = Path(__file__).parents[1] / "previous"
READERS = ("report STORE --out OUT", "merge STORE --out OUT", "leaderboard add STORE --board b "
           "--folder OUT", "vbench export STORE --out OUT")  # fmt: skip


def call(line: str, store: Path, out: Path):
    words = line.replace("STORE", str(store)).replace("OUT", str(out)).split()
    return CliRunner().invoke(app, words)


def one_line(done) -> str:
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A small store in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    return Path(shutil.copyfile(PREVIOUS / "dfd" / "scores.sqlite", folder / "scores.sqlite"))


def foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE scores (player TEXT, points INT); INSERT INTO scores VALUES "
                     "('a', 1);")  # fmt: skip
    db.close()


def same_names(path: Path) -> None:
    db = sqlite3.connect(path)
    for name in ("meta", "samples", "scores"):
        db.execute(f"CREATE TABLE {name} (a TEXT, b TEXT)")
    db.close()


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(SCHEMA + "INSERT INTO meta VALUES ('schema', '99');")
    db.close()


def change(*statements: str):
    def work(path: Path) -> None:
        shutil.copyfile(PREVIOUS / "dfd" / "scores.sqlite", path)
        db = sqlite3.connect(path)
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.execute("PRAGMA journal_mode=DELETE")
        db.close()

    return work


def zeroed_page(path: Path) -> None:
    data = bytearray((PREVIOUS / "dfd" / "scores.sqlite").read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[2 * size : 3 * size] = bytes(size)
    path.write_bytes(data)


def truncated(path: Path) -> None:
    data = (PREVIOUS / "dfd" / "scores.sqlite").read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "an empty file, not a score store"),
    "text": (lambda path: path.write_text("method,score\n"), "not a score store (no SQLite file)"),
    "folder": (lambda path: path.mkdir(), ""),
    "foreign": (foreign, "not a score store (no scores in it)"),
    "same-names": (same_names, "not a score store"),
    "newer": (newer, "written by a newer dfdbench"),
    "schema-word": (change("UPDATE meta SET value = 'x' WHERE key = 'schema'"), "schema 'x'"),
    "zeroed-page": (zeroed_page, "damaged"),
    "truncated": (truncated, "damaged"),
    "word-as-score": (change("UPDATE scores SET value = 'high' WHERE rowid = 1"), "scores.value"),
    "infinite": (change("UPDATE scores SET value = 9e999 WHERE rowid = 1"), "scores.value"),
    "huge": (change("UPDATE scores SET value = 1e300 WHERE rowid = 1"), "scores.value"),
    "bytes-as-name": (change("UPDATE samples SET method = x'00ff'"), "samples.method"),
    "real-as-seed": (change("UPDATE samples SET seed = 1.5"), "samples.seed"),
}  # fmt: skip


@pytest.mark.fault("B.store", "C.store", "E.store")
@pytest.mark.parametrize("line", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_whole_store_is_refused_untouched(kind: str, line: str, tmp_path: Path) -> None:
    make, says = BAD[kind]
    (tmp_path / "in").mkdir()
    store = tmp_path / "in" / "x.sqlite"
    make(store)
    before = snapshot(tmp_path / "in")
    assert says in one_line(call(line, store, tmp_path / "out"))
    assert snapshot(tmp_path / "in") == before


@pytest.mark.fault("B.store")
@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("empty", "folder")])
def test_nothing_else_is_written_into_it_either(kind: str, store: Path, tmp_path: Path) -> None:
    """An empty file may be a store that was killed while it was made; all else is refused."""
    (tmp_path / "out").mkdir()
    BAD[kind][0](tmp_path / "out" / "x.sqlite")
    before = snapshot(tmp_path / "out")
    one_line(call("merge STORE --out OUT/x.sqlite", store, tmp_path / "out"))
    assert snapshot(tmp_path / "out") == before


@pytest.mark.fault("C.store")
def test_a_broken_array_is_one_line(tmp_path: Path) -> None:
    for data in ("x''", "x'93'", "x'934e554d5059'", "x'000102'"):
        store = tmp_path / "x.sqlite"
        change(f"UPDATE scores SET data = {data} WHERE data IS NOT NULL")(store)
        line = one_line(call("report STORE --out OUT", store, tmp_path / "out"))
        assert "x.sqlite" in line


@pytest.mark.fault("B.store")
def test_readers_leave_a_store_and_its_folder_as_they_are(store: Path, tmp_path: Path) -> None:
    before = snapshot(store.parent)
    store.chmod(0o444)
    store.parent.chmod(0o555)
    try:
        for line in READERS[:3]:
            done = call(line, store, tmp_path / line.split()[0])
            assert done.exit_code == 0, done.output
    finally:
        store.parent.chmod(0o755)
    assert snapshot(store.parent) == before


KILLED = """
import os, sys
from dfdbench.evaluate.schema import Row
from dfdbench.evaluate.store import Store
store = Store(sys.argv[1])
store.add_sample(Row("toy-t2v", "new.mp4", "p", "a prompt", 1, "dfd", "0" * 64))
os._exit(9)
"""


@pytest.mark.fault("B.store")
@pytest.mark.parametrize("left", [("-wal", "-shm"), ("-wal",)])
def test_what_a_killed_writer_committed_is_read(store: Path, left: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(store)], check=False)
    for end in {"-wal", "-shm"} - set(left):
        os.unlink(f"{store}{end}")
    before = snapshot(store.parent)
    with Store.reading(store) as opened:
        assert "new.mp4" in set(opened.samples()["path"])
    after = snapshot(store.parent)
    assert {k: v for k, v in after.items() if k[-4:] != "-shm"} == {
        k: v for k, v in before.items() if k[-4:] != "-shm"
    }


@pytest.mark.fault("B.lock")
def test_a_store_in_use_by_another_writer_is_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfdbench.evaluate.database.WAIT", 0.1)
    other = sqlite3.connect(store)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    with Store.reading(store) as opened:  # a reader need not wait
        assert len(opened.samples())
    part = tmp_path / "part.sqlite"
    shutil.copyfile(PREVIOUS / "dmd2" / "scores.sqlite", part)
    line = one_line(call(f"merge {part} --out STORE", store, tmp_path))
    assert "in use by another process; wait" in line
    other.rollback()
    other.close()
    assert call(f"merge {part} --out STORE", store, tmp_path).exit_code == 0


@pytest.mark.fault("B.store")
def test_a_store_that_changes_under_a_reader_is_said(store: Path) -> None:
    with (
        pytest.raises(UserError, match="written to while it was read"),
        Store.reading(store) as opened,
    ):
        opened.samples()
        with Store(store) as writer:
            writer.set_meta({"x": "y"})


@pytest.mark.fault("B.merge")
def test_merging_twice_with_the_target_among_the_parts_works(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    for name in ("dmd2", "dfd"):
        (folder / name).mkdir(parents=True)
        shutil.copyfile(PREVIOUS / name / "scores.sqlite", folder / name / "scores.sqlite")
    rows = []
    for _ in range(2):
        parts = sorted(map(str, folder.glob("**/*.sqlite")))
        done = CliRunner().invoke(app, ["merge", *parts, "--out", str(folder)])
        assert done.exit_code == 0, done.output
        with Store.reading(folder / "scores.sqlite") as merged:
            rows.append(merged.table())
    assert rows[0].equals(rows[1]) and set(rows[0]["method"]) == {"dmd2", "dfd"}


@pytest.mark.fault("B.merge")
def test_a_refused_merge_leaves_no_store(tmp_path: Path) -> None:
    for i, value in enumerate((0.5, 0.6)):
        add_run(tmp_path / str(i), "dfd", 0)
        with sqlite3.connect(tmp_path / str(i) / "scores.sqlite") as db:
            db.execute("UPDATE scores SET value = ? WHERE value IS NOT NULL", (value,))
        db.close()
    line = f"merge {tmp_path}/0/scores.sqlite {tmp_path}/1/scores.sqlite --out OUT"
    assert "contradict" in one_line(call(line, tmp_path, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


SMALL = settings(
    derandomize=True, max_examples=60, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of few pages."""
    folder = tmp_path_factory.mktemp("run")
    add_run(folder / "dfd", "dfd", 0)
    return folder / "dfd" / "scores.sqlite"


def read_all(path: Path) -> None:
    """All that the readers of a store ask of it; a UserError is the only way to fail."""
    try:
        with Store.reading(path) as store:
            store.table()
            store.pooled()
            store.failures()
            store.provenance()
            store.arrays("saturation_histogram")
            store.values("toy-t2v", ["saturation_mean"])
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.fault("F.store")
@SMALL
@given(data=st.data())
def test_any_damage_is_a_value_or_one_line_and_never_a_write(
    data: st.DataObject, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.sqlite"
    damaged = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(16, len(damaged) - 1))
        new = data.draw(st.binary(min_size=1, max_size=64))
        damaged[at : at + len(new)] = new
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(1, len(damaged)))]
    path.write_bytes(damaged)
    read_all(path)
    assert bytes(damaged) == path.read_bytes() and [p.name for p in tmp_path.iterdir()] == [
        "x.sqlite"
    ]


WORD = st.text("abcdefgh", min_size=1, max_size=6)
COLUMN = st.tuples(WORD, st.sampled_from(["TEXT", "REAL", "BLOB", "INTEGER PRIMARY KEY", ""]))


@pytest.mark.fault("F.store")
@SMALL
@given(
    tables=st.dictionaries(
        st.one_of(WORD, st.sampled_from(["meta", "samples", "scores", "groups"])),
        st.lists(COLUMN, min_size=1, max_size=4, unique_by=lambda column: column[0]),
        max_size=5,
    )
)
def test_any_other_schema_is_refused_as_it_is(tables: dict, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path)
    keyed = 0
    for name, columns in tables.items():
        own = []
        for column, kind in columns:
            keyed += kind.endswith("KEY")
            own.append(f'"{column}" {kind if keyed < 2 else "TEXT"}')
        keyed = 0
        db.execute(f'CREATE TABLE "{name}" ({", ".join(own)})')
    db.execute("PRAGMA user_version = 7")
    db.commit()
    db.close()
    before = path.read_bytes()
    for read in (Store.reading, Store):
        with pytest.raises(UserError):
            read(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.sqlite"]
