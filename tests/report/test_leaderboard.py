"""Leaderboards: numbers follow from evidence, and whoever changes either is caught."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from score_runs import PROMPTS, SEEDS, add_run
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.report import published
from dfdbench.report.cells import Cell
from dfdbench.report.collect import collect
from dfdbench.report.leaderboard.entries import EVIDENCE as COLUMNS
from dfdbench.report.leaderboard.entries import (
    digest,
    evidence_text,
    measure,
    read_evidence,
    slug,
)
from dfdbench.report.leaderboard.render import best_entry, boards, rendered
from dfdbench.report.leaderboard.sources import measured_entries, model_name, published_board
from dfdbench.report.leaderboard.verify import verify
from dfdbench.report.sets import cells_of
from dfdbench.report.statistics import NUMBERS
from dfdbench.report.summary import recompute
from dfdbench.utils.errors import UserError

runner = CliRunner()
DFD = "entries/toy-t2v/dfd.json"
DMD2 = "entries/toy-t2v/dmd2.json"
PRINTED = "entries/t2v-wan/published-dfd.json"
EVIDENCE = "evidence/toy-t2v/dfd.csv"


def call(*arguments: object):
    return runner.invoke(app, ["leaderboard", *map(str, arguments)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """real, and DMD2 and DFD with three training seeds each; treat as read-only."""
    folder = tmp_path_factory.mktemp("runs")
    add_run(folder / "real", "real", None)
    for arm in ("dmd2", "dfd"):
        for seed in (0, 1, 2):
            add_run(folder / f"{arm}-seed{seed}", arm, seed)
    return folder


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    for arguments in (
        ("add", runs, "--board", "toy-t2v"),
        ("add", "--published", "--board", "t2v-wan"),
        ("render",),
    ):
        done = call(*arguments, "--folder", folder)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy to tamper with."""
    return Path(shutil.copytree(made, tmp_path / "boards"))


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, entry: dict, rehash: bool = True) -> None:
    if rehash:
        entry["sha256"] = digest(entry)
    path.write_text(json.dumps(entry), encoding="utf-8")


def test_what_was_added_and_rendered_passes(made):
    done = call("verify", "--folder", made)
    assert done.exit_code == 0
    assert done.stdout == "3 measured and 4 published entries on 2 boards: no faults\n"
    assert json.loads(call("verify", "--folder", made, "--json").stdout)["faults"] == []


def test_numbers_of_an_entry_are_those_of_the_report(made, runs):
    summary = recompute(cells_of(collect([runs])), []).summary
    for arm, metrics in summary.items():
        entry = load(made / f"entries/toy-t2v/{arm}.json")
        assert set(entry["metrics"]) == set(metrics)
        for name, interval in metrics.items():
            found = entry["metrics"][name]
            for key in ("mean", "median", "low", "high"):
                expected = getattr(interval, key)
                if arm == "real" and key in ("low", "high"):
                    assert found[key] is None
                else:
                    assert found[key] == pytest.approx(expected, abs=1e-5), (arm, name)
            seeds = 0 if arm == "real" else 3
            clips = len(PROMPTS) * len(SEEDS) * max(1, seeds)
            assert [found[key] for key in NUMBERS[4:]] == [seeds, len(PROMPTS), clips]


def test_an_entry_says_where_its_numbers_come_from(made, runs):
    entry = load(made / DFD)
    facts = entry["provenance"]
    assert facts["training_seeds"] == [0, 1, 2] and facts["prompts"] == len(PROMPTS)
    assert facts["videos"]["count"] == 3 * len(PROMPTS) * len(SEEDS)
    assert [run["student_updates"] for run in facts["runs"]] == [100, 101, 102]
    assert facts["families"]["colour"]["frame_policies"] == ["even16"]
    assert facts["decoders"] == ["d"]
    assert entry["suite"]["name"] == "toy-t2v"
    for path in made.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert str(made) not in text and str(runs) not in text, path


def of_prompt(*values: object) -> Cell:
    return Cell(**dict(zip(COLUMNS, values, strict=True)))


def test_evidence_is_the_mean_of_a_prompt_s_clips_with_their_number():
    cells = [
        of_prompt("dfd", prompt, seed, "hue_entropy", 0.1 * i + seed, 8)
        for i, prompt in enumerate("abc")
        for seed in (0, 1)
    ]
    numbers = measure(cells)["hue_entropy"]
    assert numbers["mean"] == pytest.approx(0.6) and numbers["prompts"] == 3
    alone = measure([cell for cell in cells if cell.prompt == "a"])["hue_entropy"]
    assert alone == {"mean": 0.5, "low": None, "high": None, "median": 0.5, "seeds": 2,
                     "prompts": 1, "clips": 16}  # fmt: skip
    third = [of_prompt("dfd", prompt, 2, "hue_entropy", 3.5, 8) for prompt in "abc"]
    limits = stats.t.interval(0.95, 2, 1.7, np.std([0.1, 1.1, 3.5], ddof=1) / 3**0.5)
    own = measure([*cells, *third])["hue_entropy"]
    assert (own["low"], own["high"]) == (0.0, 1.5)  # cut to the metric's range
    assert own["median"] == pytest.approx(1.1) and limits[0] < 0


def test_evidence_comes_back_as_written(tmp_path):
    cells = [
        of_prompt("a, b", "=x", None, "m", 1 / 3, 2),
        of_prompt("a, b", 'q"', 3, "m", -2.0, 1),
    ]
    (tmp_path / "e.csv").write_text(evidence_text(cells))
    again = read_evidence(tmp_path / "e.csv")
    assert again[0].value == pytest.approx(1 / 3, rel=1e-8)
    assert [c | {"value": 0} for c in map(dict, again)] == [
        c | {"value": 0} for c in map(dict, cells)
    ]


def change(path: str, edit: Callable[[dict], object], rehash: bool = True):
    """A tampering that edits one entry, with its hash made good unless told otherwise."""

    def work(folder: Path) -> None:
        entry = load(folder / path)
        edit(entry)
        save(folder / path, entry, rehash)

    return work


def swap_files(folder: Path) -> None:
    first, second = (folder / name for name in (DFD, DMD2))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)


def swap(key: str, first: str, second: str):
    """A tampering that swaps one field of two entries and makes their hashes good."""

    def work(folder: Path) -> None:
        a, b = load(folder / first), load(folder / second)
        a[key], b[key] = b[key], a[key]
        save(folder / first, a)
        save(folder / second, b)

    return work


def text_of(name: str, old: str, new: str):
    def work(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return work


def digit_of_evidence(folder: Path) -> None:
    lines = (folder / EVIDENCE).read_text().splitlines(keepends=True)
    fields = lines[1].split(",")
    fields[4] = str(float(fields[4]) + 0.01)
    (folder / EVIDENCE).write_text("".join([lines[0], ",".join(fields), *lines[2:]]))


def digit_of_evidence_with_hashes(folder: Path) -> None:
    digit_of_evidence(folder)
    entry = load(folder / DFD)
    entry["evidence"]["sha256"] = hashlib.sha256((folder / EVIDENCE).read_bytes()).hexdigest()
    save(folder / DFD, entry)


def bump(*keys: str, by: float = 0.001) -> Callable[[dict], object]:
    def edit(entry: dict) -> None:
        part = entry
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] += by

    return edit


def set_to(value: object, *keys: str) -> Callable[[dict], object]:
    def edit(entry: dict) -> None:
        part = entry
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return edit


ENTROPY = ("metrics", "hue_entropy")


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (change(DFD, bump(*ENTROPY, "mean"), False), f"{DFD}: its sha256 is not"),
        (change(DFD, bump(*ENTROPY, "mean")), f"{DFD}: mean of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "mean", by=1e-6)), f"{DFD}: mean of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "high")), f"{DFD}: high of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "low")), f"{DFD}: low of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "median")), f"{DFD}: median of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "seeds", by=1)), f"{DFD}: seeds of hue_entropy is"),
        (change(DFD, bump(*ENTROPY, "clips", by=1)), f"{DFD}: clips of hue_entropy is"),
        (change(DFD, set_to("lower", *ENTROPY, "direction")), "direction of hue_entropy is lower"),
        (change(DFD, set_to(99, *ENTROPY, "version")), "version of hue_entropy is 99"),
        (change(DFD, lambda e: e["metrics"].pop("hue_entropy")), "left out of it: hue_entropy"),
        (change(DFD, lambda e: e.pop("provenance")), f"{DFD}: lacks 'provenance'"),
        (change(DFD, set_to([], "provenance", "decoders")), f"{DFD}: provenance.decoders: "),
        (change(DFD, set_to([0], "provenance", "training_seeds")), "training seeds [0], its runs"),
        (change(DFD, set_to(5, "provenance", "prompts")), "5 prompts, its evidence has 4"),
        (change(DFD, set_to("/root/x", "provenance", "note")), "'/root/x' is a path of one"),
        (change(DFD, set_to("other", "suite", "name")), "of another suite than"),
        (change(DFD, set_to("dmd2", "method")), "method is dmd2, its evidence is of dfd"),
        (change(DFD, set_to(1, "schema")), "schema 1, kind measured: this dfdbench reads"),
        (change(DFD, set_to("evidence/../x.csv", "evidence", "file")), "expected evidence/toy"),
        (change(DFD, set_to("published", "kind")), f"{DFD}: lacks 'source'"),
        (swap_files, f"{DFD}: says that it is toy-t2v/dmd2"),
        (swap("method", DFD, DMD2), f"{DFD}: method is dmd2, its evidence is of dfd"),
        (swap("metrics", DFD, DMD2), f"{DMD2}: mean of hue_entropy is"),
        (swap("evidence", DFD, DMD2), f"{DFD}: evidence is evidence/toy-t2v/dmd2.csv"),
        (digit_of_evidence, f"{DFD}: {EVIDENCE} is not the evidence that it was made from"),
        (digit_of_evidence_with_hashes, f"{DFD}: mean of saturation_mean is"),
        (text_of(EVIDENCE, "dfd,", "dmd2,"), "its evidence is of dfd, dmd2"),
        (text_of(EVIDENCE, ",8\n", ",x\n"), f"{EVIDENCE}:2: n: "),
        (lambda folder: (folder / EVIDENCE).unlink(), "dfd.csv: cannot be read as CSV"),
        (lambda folder: (folder / DFD).unlink(), f"{EVIDENCE}: evidence of no entry"),
        (lambda folder: (folder / DFD).write_text("{"), f"{DFD}: "),
        (lambda folder: (folder / DFD).write_text("[]"), f"{DFD}: not a valid dictionary"),
        (change(DFD, set_to(5, "metrics")), f"{DFD}: metrics: not a valid dictionary"),
        (change(DFD, set_to("0.5", *ENTROPY, "mean")), f"{DFD}: metrics.hue_entropy.mean: "),
        (change(DFD, set_to("x", "provenance", "videos", "digest")), "provenance.videos.digest: "),
        (text_of(EVIDENCE, ",8\n", ",0\n"), f"{EVIDENCE}:2: n: "),
        (change(PRINTED, lambda e: e.pop("source")), f"{PRINTED}: lacks 'source'"),
        (
            change(PRINTED, set_to("0.129", "metrics", "clip_diversity_mean", "as_printed")),
            f"{PRINTED}: clip_diversity_mean is 0.129 (0.128), published.csv has 0.128 (0.128)",
        ),
        (
            change(PRINTED, set_to(0.129, "metrics", "clip_diversity_mean", "value")),
            f"{PRINTED}: clip_diversity_mean is 0.128 (0.129)",
        ),
        (change(PRINTED, lambda e: e["metrics"].pop("average_vbench")), "vbench is missing, pub"),
        (change(PRINTED, bump("source", "table", by=1)), f"{PRINTED}: source is"),
        (
            swap("metrics", PRINTED, "entries/t2v-wan/published-dmd2.json"),
            f"{PRINTED}: aesthetic_quality is 0.634 (0.634), published.csv has 0.655",
        ),
        (text_of("README.md", "0.128", "0.182"), "README.md: not what the entries render to"),
        (text_of("board.csv", "dfd", "dmd2"), "board.csv: not what the entries render to"),
        (lambda folder: (folder / "index.html").unlink(), "index.html: not what the entries"),
    ],
)  # fmt: skip
def test_tampering_is_caught_with_one_line(folder, tamper, says):
    tamper(folder)
    done = call("verify", "--folder", folder)
    assert done.exit_code == 1
    faults = done.stdout.splitlines()[:-1]
    assert any(says in line.replace(str(folder) + "/", "") for line in faults), faults
    assert done.stdout.splitlines()[-1].startswith(("3", "2 measured"))


def test_a_removed_hash_is_no_way_round(folder):
    entry = load(folder / DFD)
    del entry["sha256"]
    (folder / DFD).write_text(json.dumps(entry))
    assert verify(folder).faults[0].startswith(f"{DFD}: lacks 'sha256'")


def test_best_is_marked_among_measured_students_only(made):
    with (made / "board.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = {(row["metric"], row["method"]) for row in rows if row["best"] == "1"}
    assert best == {
        ("hue_entropy", "dfd"), ("hue_gini", "dfd"),
        ("saturation_mean", "dfd"),  # nearest to real: neither lowest nor highest
    }  # fmt: skip
    assert {row["best"] for row in rows if row["kind"] == "published"} == {""}
    assert "**" in (made / "README.md").read_text(encoding="utf-8")


def test_versions_of_a_metric_never_share_a_row(folder):
    entry = load(folder / DFD)
    entry["metrics"]["saturation_mean"]["version"] = 2
    save(folder / DFD, entry)
    (measured, *_), *_ = (b.tables for b in boards(folder) if b.name == "toy-t2v")
    rows = {row[0].text: [cell.plain for cell in row[1:]] for row in measured.rows}
    dfd = measured.head.index("DFD") - 1
    assert rows["saturation_mean v1 ≈"][dfd] == "—" != rows["saturation_mean v2 ≈"][dfd]
    entries = next(b.entries for b in boards(folder) if b.name == "toy-t2v")
    assert best_entry(folder, entries, "saturation_mean", 2) is None


def test_published_and_measured_numbers_have_tables_of_their_own(folder, runs):
    assert call("add", runs / "dfd-seed0", "--board", "t2v-wan", "--folder", folder).exit_code == 0
    board = next(b for b in boards(folder) if b.name == "t2v-wan")
    kinds = [table.title.split()[0] for table in board.tables]
    assert kinds == ["Measured", "Where", "Published"]
    assert board.tables[0].head == ["metric", "DFD"]
    assert board.tables[2].head == ["metric", "teacher", "DMD2", "DP-DMD", "DFD"]
    assert "arXiv 2606.18478, Table 1" in board.tables[2].title


def test_rendering_again_gives_the_same_bytes_and_hostile_names_stay_text(folder):
    assert rendered(folder) == {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("README.md", "index.html", "board.csv")
    }
    entry = load(folder / DFD)
    entry["name"] = "<script>|[a](b)"
    save(folder / DFD, entry)
    texts = rendered(folder)
    assert "<script>" not in texts["index.html"] + texts["README.md"]
    line = next(t for t in texts["README.md"].splitlines() if t.startswith("| metric | real"))
    assert r"&lt;script&gt;\|[a]\(b) |" in line and line.count(" | ") == 3


def test_every_table_of_the_paper_has_its_board(tmp_path):
    done = call("add", "--published", "--folder", tmp_path, "--json")
    assert done.exit_code == 0
    found = {path.parent.name for path in (tmp_path / "entries").glob("*/*.json")}
    assert found == {published_board(s) for s in published.settings()}
    assert {"t2v-wan", "i2v-cosmos-vbench", "i2v-cosmos-vipe"} <= found
    printed = sum(len(load(Path(path))["metrics"]) for path in json.loads(done.stdout)["entries"])
    assert printed == len(published.shipped())


def test_a_store_gives_one_entry_a_method(runs, tmp_path):
    shutil.copyfile(runs / "dfd-seed0" / "scores.sqlite", tmp_path / "scores.sqlite")
    ((entry, _),) = measured_entries([tmp_path / "scores.sqlite"], "b")
    assert entry["method"] == "dfd" and entry["provenance"]["runs"] == []
    assert entry["provenance"]["training_seeds"] == []
    chosen = measured_entries([runs], "b", methods=["real", "dmd2"])
    assert [entry["method"] for entry, _ in chosen] == ["real", "dmd2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--board b", "name runs or stores and a --board"),
        ("RUNS", "name runs or stores and a --board"),
        ("RUNS --board B/../x", "--board B/../x: write it in small letters"),
        ("RUNS --board b --arm dfx", "unknown --arm 'dfx'; did you mean dfd"),
        ("RUNS --board b --name x", "--name names one entry, the sources hold real, dmd2, dfd"),
        ("RUNS RUNS/dfd-seed0 --board b", "are both dfd with seed 0"),
        ("RUNS/dfd-seed0 --board b --name ...", "name '...' has no letter or digit"),
        ("RUNS --board b --suite other", "no scores of suite other"),
        ("--published --board t2v-wam", "did you mean t2v-wan"),
        ("RUNS --published", "--published takes no source"),
        ("nowhere --board b", "nowhere: no such run, folder or store"),
    ],
)
def test_wrong_calls_are_one_line_and_write_nothing(arguments, says, runs, tmp_path):
    words = arguments.replace("RUNS", str(runs)).split()
    done = call("add", *words, "--folder", tmp_path)
    assert done.exit_code == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_board_keeps_to_one_suite_and_an_id_to_one_kind(folder, tmp_path):
    add_run(tmp_path / "run", "dp_dmd", 0, suite="other")
    done = call("add", tmp_path / "run", "--board", "toy-t2v", "--folder", folder)
    assert done.exit_code == 2 and "choose another board" in done.stderr
    done = call("add", tmp_path / "run", "--board", "t2v-wan", "--name", "published DFD",
                "--folder", folder)  # fmt: skip
    assert done.exit_code == 2 and "taken by a published entry" in done.stderr


def test_nothing_to_verify_is_an_error_not_a_pass(tmp_path):
    with pytest.raises(UserError, match="no entries"):
        verify(tmp_path)


def test_paths_of_models_are_cut_to_names():
    assert model_name("/data/models/Wan2.1") == "Wan2.1" == model_name("./x/Wan2.1")
    assert model_name("Wan-AI/Wan2.1-T2V") == "Wan-AI/Wan2.1-T2V"
    assert model_name("toy-t2v") == "toy-t2v"
    assert slug("My DFD, v2!") == "my-dfd-v2" and slug("dp_dmd") == "dp_dmd"


def test_the_committed_leaderboards_pass():
    committed = Path(__file__).parents[2] / "leaderboards"
    verdict = verify(committed)
    assert verdict.faults == [] and verdict.measured >= 7 and verdict.published >= 18
