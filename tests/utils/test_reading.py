"""One form of error for every file from outside."""

from pathlib import Path

import pytest

from dfdbench.utils.errors import UserError
from dfdbench.utils.reading import Outside, read_csv, read_json, read_jsonl, read_toml, validate


class Row(Outside):
    path: str
    seed: int | None = None


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"path": "a", "seed": 1.9}', "m.jsonl:2: seed: "),
        ('{"seed": 1}', "m.jsonl:2: lacks 'path'; mend it"),
        ('{"path": "a", "sed": 1}', "unknown field 'sed' (did you mean seed?); mend it"),
        ("[1, 2]", "m.jsonl:2: "),
        ('{"path": ', "m.jsonl:2: not JSON"),
        ("[" * 100_000, "m.jsonl:2: not JSON"),
    ],
)
def test_a_fault_names_file_line_field_and_remedy(tmp_path, line, said):
    path = write(tmp_path / "m.jsonl", '{"path": "a"}\n' + line + "\n")
    with pytest.raises(UserError) as error:
        list(read_jsonl(path, Row, "mend it"))
    assert said in str(error.value) and str(error.value).endswith("; mend it")
    assert "\n" not in str(error.value)


def test_lines_end_at_newlines_alone(tmp_path):
    path = write(tmp_path / "m.jsonl", '\ufeff{"path": "a\u2028b"}\r\n\n{"path": "c"}\n')
    rows = list(read_jsonl(path, Row, "mend it"))
    assert rows == [(1, Row(path="a\u2028b")), (3, Row(path="c"))]


def test_csv_counts_lines_and_leaves_empty_cells_out(tmp_path):
    path = write(tmp_path / "m.csv", 'path,seed\n"a\nb",\nc,7\n')
    assert list(read_csv(path, Row, "")) == [(3, Row(path="a\nb")), (4, Row(path="c", seed=7))]


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    for text, reader in ((b"\xff\xfe{}", read_json), (b"a = [", read_toml)):
        (tmp_path / "f").write_bytes(text)
        with pytest.raises(UserError, match="f"):
            reader(tmp_path / "f", Row, "mend it")
    with pytest.raises(UserError, match="check the path"):
        read_json(tmp_path / "absent", Row, "mend it")


def test_long_values_are_cut():
    with pytest.raises(UserError) as error:
        validate(Row, {"path": "a", "seed": "x" * 10_000}, "here", "mend it")
    assert len(str(error.value)) < 200


def test_a_misspelt_field_is_named_rather_than_the_one_it_leaves_missing():
    with pytest.raises(UserError, match="unknown field 'paht' \\(did you mean path\\?\\)"):
        validate(Row, {"paht": "a"}, "here", "mend it")
