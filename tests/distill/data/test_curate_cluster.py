"""Stages `features`, `cluster` and `grid`: vectors, groups without an empty one, candidates."""

import resource
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from curation import mean_colours, write_footage

from dfdbench.distill.data.curate import cluster as clustering
from dfdbench.distill.data.curate.cluster import CENTRES, assign, by_size, cluster, fill_empty
from dfdbench.distill.data.curate.features import (
    ARRAY,
    Embedder,
    features,
    read_features,
    save_array,
)
from dfdbench.distill.data.curate.grid import candidates, even, grid
from dfdbench.distill.data.curate.pages import cluster_page, index_page
from dfdbench.distill.data.curate.rows import Candidate, Member, Shot
from dfdbench.distill.data.curate.shots import Filters, shots
from dfdbench.distill.data.curate.work import Stage, read_rows
from dfdbench.utils.errors import UserError
from dfdbench.utils.video import read_video

LOOSE = Filters(cuts="none", min_seconds=0, min_side=0, min_motion=0, max_text=1, near=0)


def blobs(count: int, groups: int, width: int, seed: int = 0) -> np.ndarray:
    """Directions around `groups` centres, float32 (N, D) of length one, row i of group i mod G."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, width))
    rows = centres[np.arange(count) % groups] + 0.1 * rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_features(folder, array):
    """As the stage leaves them, without videos."""
    folder.mkdir(parents=True, exist_ok=True)
    save_array(folder / ARRAY, len(array), iter(array))
    rows = ({"id": f"s{i:06d}", "row": i} for i in range(len(array)))
    Stage(folder, "features", {}).write(rows, [folder / ARRAY])
    return folder


# features


def test_a_feature_is_the_mean_of_the_frames_at_length_one(tmp_path):
    videos = write_footage(tmp_path / "videos", count=3)
    shots([videos], tmp_path / "cut", LOOSE)
    features(tmp_path / "cut", Embedder("colours", "", mean_colours), "all")
    ids, array = read_features(tmp_path / "cut")
    assert ids == [row.id for row in read_rows(tmp_path / "cut", "shots", Shot)]
    for i in range(3):
        mean = mean_colours(read_video(videos / f"clip-{i}.mp4").frames).mean(0)
        assert array[i] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_shots_without_features_are_left_out_by_name(tmp_path):
    videos = write_footage(tmp_path / "videos", count=3)
    shots([videos], tmp_path / "cut", LOOSE)
    (videos / "clip-1.mp4").unlink()
    features(tmp_path / "cut", Embedder("colours", "", mean_colours), "all")
    rows = (tmp_path / "cut" / "features.jsonl").read_text().splitlines()
    assert "no such video" in rows[1]
    ids, array = read_features(tmp_path / "cut")
    assert array.shape == (2, 27)
    assert ids == [r.id for i, r in enumerate(read_rows(tmp_path / "cut", "shots", Shot)) if i != 1]


def test_features_that_are_not_finite_are_no_features(tmp_path):
    videos = write_footage(tmp_path / "videos", count=1)
    shots([videos], tmp_path / "cut", LOOSE)
    for value in (np.nan, 0.0):
        embed = Embedder("constant", "", lambda frames, v=value: np.full((len(frames), 3), v))
        with pytest.raises(UserError, match="the first: its features are not finite, or zero"):
            features(tmp_path / "cut", embed)


@pytest.mark.parametrize("damage", ["cut", "shape", "nan", "gone"])
def test_damaged_features_are_told(tmp_path, damage):
    folder = write_features(tmp_path, blobs(8, 2, 4))
    path = folder / ARRAY
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:100])
        case "shape":
            np.save(path, np.ones((7, 4), np.float32))
        case "nan":
            np.save(path, np.full((8, 4), np.nan, np.float32))
        case "gone":
            path.unlink()
    with pytest.raises(UserError, match=r"features\.npy: .*data curate features again"):
        cluster(folder, 2, backend="sklearn")


# cluster


@pytest.mark.parametrize("backend", ["sklearn", "faiss"])
def test_groups_are_found_and_repeat(tmp_path, backend):
    pytest.importorskip("faiss" if backend == "faiss" else "sklearn")
    folder = write_features(tmp_path, blobs(300, 5, 16))
    cluster(folder, 5, 7, backend)
    rows = read_rows(folder, "cluster", Member)
    label = np.array([row.cluster for row in rows])
    groups = {tuple(np.unique(label[group::5])) for group in range(5)}
    assert len(groups) == 5
    assert all(len(group) == 1 for group in groups)
    first = (folder / "cluster.jsonl").read_bytes(), (folder / CENTRES).read_bytes()
    (folder / "cluster.json").unlink()
    cluster(folder, 5, 7, backend)
    assert ((folder / "cluster.jsonl").read_bytes(), (folder / CENTRES).read_bytes()) == first
    array, centres = np.load(folder / ARRAY), np.load(folder / CENTRES)
    wanted = np.linalg.norm(array - centres[label], axis=1)
    assert [row.distance for row in rows] == pytest.approx(wanted, abs=1e-5)


def test_without_a_number_it_is_the_root_of_half_the_shots(tmp_path):
    pytest.importorskip("sklearn")
    folder = write_features(tmp_path, blobs(200, 10, 8))
    cluster(folder, backend="sklearn")
    assert 1 + max(row.cluster for row in read_rows(folder, "cluster", Member)) == 10


def test_an_empty_cluster_gets_the_row_that_is_worst_off():
    array = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [40, 0]], np.float32)
    centres = np.array([[0, 0.5], [10, 0.5], [-90, 0]], np.float32)
    label, distance, new = fill_empty(array, centres)
    assert label.tolist() == [0, 0, 1, 1, 2]
    assert new[2].tolist() == [40, 0]
    assert distance.tolist() == [0.5, 0.5, 0.5, 0.5, 0]


def test_where_rows_are_alike_clusters_that_stay_empty_are_dropped():
    array = np.array([[1, 0]] * 4 + [[0, 1]] * 2, np.float32)
    label, distance, centres = fill_empty(array, np.zeros((5, 2), np.float32))
    assert len(centres) == 2
    assert np.unique(label).tolist() == [0, 1]
    assert distance.tolist() == [0] * 6


def test_clusters_are_numbered_by_falling_size_then_first_row():
    label, centres = by_size(np.array([2, 0, 1, 1, 2]), np.array([[0.0], [1], [2]]))
    assert label.tolist() == [0, 2, 1, 1, 0]
    assert centres.flatten().tolist() == [2, 1, 0]


def test_assignment_is_the_nearest_centre_over_blocks(monkeypatch):
    monkeypatch.setattr(clustering, "ROWS", 7)
    array, centres = blobs(50, 3, 6), blobs(4, 4, 6, seed=1)
    label, distance = assign(array, centres)
    table = np.linalg.norm(array[:, None] - centres[None], axis=2)
    assert label.tolist() == table.argmin(1).tolist()
    assert distance == pytest.approx(table.min(1), abs=1e-6)


def test_more_clusters_than_shots_are_refused(tmp_path):
    with pytest.raises(UserError, match="--clusters 9: there are 8 shots"):
        cluster(write_features(tmp_path, blobs(8, 2, 4)), 9)


# grid


def test_places_are_even_and_hold_both_ends():
    assert even(101, 5) == [0, 25, 50, 75, 100]
    assert even(3, 10) == [0, 1, 2]
    assert even(7, 1) == [0]
    assert even(1, 4) == [0]


def test_candidates_stand_at_even_percentiles_of_each_cluster():
    rows = [Member(id=f"a{i}", cluster=1, distance=(i * 7) % 11) for i in range(11)]
    rows += [Member(id="b", cluster=0, distance=3)]
    found = candidates(rows, 3)
    assert [(c.cluster, c.distance, c.percentile, c.size) for c in found] == [
        (0, 3, 0, 1),
        (1, 0, 0, 11),
        (1, 5, 50, 11),
        (1, 10, 100, 11),
    ]


class Texts(HTMLParser):
    """The tags of a page, its texts, and the values of its boxes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.texts, self.values = list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for name, value in attrs if tag == "input" and name == "value"]

    def handle_data(self, data):
        self.texts.append(data)


def test_captions_and_names_are_text_on_the_pages():
    evil = "<script>alert(1)</script> \"x\" & 'y' </label><img src=x onerror=alert(1)>"
    candidate = Candidate(
        id='"><b>', cluster=0, distance=0.5, percentile=0, size=1, strip='grid/"><b>.jpg',
        short=evil,
    )  # fmt: skip
    for page in (cluster_page(0, [candidate], [0]), index_page({0: [candidate]})):
        read = Texts(page)
        assert read.tags.count("script") == 1
        assert read.tags.count("img") == 1
        assert "b" not in read.tags
    page = Texts(cluster_page(0, [candidate], [0]))
    assert page.values == ["checkbox", '"><b>'] or page.values == ['"><b>']
    assert evil in "".join(page.texts)


def test_a_page_a_cluster_with_a_strip_a_candidate(tmp_path):
    pytest.importorskip("sklearn")
    videos, folder = write_footage(tmp_path / "videos", count=6), tmp_path / "cut"
    (videos / "clip-0.txt").write_text("a ball over <snow>")
    shots([videos], folder, LOOSE)
    features(folder, Embedder("colours", "", mean_colours))
    cluster(folder, 2, backend="sklearn")
    grid(folder, 2)
    found = read_rows(folder, "grid", Candidate)
    assert {c.cluster for c in found} == {0, 1}
    for candidate in found:
        assert (folder / candidate.strip).read_bytes()[:2] == b"\xff\xd8"
        page = (folder / "grid" / f"cluster-{candidate.cluster:04d}.html").read_text()
        assert candidate.id in Texts(page).values
    assert [c.short for c in found if c.short] in ([], ["a ball over <snow>"])


def test_clusters_of_other_shots_are_refused_by_line(tmp_path):
    videos, folder = write_footage(tmp_path / "videos", count=1), tmp_path / "cut"
    shots([videos], folder, LOOSE)
    Stage(folder, "cluster", {}).write([{"id": "other", "cluster": 0, "distance": 0.1}])
    with pytest.raises(UserError, match=r"cluster.jsonl:1: shots.jsonl keeps no other"):
        grid(folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sklearn", "faiss"])
def test_a_hundred_thousand_shots_cluster_in_minutes(tmp_path, backend, capsys):
    pytest.importorskip("faiss" if backend == "faiss" else "sklearn")
    folder = write_features(tmp_path, blobs(100_000, 300, 768))
    start = time.monotonic()
    cluster(folder, 300, 0, backend)
    middle = time.monotonic()
    rows = read_rows(folder, "cluster", Member)
    found = candidates(rows, 10)
    end, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with capsys.disabled():
        print(
            f"\n{backend}: 100,000 × 768, 300 clusters in {middle - start:.0f} s, candidates in "
            f"{end - middle:.1f} s; peak memory of the process {peak:.1f} GiB"
        )
    sizes = np.bincount([row.cluster for row in rows])
    assert len(found) == np.minimum(sizes, 10).sum()
    assert len(sizes) == 300
    assert middle - start < 1800
