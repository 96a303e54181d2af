"""Every kind of input names its clips; a bad manifest is one clear line."""

import json
import re
from pathlib import Path

import pytest

from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import collect


def manifest(folder: Path, *lines: str, name: str = "manifest.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(**columns: object) -> str:
    return json.dumps({"path": "a.mp4", "method": "dfd", **columns})


def test_manifest_columns_become_a_sample(tmp_path: Path) -> None:
    cells = row(prompt_id="p", prompt="a ball", seed=3, frames=17, image="first/a.png")
    found = collect(manifest(tmp_path, cells), "released-clips")
    expected = (tmp_path / "a.mp4", "p", "a ball", 3, "dfd", tmp_path / "first" / "a.png")
    assert found.samples == [(*expected, None, "")]
    assert found.store == Path(f"scores-{tmp_path.name}") / "scores.sqlite" and not found.is_run


def test_csv_and_jsonl_name_the_same_clips(tmp_path: Path) -> None:
    lines = manifest(tmp_path, row(prompt_id="p", seed=3), row(path="b.mp4", prompt_id="q"))
    table = manifest(
        tmp_path, "path,prompt_id,seed,method", "a.mp4,p,3,dfd", "b.mp4,q,,dfd", name="list.csv"
    )
    assert collect(lines, "s").samples == collect(table, "s").samples
    assert collect(table, "s").store.parent.name == "scores-list"


def test_an_empty_cell_is_none_and_a_number_may_be_a_name(tmp_path: Path) -> None:
    path = manifest(tmp_path, row(prompt_id=7, seed="", image=None, prompt=""))
    assert collect(path, "s").samples == [
        (tmp_path / "a.mp4", "7", None, None, "dfd", None, None, "")
    ]


def test_a_clip_may_say_what_it_was_made_from_and_its_blocks(tmp_path: Path) -> None:
    cells = {"generated_from": "a red ball", "blocks": "9+12"}
    for listing in (
        manifest(tmp_path, row(**cells)),
        tmp_path / "list.csv",
    ):
        if listing.suffix == ".csv":
            listing.write_text("path,method,generated_from,blocks\na.mp4,dfd,a red ball,9+12\n")
        (sample,) = collect(listing, "s").samples
        assert (sample.generated_from, sample.blocks) == ("a red ball", "9+12")
    for blocks in ("9", "0+4", "9+0", "-9+4", "9+12+4", 9, " 9+12", "9 + 12", "9+12\n"):
        with pytest.raises(UserError, match=r"manifest\.jsonl:1: blocks"):
            collect(manifest(tmp_path, row(blocks=blocks)), "s")


def test_a_folder_is_its_manifest_if_it_has_one(tmp_path: Path) -> None:
    path = manifest(tmp_path, row(seed=1))
    (tmp_path / "other.mp4").write_bytes(b"")
    assert collect(tmp_path, "s").samples == collect(path, "s").samples


def test_a_folder_of_videos_is_read_by_vbench_names(tmp_path: Path) -> None:
    folder = tmp_path / "dmd2"
    folder.mkdir()
    for name in ("a red fox-0.mp4", "a red fox-12.mp4", "no index.mp4", "notes.txt"):
        (folder / name).touch()
    found = collect(folder, "s").samples
    assert [(s.prompt, s.seed, s.method) for s in found] == [
        ("a red fox", 0, "dmd2"),
        ("a red fox", 12, "dmd2"),
        ("no index", None, "dmd2"),
    ]
    assert {s.method for s in collect(folder, "s", method_name="mine").samples} == {"mine"}


def test_a_run_is_read_by_suite(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    videos = tmp_path / "videos" / "toy-t2v"
    videos.mkdir(parents=True)
    manifest(videos, row(path="p/1.mp4", prompt_id="p", seed=1), name="samples.jsonl")
    found = collect(tmp_path, "toy-t2v")
    assert found.samples[0].path == videos / "p" / "1.mp4"
    assert found.store == tmp_path / "scores.sqlite" and found.is_run
    with pytest.raises(UserError, match="dfdbench generate"):
        collect(tmp_path, "other")


@pytest.mark.fault("C.manifest")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "manifest.jsonl:2: not JSON"),
        ("[1]", "manifest.jsonl:2: not a valid dictionary"),
        (json.dumps({"file": "a.mp4"}), "manifest.jsonl:2: lacks 'path'"),
        (json.dumps({"path": "b.mp4"}), "--arm"),
        (row(path="b.mp4", seed="one"), "seed: not a valid integer.*'one'"),
        (row(path="b.mp4", seed=1.9), "seed: not a valid integer.*1.9"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_is_read(tmp_path: Path, line: str, says: str) -> None:
    path = manifest(tmp_path, row(prompt_id="p", seed=1), line)
    found = collect(path, "s")
    assert [s.path.name for s in found.samples] == ["a.mp4"]
    ((where, reason),) = found.refused
    assert where.name == "manifest.jsonl:2" and re.search(says, reason) and "\n" not in reason
    with pytest.raises(UserError, match=says):
        collect(manifest(tmp_path, "", line), "s")


@pytest.mark.parametrize("line", [row(path="b.mp4", prompt_id="p", seed=1), row()])
def test_a_second_clip_of_a_seed_is_refused(tmp_path: Path, line: str) -> None:
    path = manifest(tmp_path, row(prompt_id="p", seed=1), line)
    with pytest.raises(UserError, match="second clip") as caught:
        collect(path, "s")
    assert "\n" not in str(caught.value)


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no videos"):
        collect(tmp_path, "s")
    with pytest.raises(UserError, match="no such run"):
        collect(tmp_path / "missing", "s")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="manifest"):
        collect(tmp_path / "binary", "s")
