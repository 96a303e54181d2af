"""Names of files of every kind, through all stages to the tar, the pages and the latents."""

import json
import os
import shutil
from pathlib import Path

import pytest
from curation import caption_server, mean_colours, write_footage

from dfdbench.distill.data.curate.caption import Asking, caption
from dfdbench.distill.data.curate.cluster import cluster
from dfdbench.distill.data.curate.features import Embedder, features
from dfdbench.distill.data.curate.grid import grid
from dfdbench.distill.data.curate.pack import pack
from dfdbench.distill.data.curate.pick import pick_by_rule
from dfdbench.distill.data.curate.rows import Packed, Shot
from dfdbench.distill.data.curate.servers import Servers
from dfdbench.distill.data.curate.shots import LEFT_OUT, Filters, shots
from dfdbench.distill.data.curate.work import read_rows
from dfdbench.distill.data.encode import encode
from dfdbench.distill.data.format import members, read_index, read_member
from dfdbench.evaluate.set_numbers import set_numbers
from dfdbench.evaluate.set_rows import measure_set, read_set
from dfdbench.report.set_page import DescribedSet, set_page

LOOSE = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)
COLOURS = Embedder("colours", "", mean_colours)
NAMES = (
    "-dash.mp4",
    "--out=x.mp4",
    'a, "quoted"; name.mp4',
    "it's.mp4",
    "two\nlines\r.mp4",
    "<script>alert(1)<!--.mp4",
    "ünïcode \u202e\u2028 雪.mp4",
    f"{'long' * 60}.mp4",
)
NOT_UTF8 = os.fsdecode(b"no \xff text.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / "videos"
    made = write_footage(folder.with_name("made"), count=len(NAMES) + 1)
    folder.mkdir()
    for number, name in enumerate((*NAMES, NOT_UTF8)):
        try:
            shutil.copy(made / f"clip-{number}.mp4", folder / name)
        except OSError as error:
            pytest.skip(f"this disk has no such names ({error.strerror})")
        (folder / name).with_suffix(".txt").write_text("a ball")
    return folder


def test_every_name_goes_through_the_chain_or_is_told(videos, tmp_path, tiny_checkpoint):
    pytest.importorskip("sklearn")
    folder = tmp_path / "cut"
    shots([videos], folder, LOOSE)
    found = read_rows(folder, "shots", Shot)
    assert {Path(row.path).name for row in found} == set(NAMES)
    (line,) = (folder / LEFT_OUT).read_text("utf-8").splitlines()
    assert "its name is not in UTF-8; rename it" in json.loads(line)["reason"]
    with caption_server() as server:
        caption(folder, Servers([server.url]), Asking(frames=2, side=32), 2)
    features(folder, COLOURS)
    cluster(folder, 2, backend="sklearn")
    grid(folder, 9)
    assert pick_by_rule(folder, "all") == len(NAMES)
    pack(folder)
    assert [row.left_out for row in read_rows(folder, "pack", Packed)] == [None] * len(NAMES)
    tar = folder / "packed" / "shard-00000.tar"
    sources = {
        json.loads(read_member(tar, files["json"]))["source"] for files in members(tar).values()
    }
    assert sources == set(NAMES)
    done = encode([tar], str(tiny_checkpoint), tmp_path / "latents", device="cpu")
    assert (done.samples, done.left_out) == (len(NAMES), [])


def test_folders_of_such_names_are_encoded_and_described(videos, tmp_path, tiny_checkpoint):
    total = len(NAMES) + 1
    done = encode([videos], str(tiny_checkpoint), tmp_path / "latents", device="cpu")
    assert done.samples == total
    assert read_index(tmp_path / "latents").samples == total
    measure_set([videos], tmp_path / "out", "set", COLOURS)
    rows, array = read_set(tmp_path / "out", "set")
    assert len(rows) == total
    (fault,) = [row.left_out for row in rows if row.left_out]
    assert "not in UTF-8" in fault
    page = set_page([DescribedSet("a set", rows, set_numbers(rows, array))], None)
    assert "<script" not in page
    assert page.encode()  # no halves of characters


def test_paths_of_tables_that_no_file_can_have_are_told_by_row(videos, tmp_path):
    table = tmp_path / "set.jsonl"
    names = [str(videos / NAMES[0]), f"{'n' * 300}.mp4", "a\u0000b.mp4", f"{'d/' * 3000}a.mp4"]
    table.write_text("".join(json.dumps({"path": name}) + "\n" for name in names))
    shots([table], tmp_path / "cut", LOOSE)
    assert len(read_rows(tmp_path / "cut", "shots", Shot)) == 1
    assert len((tmp_path / "cut" / LEFT_OUT).read_text().splitlines()) == 3


def test_a_curation_behind_a_link_finds_its_videos(videos, tmp_path):
    pytest.importorskip("sklearn")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "near").symlink_to(videos)
    folder = tmp_path / "link" / "cut"
    shots([tmp_path / "near"], folder, LOOSE)
    features(folder, COLOURS)
    rows = (folder / "features.jsonl").read_text().splitlines()
    assert len(rows) == len(NAMES)
    assert not any("left_out" in row for row in rows)
