"""The committed page of the campaign says what its files carry, and every case has a test."""

import re

import record

CASES = {
    *(f"A{number}" for number in range(1, 17)),
    *(f"A6{letter}" for letter in "abcdef"),
    "B.board", "B.kill", "B.lock", "B.merge", "B.signals", "B.store", "B.sweep",
    "C.device", "C.disk-full", "C.files", "C.init", "C.manifest", "C.non-finite", "C.output",
    "D.bench", "D.fifo", "D.flood", "D.seeds", "E.csv", "E.html", "E.markdown", "E.names",
    "E.paths", "E.terminal", "E.umask", "F.entry", "F.info", "F.manifest", "F.prompts", "F.recipe",
    "F.run", "F.samples", "F.store", "F.study", "F.video",
}  # fmt: skip


def test_every_case_has_a_test():
    marked = set(record.cases())
    covered = marked | {"B.board" for name in marked if name in ("C.board", "B.lock")}
    assert CASES - covered == set()


def test_the_page_says_what_its_files_carry():
    kills = record.lines(record.RESULTS / "kills.jsonl")
    inputs = record.lines(record.RESULTS / "inputs.jsonl")
    assert (record.RESULTS / "README.md").read_text() == record.page(kills, inputs)
    assert sum(kill["how"].startswith("SIG") for kill in kills) >= 40 and len(inputs) >= 400
    assert all(kill["equal"] for kill in kills)
    assert {line["outcome"] for line in inputs} <= {"refused", "named", "taken"}


def test_cases_are_sorted_as_people_count():
    names = sorted(record.cases(), key=record.order)
    assert names.index("A2") < names.index("A10") and re.match("A1$", names[0])
