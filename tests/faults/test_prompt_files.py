"""Files of prompts and captions: read exactly as they are written, or refused in one line."""

import json
import os
import tarfile
import warnings
from pathlib import Path

import pytest
from eval_calls import clip, evaluate, left_out, notes, refused, rows

from dfdbench.distill.data.sources import find_sources
from dfdbench.evaluate.engine import _cut_prompts
from dfdbench.evaluate.metrics.vbench.nets.viclip import TOKENS, is_cut
from dfdbench.generate.suites import choose_suite, read_prompts
from dfdbench.models.family import ModelFamily
from dfdbench.utils import reading
from dfdbench.utils.errors import UserError


def file(folder: Path, data: str | bytes, name: str = "mine.txt") -> Path:
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


@pytest.mark.fault("A8", "A13")
@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("\ufeffcat\ndog\n", ["cat", "dog"]),
        ("cat\n\ufeffdog\n", ["cat", "dog"]),  # two files joined
        ("a\u2028b\n", ["a\u2028b"]),
        ("a\u2029b\nc\n", ["a\u2029b", "c"]),
        ("cat\r\ndog\r\n", ["cat", "dog"]),
        ("cat\rdog\r", ["cat", "dog"]),
        ("cat", ["cat"]),
        ("ünï\n日本\n", ["ünï", "日本"]),
    ],
)
def test_lines_of_prompts_are_read_as_they_are_written(tmp_path, data, texts) -> None:
    assert [prompt.text for prompt in read_prompts(file(tmp_path, data))] == texts


@pytest.mark.fault("A8", "D.fifo", "C.prompts")
@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("mine.txt", b"cat\0\n", "mine.txt:1: holds the character"),
        ("mine.txt", b"dog\n\x1b[31mcat\n", "mine.txt:2: holds the character"),
        ("mine.txt", b"caf\xe9\n", "save it in UTF-8"),
        ("mine.txt", "cat\n".encode("utf-16"), "it is in UTF-16"),
        ("mine.txt", b"x" * 200_000, "longer than 100000"),
        ("mine.jsonl", b'{"path": "a.mp4"}\n', "a manifest is an input, not a list of prompts"),
        ("mine.csv", b"path,prompt\n", "a manifest is an input, not a list of prompts"),
        ("mine.json", b'["cat", 7]', "1: not a valid string"),
        ("mine.json", b'["cat", "cat"]', "twice"),
        ("mine.json", b'["cat", " "]', "an empty prompt"),
        ("mine.json", b"[]", "names no prompt"),
        ("mine.json", b"{}", "names no prompt"),
        ("mine.json", b"7", "not a valid dictionary"),
        ("mine.json", b"null", "not a valid dictionary"),
        ("mine.json", b'{"a.mp4": ["cat"]}', "a.mp4: not a valid string"),
        ("mine.json", b'{"a.mp4": 7}', "a.mp4: not a valid string"),
        ("mine.json", b'{"a.mp4": null}', "a.mp4: not a valid string"),
        ("mine.json", b'{"a.mp4": "cat", "a.mp4": "dog"}', "'a.mp4' is given twice"),
        ("mine.json", b'{"a.mp4": ', "not JSON"),
        ("mine.json", b"[" * 100_000, "not JSON"),
        ("mine.json", b'{"a.mp4": "\\ud800"}', "a.mp4: "),
    ],
)
def test_a_bad_file_of_prompts_is_refused_in_one_line(tmp_path, name, data, says) -> None:
    path = file(tmp_path, data, name)
    with pytest.raises(UserError) as caught:
        choose_suite("clips", path)
    text = str(caught.value)
    assert says in text and name in text and "\n" not in text and len(text) < 400


@pytest.mark.fault("D.fifo")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])
def test_only_regular_files_are_opened(tmp_path: Path, make) -> None:
    clip(tmp_path / "clips" / "a-0.mp4")
    make(tmp_path / "p.txt")
    assert "no regular file" in refused(tmp_path / "clips", "--prompts", tmp_path / "p.txt")
    make(tmp_path / "m.jsonl")
    assert evaluate(tmp_path / "m.jsonl", "--out", tmp_path / "out")[0] == 2


@pytest.mark.fault("D.fifo")
def test_a_file_too_large_for_text_is_not_read(tmp_path: Path) -> None:
    path = file(tmp_path, "cat\n")
    os.truncate(path, reading.LARGEST + 1)
    with pytest.raises(UserError, match="268435457 bytes"):
        read_prompts(path)


@pytest.mark.fault("A12")
def test_a_json_map_gives_clips_their_prompts_or_names_them_one_by_one(tmp_path: Path) -> None:
    names = ["Falcon-9", "Falcon-10", "cat-0", "cat-1", "other-0"]
    for i, name in enumerate(names):
        clip(tmp_path / "clips" / f"{name}.mp4", i)
    given = {
        "clips/Falcon-9.mp4": "a rocket of nine engines",
        "Falcon-10.mp4": "a rocket of ten engines",
        str(tmp_path / "clips" / "cat-0.mp4"): "a cat",
        "cat-1.mp4": "a cat",
        "gone.mp4": "nobody",
    }
    path = file(tmp_path, json.dumps(given), "map.json")
    code, lines = evaluate(tmp_path / "clips", "--prompts", path, "--out", tmp_path / "out")
    assert code == 1
    assert {name: row[1:3] for name, row in rows(tmp_path / "out").items()} == {
        "Falcon-9.mp4": ("a rocket of nine engines", 9),
        "Falcon-10.mp4": ("a rocket of ten engines", 10),
        "cat-0.mp4": ("a cat", 0),
        "cat-1.mp4": ("a cat", 1),
    }
    (line,) = left_out(lines)
    assert "other-0.mp4" in line and "does not name this clip" in line
    assert "1 clips of the map of prompts are not here (gone.mp4)" in notes(lines)


@pytest.mark.fault("A8")
def test_a_json_list_is_a_list_of_prompts(tmp_path: Path) -> None:
    prompts = read_prompts(file(tmp_path, '["cat | dog", "# no comment"]', "mine.json"))
    assert [(p.id, p.text) for p in prompts] == [
        ("prompt-001", "cat | dog"),
        ("prompt-002", "# no comment"),
    ]


def prompt_of(folder: Path) -> str:
    (source,) = find_sources(folder)
    return source.read_prompt()


@pytest.mark.fault("A13", "A8")
@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("\ufeffcat\n", "cat"),
        ("cat\nruns\n", "cat\nruns"),
        ("cat\r\nruns", "cat\nruns"),
        ("a\u2028b", "a\u2028b"),
        (" spaces \n\n", "spaces"),
    ],
)
def test_captions_are_read_as_they_are_written(tmp_path: Path, caption: str, text: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / ".a.k2.mp4").touch()
    file(tmp_path, caption, "a.txt")
    assert prompt_of(tmp_path) == text


@pytest.mark.fault("A13", "A8", "D.fifo", "C.captions")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"caf\xe9", "UTF-8"),
        ("cat".encode("utf-16"), "UTF-16"),
        (b"a\0b", "holds the character"),
        (b"\x1b[31mred", "holds the character"),
        (b"x" * 200_000, "longer than"),
        (b" \n", "no caption"),
        (None, "no regular file"),
    ],
)
def test_a_bad_caption_leaves_its_clip_out(tmp_path: Path, data: bytes | None, says: str) -> None:
    (tmp_path / "a.mp4").touch()
    os.mkfifo(tmp_path / "a.txt") if data is None else file(tmp_path, data, "a.txt")
    with pytest.raises(UserError, match=says) as caught:
        prompt_of(tmp_path)
    assert "a.mp4" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.fault("A8", "A13")
@pytest.mark.parametrize(
    ("suffix", "data", "says"),
    [
        ("json", b'{"caption": 7}', "caption: not a valid string"),
        ("json", b'{"caption": ["cat"]}', "caption: not a valid string"),
        ("json", b'\xef\xbb\xbf{"caption": "cat"}', ""),
        ("txt", b"\xef\xbb\xbfcat", ""),
        ("txt", b"caf\xe9", "UTF-8"),
    ],
)
def test_captions_in_tars_are_as_strict(tmp_path: Path, suffix: str, data: bytes, says) -> None:
    (tmp_path / "x").mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("k.mp4", b"video"), (f"k.{suffix}", data)):
            tar.add(file(tmp_path / "x", content, name), name)
    if not says:
        assert prompt_of(tmp_path / "a.tar") == "cat"
        return
    with pytest.raises(UserError, match=says):
        prompt_of(tmp_path / "a.tar")


@pytest.mark.fault("C.manifest")
def test_data_encode_names_the_rows_that_it_cannot_use(tmp_path: Path) -> None:
    lines = ['{"path": "a.mp4", "prompt": "cat"}', '{"path": "b.mp4", "prompt": 7}']
    good, bad = find_sources(file(tmp_path, "\n".join(lines), "m.jsonl"))
    assert good.read_prompt() == "cat"
    with pytest.raises(UserError, match=r"m.jsonl:2: prompt: not a valid string"):
        bad.read_prompt()


@pytest.mark.fault("A12")
def test_prompts_beyond_a_text_encoders_tokens_are_counted_once(tiny_family: ModelFamily) -> None:
    limit = tiny_family.defaults.max_sequence_length
    fits, long = "ball " * (limit - 1), "ball " * (limit + 5)
    with pytest.warns(UserWarning, match=rf"reads {limit} tokens.*cut there: 1 of 2 prompts"):
        tiny_family.encode_prompt([fits])
        tiny_family.encode_prompt([long])
        tiny_family.warn_of_cut_prompts(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_family.warn_of_cut_prompts(2)


@pytest.mark.fault("A12")
def test_prompts_beyond_viclips_tokens_are_counted(tmp_path: Path) -> None:
    from types import SimpleNamespace as Named

    fits, long = "cat " * (TOKENS - 2), "cat " * (TOKENS - 1)
    assert not is_cut(fits) and is_cut(long)
    samples = [Named(prompt=text) for text in (fits, long, long, None)]
    families = [Named(name="viclip", cuts=is_cut), Named(name="colour", cuts=None)]
    lines = _cut_prompts([Named(samples=samples)], families)  # type: ignore[list-item]
    assert lines == ["viclip reads the beginning of 1 of 2 prompts only"]
