"""Several latent sets in one stream: shares, order, resuming, what is refused."""

import pytest
import torch
from latent_sets import LATENTS, random_samples, write_set

from dfdbench.distill.data.clips import check_source
from dfdbench.distill.data.mixture import BLOCK, Mixture
from dfdbench.distill.data.shards import LatentSet
from dfdbench.distill.recipe import load_recipe
from dfdbench.utils.errors import UserError

SIZES, WEIGHTS = (24, 7, 13), (0.2, 0.5, 0.3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("sets")
    return [
        write_set(place / f"set{n}", *random_samples(size, seed=n), 5)
        for n, size in enumerate(SIZES)
    ]


def mixed(folders, seed=0, weights=WEIGHTS):
    return Mixture([LatentSet(folder, seed) for folder in folders], weights, seed)


def test_each_set_gives_its_share_whatever_its_size(folders):
    drawn, first = mixed(folders).places(0, 20_000)
    shares = torch.bincount(drawn) / len(drawn)
    assert shares.tolist() == pytest.approx(WEIGHTS, abs=0.015)
    assert first.tolist() == [0, 0, 0]


def test_a_set_is_passed_through_sample_by_sample(folders):
    """The samples that the mixture takes from a set are the set's own stream, in its order."""
    stream, alone = mixed(folders, 5), [LatentSet(folder, 5) for folder in folders]
    seen = [0, 0, 0]
    for start in range(0, 60, 6):
        batch, (drawn, first) = stream.batch(start, 6), stream.places(start, 6)
        assert batch.latents.shape == (6, *LATENTS)
        assert first.tolist() == seen
        for place, number in enumerate(drawn.tolist()):
            own = alone[number].batch(seen[number], 1)
            assert torch.equal(batch.latents[place], own.latents[0])
            texts = batch.conditioning.prompt_embeds[place], own.conditioning.prompt_embeds[0]
            assert torch.equal(*texts)
            seen[number] += 1
    assert sum(seen) == 60
    assert min(seen) > 0


def test_any_position_is_found_without_what_came_before(folders):
    whole = mixed(folders, 2)
    start = 2 * BLOCK - 3
    drawn, first = whole.places(0, start + 10)
    later, counts = mixed(folders, 2).places(start, 10)
    assert torch.equal(later, drawn[start:])
    assert counts.tolist() == torch.bincount(drawn[:start], minlength=3).tolist()
    assert first.tolist() == [0, 0, 0]
    assert torch.equal(mixed(folders, 2).batch(start, 4).latents, whole.batch(start, 4).latents)
    assert not torch.equal(mixed(folders, 3).places(0, 50)[0], drawn[:50])


def test_facts_are_those_of_all_sets(folders):
    stream = mixed(folders)
    assert len(stream) == sum(SIZES)
    hashes = {mixed(folders, weights=weights).sha256 for weights in (WEIGHTS, (0.5, 0.2, 0.3))}
    assert len(hashes) == 2
    assert mixed(folders[::-1]).sha256 not in hashes
    assert not stream.encodes
    assert stream.negative("ugly") is not None
    assert stream.negative("other") is None


def test_the_spread_is_the_mean_by_weight_of_those_that_are_known(folders, monkeypatch):
    stream = mixed(folders)
    for item, value in zip(stream.sets, (2.0, None, 4.0), strict=True):
        monkeypatch.setattr(item, "spread", lambda value=value: value)
    assert stream.spread() == pytest.approx((0.2 * 2 + 0.3 * 4) / 0.5)
    monkeypatch.setattr(stream, "sets", stream.sets[1:2])
    monkeypatch.setattr(stream, "weights", [1.0])
    assert stream.spread() is None


def test_sets_with_texts_of_other_shapes_are_refused(folders, tmp_path):
    latents, embeds = random_samples(4)
    other = write_set(tmp_path / "other", latents, embeds[..., :3], 4)
    with pytest.raises(UserError, match=r"other: texts of shape .*encode both with one model"):
        mixed([folders[0], other], weights=(0.5, 0.5))


def test_a_folder_that_is_no_set_is_refused_before_a_model_is_fetched(folders, tmp_path):
    given = [f"data.source={folders[0]}", "data.weights=[0.5, 0.5]"]
    recipe = load_recipe("toy/dmd2", [*given, f"data.more_sources=['{tmp_path / 'gone'}']"])
    with pytest.raises(UserError, match=r"gone has no index\.json"):
        check_source(recipe)
    check_source(load_recipe("toy/dmd2", [*given, f"data.more_sources=['{folders[1]}']"]))
    rendered = ["data.weights=[0.5, 0.5]", f"data.more_sources=['{folders[1]}']"]
    with pytest.raises(UserError, match=r"data.more_sources'?: only folders have it"):
        check_source(load_recipe("toy/dmd2", rendered))
