"""Cards of public students: the shipped ones say sources and fit, others are refused in a line."""

import json

import pytest
import torch
from public_students import card_file
from typer.testing import CliRunner

from dfdbench.cli.app import app
from dfdbench.distill.cards import LOWEST_START, find_card, load_card, shipped_cards
from dfdbench.distill.import_card import _recipe
from dfdbench.distill.recipe import shipped_recipes
from dfdbench.distill.stages import grid, sampling
from dfdbench.models.causal import Layout
from dfdbench.models.flow import shift_time
from dfdbench.models.published_configs import published_name
from dfdbench.models.registry import load_family
from dfdbench.utils.errors import UserError

NEED_SOURCES = (
    "bases", "times", "steps", "shift", "start", "sampler", "cfg", "block_frames", "licence",
)  # fmt: skip
TRIG = (80.0, *torch.tan(torch.tensor([1.5, 1.4, 1.0], dtype=torch.float64)).tolist())
HALF = shift_time(torch.tensor([0.75, 0.5, 0.25], dtype=torch.float64), 5.0).tolist()
GRIDS = {  # independent of the cards' own form: tan / (1 + tan), shifted quarters, labels of 1,000
    "rcm": [tangent / (1 + tangent) for tangent in TRIG],
    "self-forcing": [1.0, *HALF],
    "dfd-self-forcing": [1.0, *HALF],
    "lightx2v-4step": [1.0, *HALF],
    "causvid": [1000 / 1000, 757 / 1000, 522 / 1000],
    "fastwan": [1000 / 1000, 757 / 1000, 522 / 1000],
    "fastvideo-dmd": [1000 / 1000, 757 / 1000, 522 / 1000],
    "dfd": [0.999, 0.937, 0.833, 0.624],
    "dfd-cosmos": [0.999, 0.937, 0.833, 0.624],
}


@pytest.mark.parametrize("name", shipped_cards())
def test_a_shipped_card_gives_the_source_of_every_value(name):
    card = load_card(name)
    for field in NEED_SOURCES:
        given = field in card.model_fields_set and getattr(card, field)
        assert bool(given) == (field in card.sources), field
    assert all(card.sources.values()) and card.repository
    assert card.licence or "licence" in card.unverified
    assert all(published_name(base) for base in card.bases)
    assert card.start == card.grid[0]


@pytest.mark.parametrize("name", shipped_cards())
def test_a_shipped_grid_is_the_published_one_and_passes_a_recipes_checks(name, tiny_family):
    card = load_card(name)
    assert card.grid == pytest.approx(GRIDS[name], abs=1e-12)
    recipe = _recipe(card, tiny_family, "a model")
    assert grid(recipe).tolist() == [*card.grid, 0.0]
    assert sampling(recipe).sampler == card.sampler
    assert recipe.student.layout == card.causal


def test_what_is_causal_says_its_blocks():
    causal = {name for name in shipped_cards() if load_card(name).causal == Layout(3)}
    assert causal == {"self-forcing", "dfd-self-forcing", "causvid"}
    assert all(load_card(n).causal is None for n in set(shipped_cards()) - causal)


def test_cards_are_no_recipes():
    assert not [name for name in shipped_recipes() if name.startswith("cards/")]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"times": [1.2, 0.5]}, r"the time 1.2 is not within \(0, 1\]"),
        ({"times": [1.0, 0.0]}, r"the time 0 is not within \(0, 1\]"),
        ({"times": [1.0, 0.5, 0.5]}, "times must fall from each to the next"),
        ({"times": [1.0, 0.5, 0.6]}, "times must fall from each to the next"),
        ({"times": [0.5, 0.2]}, f"the start time 0.5 is below {LOWEST_START}"),
        ({"times": None}, "says no times"),
        ({"times": None, "steps": 4, "shift": 5.0}, "says no times"),
        ({"times": None, "steps": 4, "shift": 5.0, "start": 0.9}, "times must fall"),
        ({"times": None, "steps": 4, "shift": 5.0, "start": 1.5}, "the time 1.5 is not within"),
        ({"steps": 4, "shift": 5.0}, "both times and steps"),
        ({"start": 0.99}, "start is 0.99, but the first of times 1"),
        ({"cfg": 5.0}, "cfg is 5, but a student is sampled without guidance"),
        ({"cfg": None}, "lacks 'cfg'"),
        ({"sampler": "lcm"}, "sampler: not 'ode' or 'sde'"),
        ({"samplr": "ode"}, r"unknown field 'samplr' \(did you mean sampler"),
        ({"bases": []}, "bases"),
        ({"window_frames": 3}, "window_frames and sink_frames need a causal student"),
        ({"block_frames": 3, "window_frames": 2}, "window_frames = 2 is too small"),
        ({"sources": None, "family": 3}, "family"),
        ({"arm": "../up"}, "cannot name a file"),
    ],
)
def test_a_wrong_card_is_one_line_that_names_the_file(tmp_path, changes, words):
    path = card_file(tmp_path, "toy-t2v", **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_card(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_are_not_there_are_told_with_near_ones(tmp_path):
    with pytest.raises(UserError, match="rcm"):
        find_card("rcn")
    with pytest.raises(UserError, match=r"does not exist; shipped ones: causvid"):
        find_card(tmp_path / "no.toml")


def test_grids_by_steps_and_shift_begin_at_their_start(tmp_path):
    path = card_file(tmp_path, "toy-t2v", times=None, steps=2, shift=5.0, start=0.999)
    assert load_card(path).grid == pytest.approx((0.999, 5 / 6))
    assert load_card(path).arm == "mine"


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_the_commands_list_and_explain_cards():
    rows = json.loads(run("list", "cards", "--json").stdout)
    assert [row["card"] for row in rows] == shipped_cards()
    facts = json.loads(run("explain", "card", "self-forcing", "--json").stdout)
    assert facts["block_frames"].startswith("3 (configs/self_forcing_dmd.yaml")
    assert facts["times"].startswith("1.0, 0.9375")
    assert "0, bidirectional" in run("explain", "card", "rcm").stdout
    for words in (("card",), ("hue_entropy", "rcm"), ("card", "rcn")):
        done = run("explain", *words)
        assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1, done.output


def test_no_shipped_card_fits_a_toy():
    from dfdbench.distill.cards import check_fits

    family = load_family("toy-t2v")
    for name in shipped_cards():
        with pytest.raises(UserError, match=f"--card {name}: ") as caught:
            check_fits(load_card(name), name, family, "toy-t2v")
        assert "--model" in str(caught.value) and "\n" not in str(caught.value)
