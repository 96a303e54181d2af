"""Rows of manifests: read exactly as they are written, or refused with their line."""

import json
import os
from pathlib import Path

import pytest
from eval_calls import clip, evaluate, left_out, refused, rows

from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import LARGEST_SEED, Sample, collect

GOOD = {"path": "good.mp4", "method": "m", "prompt": "good", "seed": 1}


def jsonl(folder: Path, *lines: object, name: str = "m.jsonl") -> Path:
    """A manifest of objects, texts and bytes, each a line."""
    data = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    whole = b"".join((d.encode() if isinstance(d, str) else d) + b"\n" for d in data)
    (folder / name).write_bytes(whole)
    return folder / name


def read(path: Path) -> list[Sample]:
    return collect(path, "s").samples


def bad(**columns: object) -> dict[str, object]:
    return {"path": "bad.mp4", "method": "m", "prompt": "bad"} | columns


BAD_ROWS = {
    "seed 1.9": bad(seed=1.9),
    "seed 1e400": '{"path": "bad.mp4", "method": "m", "seed": 1e400}',
    "seed Infinity": bad(seed=float("inf")),
    "seed NaN": bad(seed=float("nan")),
    "seed 2^63": bad(seed=2**63),
    "seed 2^70": bad(seed=2**70),
    "seed of 5000 digits": '{"path": "bad.mp4", "method": "m", "seed": %s}' % ("9" * 5000),
    "seed -1": bad(seed=-1),
    "seed true": bad(seed=True),
    "seed as a list": bad(seed=[1]),
    "seed 0x10": bad(seed="0x10"),
    "seed in other digits": bad(seed="٣"),
    "prompt 7": bad(prompt=7),
    "prompt as a list": bad(prompt=["a", "b"]),
    "prompt as an object": bad(prompt={"text": "a"}),
    "prompt true": bad(prompt=True),
    "prompt with NUL": bad(prompt="a\0b"),
    "prompt with an escape": bad(prompt="\x1b[31m"),
    "prompt with half a character": bad(prompt="\ud800"),
    "prompt of 200,000 characters": bad(prompt="x" * 200_000),
    "prompt behind a byte-order mark": bad(prompt="\ufeffcat"),
    "prompt_id 1.5": bad(prompt_id=1.5),
    "prompt_id of two lines": bad(prompt_id="a\nb"),
    "method of two lines": bad(method="a\nb"),
    "method with U+2028": bad(method="a\u2028b"),
    "method written backwards": bad(method="a\u202eb"),
    "method blank": bad(method="  "),
    "method as a list": bad(method=["m"]),
    "path as a number": bad(path=7),
    "path with NUL": bad(path="a\0.mp4"),
    "path of 5000 characters": bad(path="a" * 5000),
    "path that is a folder": bad(path="."),
    "path that is a device": bad(path="/dev/zero"),
    "path that is a pipe": bad(path="pipe"),
    "path that is not there": bad(path="absent.mp4"),
    "image that is a pipe": bad(path="spare.mp4", image="pipe"),
    "image that is not there": bad(path="spare.mp4", image="absent.png"),
    "image as a number": bad(image=3),
    "no path": {"method": "m"},
    "no method": {"path": "bad.mp4"},
    "a column twice": '{"path": "bad.mp4", "method": "m", "seed": 1, "seed": 2}',
    "a list": "[1, 2]",
    "null": "null",
    "text": "hello",
    "half an object": '{"path": "bad.mp4", ',
    "nested deep": '{"path": "bad.mp4", "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "nested deep in the prompt": '{"path": "b", "prompt": ' + "[" * 500 + "]" * 500 + "}",
    "bytes that are no UTF-8": b'{"path": "caf\xe9.mp4", "method": "m"}',
    "bytes of half a character": b'{"path": "a.mp4", "prompt": "\xe2\x82"}',
}


@pytest.mark.fault("A8", "A14", "C.manifest", "D.fifo")
@pytest.mark.parametrize("line", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_refused_by_its_line_and_the_rest_is_scored(tmp_path: Path, line) -> None:
    clip(tmp_path / "good.mp4")
    clip(tmp_path / "spare.mp4", 1)
    os.mkfifo(tmp_path / "pipe")
    code, lines = evaluate(jsonl(tmp_path, line, GOOD), "--out", tmp_path / "out")
    (said,) = left_out(lines)
    assert code == 1 and len(said) < 400 and said.startswith("/")
    assert rows(tmp_path / "out") == {"good.mp4": ("good", "good", 1, "m")}
    code, lines = evaluate(jsonl(tmp_path, line), "--out", tmp_path / "no")
    assert code in (1, 2) and sum("left out: " in x or "error: " in x for x in lines) == 1


@pytest.mark.fault("A8")
@pytest.mark.parametrize(
    ("given", "seed"),
    [(3, 3), (0, 0), ("3", 3), (" 3 ", 3), (3.0, 3), ("3.0", 3), (LARGEST_SEED, LARGEST_SEED)],
)
def test_a_whole_number_is_a_seed_however_it_is_written(tmp_path, given, seed) -> None:
    (found,) = read(jsonl(tmp_path, GOOD | {"seed": given}))
    assert found.seed == seed and type(found.seed) is int


TEXTS = ["two\nlines", "a\u2028b", "a\u2029b", "a\x85b"[:1], 'say "hi"', "tab\there", "ünï", "𝄞"]


@pytest.mark.fault("A13")
@pytest.mark.parametrize("prompt", [*TEXTS, "cat\r\nruns", "a, b", " spaces "])
def test_a_prompt_is_the_same_in_jsonl_and_csv(tmp_path: Path, prompt: str) -> None:
    row = GOOD | {"prompt": prompt}
    plain = json.dumps(row, ensure_ascii=False)
    cell = '"' + prompt.replace('"', '""') + '"'
    table = tmp_path / "m.csv"
    table.write_bytes(f"\ufeffpath,prompt,method,seed\r\ngood.mp4,{cell},m,1\r\n".encode())
    for path in (jsonl(tmp_path, "\ufeff" + plain), table):
        assert [(s.prompt, s.prompt_id, s.seed) for s in read(path)] == [(prompt, prompt, 1)]


@pytest.mark.fault("A8", "A13", "C.manifest")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("good.mp4,a cat, sitting,m,2", "5 cells, the header has 4"),
        ("good.mp4,a cat,m", "3 cells, the header has 4"),
        ('good.mp4,"a "cat",m,2', "not CSV"),
        (f"good.mp4,{'x' * 200_000},m,2", "longer than 100000 characters"),
        ("good.mp4,a\0cat,m,2", "holds the character '\\x00'"),
        ("good.mp4,a cat,m,1e3", "seed: "),
        ("good.mp4,a cat,m,nan", "seed: "),
        ("good.mp4,a cat,m,9223372036854775808", "seed: "),
        (b"good.mp4,caf\xe9,m,2", "not UTF-8"),
        ('good.mp4,"a cat,m,2', "not CSV"),  # the last: what follows an open quote is its text
    ],
)
def test_a_bad_row_of_a_table_is_refused_and_the_rest_is_read(tmp_path, line, says) -> None:
    line = line if isinstance(line, bytes) else line.encode()
    table = tmp_path / "m.csv"
    table.write_bytes(b"path,prompt,method,seed\nother.mp4,ok,m,1\n" + line + b"\n")
    found = collect(table, "s")
    assert [s.path.name for s in found.samples] == ["other.mp4"]
    ((where, reason),) = found.refused
    assert says in reason and "m.csv:" in where.name and len(reason) < 400


@pytest.mark.fault("C.manifest")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{}".encode("utf-16"), "it is in UTF-16"),
        (b"path,prompt,prompt\na.mp4,b,c\n", "names a column twice"),
        (b"", "names no videos"),
        (b"\n\n", "names no videos"),
        (b"\0" * 100, "NUL|not CSV|lacks|names no videos"),
    ],
)
def test_a_file_that_is_no_manifest_is_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    table = tmp_path / "m.csv"
    table.write_bytes(data)
    with pytest.raises(UserError, match=says) as caught:
        collect(table, "s", "m")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("C.manifest")
def test_one_file_under_two_paths_is_one_clip(tmp_path: Path) -> None:
    twice = [GOOD | {"path": path, "seed": i} for i, path in enumerate(["a.mp4", "x/../a.mp4"])]
    with pytest.raises(UserError, match="is the second clip"):
        read(jsonl(tmp_path, *twice))


@pytest.mark.fault("A12")
def test_inputs_that_share_method_prompt_and_seed_are_refused(tmp_path: Path) -> None:
    for i, name in enumerate("xy"):
        clip(tmp_path / name / "good.mp4", i)
        jsonl(tmp_path / name, GOOD)
    x, y, out = tmp_path / "x" / "m.jsonl", tmp_path / "y" / "m.jsonl", tmp_path / "out"
    assert "is the second clip of method m" in refused(x, y, "--out", out)
    assert evaluate(x, "--out", out)[0] == 0
    assert "name this input with --arm, or another --out" in refused(y, "--out", out)


@pytest.mark.fault("D.flood")
@pytest.mark.parametrize("kind", ["missing", "corrupt", "refused", "unmatched"])
def test_of_thousands_ten_are_printed_and_all_are_in_a_file(tmp_path: Path, kind: str) -> None:
    clip(tmp_path / "good.mp4")
    (tmp_path / "corrupt.mp4").write_text("no video")
    extra = {
        "missing": lambda i: bad(path=f"{i}.mp4", prompt="good", seed=i + 2),
        "corrupt": lambda i: bad(path=f"c/{i}.mp4", prompt="good", seed=i + 2),
        "refused": lambda i: bad(path=f"{i}.mp4", seed=-1),
        "unmatched": lambda i: bad(path=f"{i}.mp4", prompt=f"no {i}", seed=1),
    }[kind]
    count = 60 if kind == "corrupt" else 2000
    if kind == "corrupt":
        (tmp_path / "c").mkdir()
        for i in range(count):
            (tmp_path / "c" / f"{i}.mp4").write_text(f"no video {i}")
    (tmp_path / "p.txt").write_text("good\n")
    path = jsonl(tmp_path, GOOD, *(extra(i) for i in range(count)))
    out = tmp_path / "out"
    code, lines = evaluate(path, "--prompts", tmp_path / "p.txt", "--out", out)
    printed = left_out(lines)
    assert code == 1 and len(printed) == 11
    assert printed[-1] == f"{count - 10} more, {count} in all; see {out / 'left_out.txt'}"
    assert len((out / "left_out.txt").read_text(encoding="utf-8").splitlines()) == count
    assert list(rows(out)) == ["good.mp4"]
    assert evaluate(jsonl(tmp_path, GOOD), "--prompts", tmp_path / "p.txt", "--out", out)[0] == 0
    assert not (out / "left_out.txt").exists()
