"""Stages `pick` and `pack`: the served page, rules, and tars that `data encode` reads."""

import json
import shutil
import tarfile
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from curation import mean_colours, three, write_footage

from dfdbench.distill.data.curate.features import Embedder, features
from dfdbench.distill.data.curate.pack import pack
from dfdbench.distill.data.curate.pick import pick_by_rule, read_picks, serve
from dfdbench.distill.data.curate.rows import Candidate, Member, Packed, Shot
from dfdbench.distill.data.curate.shots import Filters, shots
from dfdbench.distill.data.curate.wording import parse
from dfdbench.distill.data.curate.work import Stage, read_rows
from dfdbench.distill.data.sources import Target, decode, find_sources
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video

SPLIT = Filters(
    cuts="none", min_seconds=0, max_seconds=1.2, min_side=0, min_motion=0, max_text=1, near=0
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five videos of two shots each; clusters by hand, captions of every shot but one."""
    pytest.importorskip("sklearn")
    place = tmp_path_factory.mktemp("curation")
    folder = place / "cut"
    videos = write_footage(place / "videos", count=5)
    shots([videos], folder, SPLIT)
    features(folder, Embedder("colours", "", mean_colours))
    from dfdbench.distill.data.curate.cluster import cluster
    from dfdbench.distill.data.curate.grid import grid

    cluster(folder, 3, backend="sklearn")
    grid(folder, 2)
    rows = [
        {"id": s.id, **(parse(three(shift=i)) if i != 1 else {"left_out": "no captions"})}
        for i, s in enumerate(read_rows(folder, "shots", Shot))
    ]
    Stage(folder, "caption", {}).write(rows)
    return folder


@pytest.fixture
def folder(made):
    """A copy beside it, so that the paths of videos hold."""
    copy = made.parent / f"copy-{len([*made.parent.iterdir()])}"
    yield shutil.copytree(made, copy)
    shutil.rmtree(copy)


@contextmanager
def served(folder):
    page = serve(folder)
    thread = threading.Thread(target=page.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield page.url.removesuffix("/index.html")
    finally:
        page.server.shutdown()
        page.server.server_close()


def ask(url, data=None, **headers):
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def click(url, name, picked=True, **headers):
    body = json.dumps({"id": name, "picked": picked}).encode()
    return ask(f"{url}/picks", body, **headers)


# pick


def test_each_click_is_on_the_disk_and_a_later_call_goes_on(folder):
    ids = [row.id for row in read_rows(folder, "grid", Candidate)]
    with served(folder) as url:
        assert json.loads(ask(f"{url}/picks")[1]) == {"picks": []}
        assert click(url, ids[2])[0] == 200
        assert click(url, ids[0])[0] == 200
        assert read_picks(folder, ids) == [ids[0], ids[2]]
    with served(folder) as url:
        assert json.loads(ask(f"{url}/picks")[1]) == {"picks": [ids[0], ids[2]]}
        click(url, ids[0], False)
        assert json.loads(click(url, ids[2])[1]) == {"picks": [ids[2]]}
    assert read_picks(folder, ids) == [ids[2]]


def test_the_page_and_its_pictures_are_served_and_nothing_else(folder):
    strip = read_rows(folder, "grid", Candidate)[0].strip.removeprefix("grid/")
    with served(folder) as url:
        for path in ("", "/", "/index.html", "/cluster-0000.html", "/cluster-0000.html?a"):
            code, page = ask(url + path)
            assert code == 200
            assert page.startswith(b"<!doctype html>")
        assert ask(f"{url}/{strip}") == (200, (folder / "grid" / strip).read_bytes())
        for path in ("/shots.jsonl", "/../shots.jsonl", "/%2e%2e/shots.jsonl", "/grid.jsonl"):
            assert ask(url + path)[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_pages_of_the_browser_may_not_click_or_read(folder, headers):
    ids = [row.id for row in read_rows(folder, "grid", Candidate)]
    with served(folder) as url:
        assert click(url, ids[0], **headers)[0] == 403
        assert ask(f"{url}/picks", **headers)[0] == 403
    assert not (folder / "picks.csv").exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"id": "gone", "picked": true}', 404),
        (b'{"id": "gone"}', 400),
        (b'{"id": 1, "picked": true}', 400),
        (b" " * 20_000, 400),
    ],
)
def test_a_click_that_says_nothing_changes_nothing(folder, body, code):
    with served(folder) as url:
        assert ask(f"{url}/picks", body)[0] == code
    assert not (folder / "picks.csv").exists()


def test_a_port_that_is_taken_is_told(folder):
    with served(folder) as url, pytest.raises(UserError, match=r"--port .*give another"):
        serve(folder, int(url.rpartition(":")[2]))


def test_rules_pick_of_every_cluster(folder):
    clusters: dict[int, list[Member]] = {}
    for row in read_rows(folder, "cluster", Member):
        clusters.setdefault(row.cluster, []).append(row)
    sizes = [len(own) for own in clusters.values()]
    ids = [row.id for own in clusters.values() for row in own]

    def picked(rule, count=0):
        (folder / "picks.csv").unlink(missing_ok=True)
        assert pick_by_rule(folder, rule, count) == len(read_picks(folder, ids))
        return read_picks(folder, ids)

    assert len(picked("all")) == sum(sizes)
    assert len(picked("nearest", 2)) == sum(min(2, size) for size in sizes)
    nearest = {min(own, key=lambda row: row.distance).id for own in clusters.values()}
    assert set(picked("nearest", 1)) == nearest
    edge = {max(own, key=lambda row: row.distance).id for own in clusters.values()}
    assert nearest | edge == set(picked("even", 2))


def test_a_rule_does_not_write_over_what_a_person_chose(folder):
    pick_by_rule(folder, "nearest", 1)
    pick_by_rule(folder, "nearest", 1)
    with pytest.raises(UserError, match="other picks are there; delete or rename"):
        pick_by_rule(folder, "all")


@pytest.mark.parametrize(
    ("rule", "count", "fault"),
    [("near", 1, "unknown rule 'near'; did you mean nearest"), ("even", 0, "such as even:4")],
)
def test_other_rules_are_refused(folder, rule, count, fault):
    with pytest.raises(UserError, match=fault):
        pick_by_rule(folder, rule, count)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id\na\nb\nzz\n", ":4: no shot zz"),
        ("id\na\nb\na\n", ":4: a is there twice"),
        ("name\na\n", ":2: lacks 'id'"),
        ("id,cluster\na\n", ":2: 1 cells"),
    ],
)
def test_a_bad_line_of_picks_is_told(tmp_path, text, fault):
    (tmp_path / "picks.csv").write_text(text)
    with pytest.raises(UserError, match=rf"picks.csv{fault}"):
        read_picks(tmp_path, ["a", "b"])


# pack


def test_tars_hold_the_frames_and_captions_of_the_picks(folder):
    rows = read_rows(folder, "shots", Shot)
    wanted = [rows[7], rows[2], rows[1]]
    (folder / "picks.csv").write_text("id\n" + "".join(f"{row.id}\n" for row in wanted))
    assert pack(folder, 2).rows == 3
    packed = read_rows(folder, "pack", Packed)
    assert [(row.id, row.tar, row.left_out) for row in packed] == [
        (rows[7].id, "shard-00000.tar", None),
        (rows[2].id, "shard-00000.tar", None),
        (rows[1].id, "shard-00001.tar", "no captions"),
    ]
    tar = folder / "packed" / "shard-00000.tar"
    assert not (folder / "packed" / "shard-00001.tar").exists()
    sources = {source.name.rpartition("/")[2][:-4]: source for source in find_sources(tar)}
    for number, shot in ((7, rows[7]), (2, rows[2])):
        captions = parse(three(shift=number))
        assert sources[shot.id].read_prompt() == captions["long"]
        clip = decode(sources[shot.id], Target(shot.frames, 64, 64, 8))
        original = read_video(shot.video(folder)).frames[shot.start : shot.start + shot.frames]
        assert np.abs(clip.frames.astype(int) - original).mean() < 2
    with tarfile.open(tar) as opened:
        facts = json.load(opened.extractfile(f"{rows[7].id}.json"))
    assert facts["captions"] == parse(three(shift=7))
    assert facts["source"] == "clip-3.mp4"
    assert facts["start"] == rows[7].start


def test_a_shot_that_is_a_whole_file_is_copied_as_it_is(tmp_path):
    videos = write_footage(tmp_path / "videos", count=1)
    (videos / "clip-0.txt").write_text("a ball")
    filters = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1)
    shots([videos], tmp_path / "cut", filters)
    (row,) = read_rows(tmp_path / "cut", "shots", Shot)
    (tmp_path / "cut" / "picks.csv").write_text(f"id\n{row.id}\n")
    pack(tmp_path / "cut")
    with tarfile.open(tmp_path / "cut" / "packed" / "shard-00000.tar") as tar:
        assert tar.extractfile(f"{row.id}.mp4").read() == (videos / "clip-0.mp4").read_bytes()
        assert tar.extractfile(f"{row.id}.txt").read() == b"a ball"


def test_nothing_to_pack_is_told(folder):
    with pytest.raises(UserError, match=r"picks.csv: not there; run dfdbench data curate pick"):
        pack(folder)
    (folder / "picks.csv").write_text("id\n")
    with pytest.raises(UserError, match="nothing is picked"):
        pack(folder)
    rows = read_rows(folder, "shots", Shot)
    (folder / "picks.csv").write_text(f"id\n{rows[1].id}\n")
    with pytest.raises(UserError, match="no pick can be packed; the first: no captions"):
        pack(folder)
    (folder / "caption.json").unlink()
    with pytest.raises(UserError, match="no captions; run dfdbench data curate caption"):
        pack(folder)
