"""The streaming loader: what it gives, in which order, and what it refuses."""

import io
import json
import os
import tarfile

import pytest
import torch
from latent_sets import TEXT, random_samples, write_set
from safetensors.torch import load, save

from dfdbench.distill.data import shards as loader
from dfdbench.distill.data.clips import ClipsInMemory
from dfdbench.distill.data.format import INDEX, ShardIndex, members, read_index, write_index
from dfdbench.distill.data.shards import LatentSet
from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError

COUNT, SHARD = 23, 4


@pytest.fixture(scope="module")
def samples():
    return random_samples(COUNT)


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"), *samples, SHARD)


def test_a_batch_holds_the_samples_of_its_rows_with_the_padding_put_back(folder, samples):
    stream = LatentSet(folder, seed=3)
    batch, rows = stream.batch(5, 9), stream.rows(5, 9)
    assert torch.equal(batch.latents, samples[0][rows]) and batch.latents.dtype == torch.float32
    assert torch.equal(batch.conditioning.prompt_embeds, samples[1][rows])


def test_a_set_within_one_window_streams_as_the_same_clips_in_memory(folder, samples):
    latents, embeds = samples
    held = ClipsInMemory(latents, torch.arange(COUNT), Conditioning(embeds), 3, torch.device("cpu"))
    stream = LatentSet(folder, seed=3, window=6)  # 6 shards
    for start in (0, 17, 40):
        for ours, theirs in zip(stream.batch(start, 8), held.batch(start, 8), strict=True):
            left, right = (x if torch.is_tensor(x) else x.prompt_embeds for x in (ours, theirs))
            assert torch.equal(left, right)


@pytest.mark.parametrize("window", [1, 2, 6])
def test_every_pass_holds_each_sample_once_and_passes_differ(folder, window):
    stream = LatentSet(folder, seed=0, window=window)
    passes = [stream.rows(i * COUNT, COUNT).tolist() for i in range(3)]
    assert all(sorted(rows) == list(range(COUNT)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3


def test_reading_keeps_to_a_window_of_shards(folder):
    rows = LatentSet(folder, seed=0, window=2).rows(0, COUNT)
    shard = (rows // SHARD).tolist()
    changes = [i for i in range(1, COUNT) if set(shard[:i]).isdisjoint(shard[i:])]
    assert len(changes) == 2, "6 shards in windows of 2: the stream leaves a window for good twice"
    whole = (LatentSet(folder, seed=0, window=6).rows(0, COUNT) // SHARD).tolist()
    assert not any(set(whole[:i]).isdisjoint(whole[i:]) for i in range(1, COUNT))


def test_the_order_follows_from_the_seed_and_any_position_needs_no_history(folder):
    one = LatentSet(folder, seed=1, window=2).rows(0, 60)
    late = LatentSet(folder, seed=1, window=2)
    assert torch.equal(late.rows(41, 19), one[41:]) and torch.equal(late.rows(7, 5), one[7:12])
    assert not torch.equal(LatentSet(folder, seed=2, window=2).rows(0, 60), one)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_share_each_pass_without_overlap(folder, ranks):
    """Rank r of W does the rounds r A / W … (r + 1) A / W − 1 of each global batch."""
    rounds, size = 12, 2
    batch, own = rounds * size, rounds // ranks
    iterations = COUNT  # so that whole passes end with a batch: 24 · 23 positions
    seen: dict[int, list[int]] = {}
    for rank in range(ranks):
        stream = LatentSet(folder, seed=0, period=batch, window=2)
        for iteration in range(iterations):
            for round_ in range(rank * own, (rank + 1) * own):
                start = iteration * batch + round_ * size
                for offset, row in enumerate(stream.rows(start, size).tolist()):
                    assert start + offset not in seen
                    seen[start + offset] = row
    order = [seen[position] for position in range(iterations * batch)]
    for start in range(0, len(order), COUNT):
        assert sorted(order[start : start + COUNT]) == list(range(COUNT))


def test_a_ranks_next_batches_are_read_before_they_are_asked_for(folder, monkeypatch):
    monkeypatch.setattr(loader, "AHEAD", 4)
    stream = LatentSet(folder, seed=0, period=12)
    starts = [i * 12 + r for i in range(4) for r in (4, 6)]  # rank 1 of 3, two rounds of 2
    hits = []
    for start in starts:
        hits.append((start, 2) in stream._pending)
        batch = stream.batch(start, 2)
        assert len(stream._pending) <= 2, "memory is bounded"
        assert torch.equal(batch.latents, LatentSet(folder, seed=0).batch(start, 2).latents)
    assert all(hits[4:]), "the jumps over other ranks are known after one global batch"
    stream.batch(starts[-2], 2)  # a probe looks back
    assert (4 * 12 + 4, 2) in stream._pending, "and does not disturb what comes next"


def test_batches_larger_than_the_set_go_through_several_passes(folder):
    batch = LatentSet(folder, seed=0).batch(0, 2 * COUNT + 1)
    assert len(batch.latents) == 2 * COUNT + 1


def rewritten(folder, target, key, change):
    """A copy of the set in which the tensors of one sample went through `change`."""
    index = read_index(folder)
    shards: list[ShardIndex] = []
    for shard in index.shards:
        with (
            tarfile.open(folder / shard.name) as old,
            tarfile.open(target / shard.name, "w", format=tarfile.USTAR_FORMAT) as new,
        ):
            for info in old:
                data = old.extractfile(info).read()
                if info.name == f"{key}.safetensors":
                    data = change(data)
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
        found = [files["safetensors"] for files in members(target / shard.name).values()]
        shards.append(
            shard.model_copy(
                update={
                    "size": (target / shard.name).stat().st_size,
                    "offsets": [m.offset for m in found],
                    "sizes": [m.size for m in found],
                }
            )
        )
    write_index(target / INDEX, index.model_copy(update={"shards": shards}))
    return target


def changed(name, function):
    def change(data):
        tensors = load(data)
        return save({**tensors, name: function(tensors[name]).contiguous()})

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("latents", lambda x: x.index_fill(0, torch.tensor([1]), float("nan"))),
         "latents that are not finite"),
        (changed("prompt_embeds", lambda x: x / 0), "text embeddings that are not finite"),
        (changed("latents", lambda x: x[:, :1]), r"holds latents \[4, 1, 3, 3\]"),
        (changed("prompt_embeds", lambda x: x[:, :2]), "encode the set again"),
        (lambda data: data[:40], "is damaged"),
    ],
)  # fmt: skip
def test_a_bad_sample_is_one_line_that_names_file_and_sample(folder, tmp_path, change, words):
    stream = LatentSet(rewritten(folder, tmp_path, "00005", change), seed=0)
    with pytest.raises(UserError, match=words) as caught:
        stream.batch(0, COUNT)
    assert "shard-00001.tar: sample 00005" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5000])
def test_a_truncated_or_missing_shard_is_refused_when_the_set_is_opened(samples, tmp_path, keep):
    folder = write_set(tmp_path, *samples, SHARD)
    path = folder / "shard-00002.tar"
    path.unlink() if keep == 0 else os.truncate(path, keep)
    with pytest.raises(UserError, match=r"shard-00002\.tar (is missing|has 5000 bytes)"):
        LatentSet(folder, seed=0)


def test_a_folder_without_an_index_and_one_of_another_version_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no finished latent set"):
        LatentSet(tmp_path, seed=0)
    index = json.loads((folder / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(UserError, match=r"index\.json: format: not 1 \(is 99\)"):
        LatentSet(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": "many"}, "samples: not a valid integer"),
        ({"shard": []}, "unknown field 'shard'"),
        ({"shards": [{"name": "a.tar"}]}, r"lacks 'shards\.0\.sha256'"),
    ],
)
def test_a_broken_index_is_one_line_that_names_file_and_field(folder, tmp_path, change, words):
    index = json.loads((folder / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, **change}))
    with pytest.raises(UserError, match=rf"index\.json: {words}.*encode again"):
        read_index(tmp_path)


def test_an_index_is_written_as_it_was_read(folder, tmp_path):
    text = (folder / INDEX).read_text().replace('"fps": 8.0', '"fps": 8')
    (tmp_path / INDEX).write_text(text)
    write_index(tmp_path / "again.json", read_index(tmp_path))
    assert (tmp_path / "again.json").read_text() == text


def test_the_hash_of_a_set_depends_on_samples_and_their_order_only(folder, samples, tmp_path):
    same = write_set(tmp_path / "same", *samples, SHARD, model="other", negative_prompt="x")
    other = write_set(tmp_path / "other", samples[0].flip(0), samples[1], SHARD)
    assert read_index(same).sha256 == read_index(folder).sha256 != read_index(other).sha256


def test_the_stored_negative_serves_its_own_text_only(folder):
    stream = LatentSet(folder, seed=0)
    assert stream.negative("ugly").prompt_embeds.shape == (1, *TEXT)
    assert stream.negative("") is None


def test_shards_are_read_by_webdataset_itself(folder, samples):
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    pattern = str(folder / "shard-{00000..00005}.tar")
    found = list(webdataset.WebDataset(pattern, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{i:05d}" for i in range(COUNT)]
    for i, sample in enumerate(found):
        tensors = load(sample["safetensors"])
        assert torch.equal(tensors["latents"].float(), samples[0][i])
        assert len(tensors["prompt_embeds"]) == 1 + i % TEXT[0], "cut to its own tokens"
        assert json.loads(sample["json"]) == {"prompt": f"clip {i}"}
