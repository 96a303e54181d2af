"""What `shots` reads: folders, tables, data-juicer's and NeMo-Curator's outputs, tars."""

import importlib.util
import json
import tarfile

import pytest
from curation import write_footage

from dfdbench.distill.data.curate.readers import find_videos
from dfdbench.distill.data.curate.rows import Shot
from dfdbench.distill.data.curate.shots import LEFT_OUT, Filters, shots
from dfdbench.distill.data.curate.work import read_rows
from dfdbench.utils.errors import UserError

LOOSE = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)


@pytest.fixture
def videos(tmp_path):
    return write_footage(tmp_path / "videos", count=3)


def captions(path, out):
    """Name of the file -> caption, and the faults."""
    found = find_videos([path], out)
    usable = {video.path.name: video.caption for video in found.values() if not video.fault}
    return usable, [video.fault for video in found.values() if video.fault]


def jsonl(path, *rows):
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def test_inputs_without_videos_and_twins_are_refused(tmp_path):
    write_footage(tmp_path / "a" / "videos", count=1)
    write_footage(tmp_path / "b" / "videos", count=1)
    with pytest.raises(UserError, match=r"both videos/clip-0\.mp4"):
        find_videos([tmp_path / "a" / "videos", tmp_path / "b" / "videos"], tmp_path)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(UserError, match=f"{path.name}: no videos"):
            find_videos([path], tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("path", "text"), [("path", "caption"), ("Video", "text")])
def test_a_table_names_videos_and_captions(videos, kind, path, text):
    table = videos / f"set.{kind}"
    rows = [{path: "clip-0.mp4", text: "a ball, red"}, {path: "clip-2.mp4", text: None}]
    match kind:
        case "csv":
            table.write_text(f'{path},{text},n\nclip-0.mp4,"a ball, red",1\nclip-2.mp4,,2\n')
        case "jsonl":
            jsonl(table, rows[0], {path: "clip-2.mp4"})
        case "parquet":
            pytest.importorskip("pyarrow")
            import pandas as pd

            pd.DataFrame(rows).to_parquet(table)
    assert captions(table, videos) == ({"clip-0.mp4": "a ball, red", "clip-2.mp4": None}, [])


def test_rows_that_cannot_be_used_are_told_by_line_and_the_rest_is_read(videos, tmp_path):
    table = jsonl(
        videos / "set.jsonl", {"path": "clip-0.mp4"}, "{", {"caption": "no path"}, {"path": 3},
        {"path": "gone.mp4"},
    )  # fmt: skip
    usable, faults = captions(table, tmp_path)
    assert set(usable) == {"clip-0.mp4", "gone.mp4"}
    assert [fault.split("set.jsonl")[1][:3] for fault in faults] == [":2:", ":3:", ":4:"]
    assert "a path: path, video" in faults[1]
    shots([table], tmp_path / "cut", LOOSE)
    assert len(read_rows(tmp_path / "cut", "shots", Shot)) == 1
    assert len((tmp_path / "cut" / LEFT_OUT).read_text().splitlines()) == 4


def test_chunks_of_data_juicer_caption_their_videos(videos, tmp_path):
    table = jsonl(
        videos / "dj.jsonl",
        {
            "videos": ["clip-0.mp4", "clip-1.mp4", "clip-2.mp4"],
            "text": "<__dj__video> a ball <|__dj__eoc|> <__dj__video><__dj__video>two\nmore "
            "<|__dj__eoc|>",
            "__dj__stats__": {"video_duration": [1, 2, 3]},
        },
        {"videos": ["clip-0.mp4"], "text": "<__dj__video><__dj__video> a"},
        {"videos": "clip-0.mp4", "text": ""},
    )
    usable, faults = captions(table, tmp_path)
    assert usable == {"clip-0.mp4": "a ball", "clip-1.mp4": "two more", "clip-2.mp4": "two more"}
    assert "dj.jsonl:2: text names 2 videos, there are 1" in faults[0]
    assert "dj.jsonl:3: videos: " in faults[1]
    (videos / "dj.jsonl").write_text('{"videos": ["clip-1.mp4"], "text": "just so"}\n')
    assert captions(table, tmp_path) == ({"clip-1.mp4": "just so"}, [])


def test_exports_of_data_juicer_are_read_in_each_of_their_forms(videos, tmp_path):
    """Columns and forms of its Exporter: JSONL, a JSON array, Parquet; stats kept beside."""
    rows = [
        {
            "videos": [str(videos / f"clip-{n}.mp4")],
            "text": f"<__dj__video> clip number {n} <|__dj__eoc|>",
            "__dj__stats__": {"video_duration": [2.1], "video_motion_score": [n]},
            "__dj__meta__": {"src": "customised"},
        }
        for n in range(3)
    ]
    jsonl(tmp_path / "out.jsonl", *rows)
    (tmp_path / "out.json").write_text(json.dumps(rows, ensure_ascii=False))
    kinds = ["jsonl", "json"]
    if importlib.util.find_spec("pyarrow"):
        import pandas as pd

        pd.DataFrame(rows).to_parquet(tmp_path / "out.parquet")
        kinds.append("parquet")
    wanted = {f"clip-{n}.mp4": f"clip number {n}" for n in range(3)}
    for kind in kinds:
        assert captions(tmp_path / f"out.{kind}", tmp_path) == (wanted, [])


def test_samples_without_videos_are_told_in_each_form(videos, tmp_path):
    rows = [
        {"videos": ["clip-0.mp4"], "text": "a"},
        {"videos": [], "text": "none"},
        {"videos": None, "text": "none"},
    ]
    jsonl(videos / "out.jsonl", *rows)
    (videos / "out.json").write_text(json.dumps(rows))
    tables = [videos / "out.jsonl", videos / "out.json"]
    if importlib.util.find_spec("pyarrow"):
        import pandas as pd

        pd.DataFrame(rows).to_parquet(videos / "out.parquet")
        pd.DataFrame({"videos": ["clip-0.mp4"]}).to_parquet(videos / "text.parquet")
        tables.append(videos / "out.parquet")
        assert "text.parquet:1: videos: " in captions(videos / "text.parquet", tmp_path)[1][0]
    for table in tables:
        usable, faults = captions(table, tmp_path)
        assert usable == {"clip-0.mp4": "a"}
        assert [fault.split(table.name)[1][:11] for fault in faults] == [
            ":2: videos:",
            ":3: videos:",
        ]


def test_tables_in_other_encodings(videos, tmp_path):
    """A byte-order mark is read over; a row that is not UTF-8 is told, and UTF-16 with a remedy."""
    table = videos / "set.csv"
    table.write_bytes(
        b"\xef\xbb\xbfpath,caption\r\nclip-0.mp4,caf\xc3\xa9\r\nclip-1.mp4,caf\xe9\r\n"
    )
    usable, faults = captions(table, tmp_path)
    assert usable == {"clip-0.mp4": "café"}
    assert "set.csv:3: " in faults[0]
    assert "UTF-8" in faults[0]
    table.write_bytes("path,caption\nclip-0.mp4,a\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"UTF-16.*save it in UTF-8"):
        find_videos([table], tmp_path)
    for name in ("set.jsonl.gz", "set.tar.zst"):
        (videos / name).write_bytes(b"packed")
        with pytest.raises(UserError, match=rf"{name}: is compressed; unpack it first"):
            find_videos([videos / name], tmp_path)


def test_clips_that_nemo_curator_kept_have_its_captions(videos, tmp_path):
    out = tmp_path / "nemo"
    metas = {
        "a": [{"start_frame": 0, "end_frame": 9, "qwen_caption": "plain"}],
        "b": [{"qwen_caption": "plain"}, {"qwen_lm_enhanced_caption": "richer"}],
        "c": [],
        "d": [{"qwen_caption": "filtered away"}],
    }
    for i, (name, windows) in enumerate(metas.items()):
        kept = "filtered_clips" if name == "d" else "clips"
        meta = {
            "span_uuid": name,
            "source_video": "/data/videos/x.mp4",
            "duration_span": [0.0, 5.0],
            "width_source": 1920,
            "height_source": 1080,
            "framerate_source": 30.0,
            "clip_location": f"/elsewhere/{kept}/{'c0/' * (name == 'c')}{name}.mp4",
            "motion_score": {"global_mean": 0.51, "per_patch_min_256": 0.29},
            "aesthetic_score": 0.72,
            "windows": windows,
            "valid": True,
        }
        path = out / "metas" / "v0" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(meta))
        folder = out / kept / ("c0" if name == "c" else "")  # as its documentation shows
        folder.mkdir(exist_ok=True, parents=True)
        (folder / f"{name}.mp4").write_bytes((videos / f"clip-{i % 3}.mp4").read_bytes())
    (out / "metas" / "v0" / "e.json").write_text("{")
    gone = {"span_uuid": "f", "clip_location": "/elsewhere/clips/f.mp4", "windows": []}
    (out / "metas" / "v0" / "f.json").write_text(json.dumps(gone))
    usable, faults = captions(out, tmp_path)
    assert usable == {"a.mp4": "plain", "b.mp4": "richer", "c.mp4": None}
    assert len(faults) == 2
    assert "e.json: not JSON" in faults[0]
    assert "f.mp4 is not there; copy it too" in faults[1]


def test_videos_of_a_tar_are_unpacked_once_and_nowhere_else(videos, tmp_path):
    tar, out = tmp_path / "set.tar", tmp_path / "cut"
    with tarfile.open(tar, "w") as opened:
        for i, name in enumerate(("one", "../../two", "more/three")):
            opened.add(videos / f"clip-{i}.mp4", f"{name}.mp4")
            if i < 2:
                (videos / "c.txt").write_text(f"caption {i}")
                opened.add(videos / "c.txt", f"{name}.txt")
    found = find_videos([tar], out)
    assert sorted(str(video.caption) for video in found.values()) == [
        "None", "caption 0", "caption 1",
    ]  # fmt: skip
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {out / "videos" / "set"}
    times = [path.stat().st_mtime_ns for path in sorted(files)]
    find_videos([tar], out)
    assert [path.stat().st_mtime_ns for path in sorted(files)] == times
    shots([tar], out, LOOSE)
    assert len(read_rows(out, "shots", Shot)) == 3


def test_a_damaged_table_is_told(videos, tmp_path):
    pytest.importorskip("pyarrow")
    (videos / "x.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(UserError, match=r"x.parquet: not a Parquet file"):
        find_videos([videos / "x.parquet"], tmp_path)
