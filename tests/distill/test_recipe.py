import pytest

from dfdbench.distill.recipe import load_recipe, recipe_from_dict, shipped_recipes
from dfdbench.utils.errors import UserError


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name):
    recipe = load_recipe(name)
    assert recipe_from_dict(recipe.as_dict()) == recipe


def test_toy_arms_share_everything_but_the_method():
    recipes = [load_recipe(f"toy/{n}") for n in ("dmd2", "dmd2_control", "dfd", "dp_dmd")]
    for section in ("data", "student", "teacher", "optim", "model", "seed"):
        assert len({str(getattr(r, section)) for r in recipes}) == 1, section
    updates = {r.arm: r.schedule.student_updates for r in recipes}
    assert updates["dmd2_control"] == updates["dfd"]
    assert updates["dp_dmd"] == updates["dmd2"] + updates["dfd"]


def test_overrides_reach_nested_keys_with_toml_types():
    recipe = load_recipe(
        "toy/dfd",
        ["dfd.p=0.25", "teacher.cfg=1", "student.input=backward_simulation", "dp_dmd.lambda=0.1",
         "student.times=[0.999, 0.9]", "student.steps=2", "init.recipe=''", "dfd.w=none"],
    )  # fmt: skip
    assert recipe.dfd.p == 0.25 and recipe.teacher.cfg == 1.0
    assert recipe.student.input == "backward_simulation" and recipe.student.times == (0.999, 0.9)
    assert recipe.dp_dmd.weight == 0.1 and recipe.init.recipe == "" and recipe.dfd.w is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dfd.gradient_spaec=score", "'dfd.gradient_spaec'; did you mean dfd.gradient_space"),
        ("optm.lr=1", "'optm'; did you mean optim"),
        ("dfd.gradient_space=v", "known: score, x0"),
        ("optim.lr=fast", "'optim.lr' takes float, not 'fast'"),
        ("optim.batch=1.5", "'optim.batch' takes int"),
        ("optim.accumulate=3", "a divisor of batch"),
        ("optim=3", "'optim' is a section"),
        ("dfd.p", "is not KEY=VALUE"),
        ("dfd.p=2", "in \\[0, 1\\]"),
        ("student.times=[0.9]", "one time for each"),
        ("method.x=1", "'method' is not a section"),
    ],
)
def test_a_wrong_override_names_its_key_and_the_remedy(override, words):
    with pytest.raises(UserError, match=words) as caught:
        load_recipe("toy/dfd", [override])
    assert "\n" not in str(caught.value)


def test_unknown_and_broken_recipes_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="did you mean toy/dfd"):
        load_recipe("toy/dfdd")
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("method = ")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(broken)
    broken.write_text("seed = 1")
    with pytest.raises(UserError, match="lacks the key 'method'"):
        load_recipe(broken)


def test_digest_follows_what_decides_the_weights_only():
    base = load_recipe("toy/dfd")
    same = load_recipe("toy/dfd", ["checkpoint.every_updates=1", "log.every=3"])
    other = load_recipe("toy/dfd", ["dfd.p=0.4"])
    assert base.digest() == same.digest() != other.digest()
