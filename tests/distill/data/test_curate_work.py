"""The folder of a curation: a killed stage, in any part, ends with the bytes of one not killed."""

import json
import shutil

import numpy as np
import pytest
from curation import bytes_of, mean_colours, write_footage

from dfdbench.distill.data.curate.caption import Asking
from dfdbench.distill.data.curate.caption import caption as caption_stage
from dfdbench.distill.data.curate.cluster import cluster
from dfdbench.distill.data.curate.features import Embedder, features, read_features
from dfdbench.distill.data.curate.grid import grid
from dfdbench.distill.data.curate.pack import pack
from dfdbench.distill.data.curate.pick import pick_by_rule
from dfdbench.distill.data.curate.rows import Captions, Shot
from dfdbench.distill.data.curate.shots import Filters, shots
from dfdbench.distill.data.curate.wording import parse
from dfdbench.distill.data.curate.work import Done, Stage, _Journal, fill, read_rows
from dfdbench.utils.errors import UserError
from dfdbench.utils.shards import WHOLE, Shard

FILTERS = Filters(
    cuts="none", min_seconds=0, max_seconds=1.2, min_side=0, min_motion=0, max_text=1, near=0
)
COLOURS = Embedder("colours", "none", mean_colours)
ORDER = ("shots", "caption", "features", "cluster", "grid", "pack")


class Answers:
    """Stands in for servers: captions that only the pictures decide."""

    model = "test"

    def ask(self, text, pictures, max_tokens, seed):
        from curation import three

        from dfdbench.distill.data.curate.servers import Answer

        return Answer(three(shift=sum(map(len, pictures)) % 7), False)

    def close(self):
        """Nothing to close."""


def run(stage, videos, folder, part=None):
    """One call of a stage; `pick` by rule goes before `pack`."""
    match stage:
        case "shots":
            return shots([videos], folder, FILTERS, part)
        case "caption":
            return caption_stage(folder, Answers(), Asking(frames=2, side=32), 2, part)
        case "features":
            return features(folder, COLOURS, "middle8", part)
        case "cluster":
            return cluster(folder, 3, backend="sklearn")
        case "grid":
            return grid(folder, 3, part)
        case "pack":
            pick_by_rule(folder, "even", 2)
            return pack(folder, 2, part)
    raise AssertionError(stage)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    pytest.importorskip("sklearn")
    return write_footage(tmp_path_factory.mktemp("footage") / "videos", count=5)


@pytest.fixture(scope="module")
def whole(videos):
    """All stages without a stop; two shots a video."""
    folder = videos.parent / "whole"
    for stage in ORDER:
        assert run(stage, videos, folder).finished
    return folder


def test_the_chain_leaves_a_file_a_stage_and_nothing_of_its_work(whole):
    names = {path.name for path in whole.iterdir()}
    assert {f"{stage}.{end}" for stage in ORDER for end in ("jsonl", "json")} <= names
    assert not [*(whole / "parts").iterdir()]
    rows = read_rows(whole, "shots", Shot)
    assert len(rows) == 10
    ids, array = read_features(whole)
    assert ids == [row.id for row in rows]
    assert np.linalg.norm(array, axis=1) == pytest.approx(1)
    assert [row.id for row in read_rows(whole, "caption", Captions)] == ids


def test_a_record_says_from_what_by_what_and_how(whole):
    record = json.loads((whole / "features.json").read_text())
    assert record["settings"]["embedder"] == "colours"
    assert set(record["inputs"]) == {"shots.jsonl"}
    assert set(record["versions"]) == {"dfdbench", "numpy", "torch"}
    assert set(record["outputs"]) == {"features.jsonl", "features.npy"}
    assert record["rows"] == 10
    asked = json.loads((whole / "caption.json").read_text())["settings"]
    assert asked["model"] == "test"
    assert "LONG" in asked["prompt"]


@pytest.mark.parametrize("stage", [name for name in ORDER if name != "cluster"])
def test_a_stage_killed_after_any_item_ends_with_the_same_bytes(
    stage, videos, whole, tmp_path, monkeypatch
):
    folder = videos.parent / f"{tmp_path.name}-{stage}"
    for before in ORDER[: ORDER.index(stage)]:
        run(before, videos, folder)
    add, stops = _Journal.add, 0

    def torn(journal, done):
        add(journal, done)
        data = journal.path.read_bytes()
        journal.path.write_bytes(data[:-5])  # the last line was not whole
        raise KeyboardInterrupt

    while stops < 20:
        count = 0

        def stopping(journal, done):
            nonlocal count
            count += 1
            (torn if count == 2 else add)(journal, done)

        monkeypatch.setattr(_Journal, "add", stopping)
        try:
            assert run(stage, videos, folder).finished
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    monkeypatch.undo()
    assert stops > 0
    for after in ORDER[ORDER.index(stage) + 1 :]:
        run(after, videos, folder)
    assert bytes_of(folder) == bytes_of(whole)
    shutil.rmtree(folder)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_give_the_bytes_of_the_whole(order, videos, whole, tmp_path):
    folder = videos.parent / f"{tmp_path.name}-parts"
    for stage in ORDER:
        if stage == "cluster":
            run(stage, videos, folder)
            continue
        ends = [run(stage, videos, folder, Shard(i, 3)).finished for i in order]
        assert ends[-1]
    assert bytes_of(folder) == bytes_of(whole)
    shutil.rmtree(folder)


def test_a_finished_stage_is_not_done_again(videos, whole, monkeypatch):
    monkeypatch.setattr(_Journal, "add", lambda *_: pytest.fail("done again"))
    before = bytes_of(whole)
    for stage in ORDER:
        assert run(stage, videos, whole).finished
    assert bytes_of(whole) == before


def test_other_settings_or_inputs_are_refused_by_name(videos, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(UserError, match=r"features.json: made with another policy .*middle8"):
        features(folder, COLOURS, "even16")
    with pytest.raises(UserError, match=r"another weights .*delete features.json"):
        features(folder, COLOURS._replace(weights="other"), "middle8")
    path = folder / "shots.jsonl"
    path.write_text(path.read_text().replace('"fps"', '"note": 1, "fps"', 1))
    with pytest.raises(UserError, match=r"another shots\.jsonl"):
        features(folder, COLOURS, "middle8")


def test_a_journal_of_another_plan_is_refused(tmp_path):
    def work(keys):
        yield Done("a", {})
        raise KeyboardInterrupt

    def begin(value):
        stage = Stage(tmp_path, "toy", {"value": value})
        return fill(
            stage, ["a", "b"], lambda part: part.of(["a", "b"]), work,
            lambda gathered: stage.write([]), WHOLE,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        begin(1)
    with pytest.raises(UserError, match=r"1-of-1.jsonl: made with another value \(1, now 2\)"):
        begin(2)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", ":2: not JSON"),
        ('{"id": "x"}', ":2: lacks 'path'"),
        ('{"id": "x", "path": "p", "start": -1}', ":2: start: "),
    ],
)
def test_a_bad_row_is_told_by_its_line(whole, tmp_path, line, fault):
    folder = shutil.copytree(whole, tmp_path / "copy")
    path = folder / "shots.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=fault):
        features(folder, COLOURS, "middle8")


def test_a_stage_that_was_not_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"shots.jsonl: not there.*run dfdbench data curate shots"):
        features(tmp_path, COLOURS)


def test_captions_of_the_chain_are_the_parsed_ones(whole):
    from curation import three

    rows = read_rows(whole, "caption", Captions)
    wanted = [parse(three(shift=shift)) for shift in range(7)]
    for row in rows:
        assert {"long": row.long, "medium": row.medium, "short": row.short} in wanted
