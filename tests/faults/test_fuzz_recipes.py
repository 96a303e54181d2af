"""Recipes and studies with any value in any place: it is used as written, or refused in a line."""

import tomllib

import pytest
from fuzzing import FUZZ, limited, one_line, paths, put, same, texts, toml, values
from hypothesis import assume, given
from hypothesis import strategies as st

from dfdbench.cli.study import load_study
from dfdbench.distill.recipe import baselines_folder, load_recipe
from dfdbench.utils.errors import UserError

NAMES = ["toy/dfd", "toy/dmd2", "toy/dp_dmd", "wan2.1-t2v-1.3b/dfd_gan"]
RECIPES = {name: load_recipe(name).as_dict() for name in NAMES}
STUDY = tomllib.loads((baselines_folder() / "toy/studies/main.toml").read_text(encoding="utf-8"))


@st.composite
def changed(draw: st.DrawFn) -> tuple[dict, list, object]:
    """A recipe with one value changed, its place and the value."""
    recipe = RECIPES[draw(st.sampled_from(NAMES))]
    place = draw(st.sampled_from(paths(recipe)))
    value = draw(values)
    return put(recipe, place, value), place, value


def used_as_it_is_or_refused(place, value, *recipe) -> None:
    """What `load_recipe` makes of a recipe that has the value at that place."""
    try:
        with limited():
            inner = load_recipe(*recipe).as_dict()
            for key in place:
                inner = inner[key]
    except UserError as error:
        assert one_line(error)
        return
    named_after_method = place == ["arm"] and value == ""
    # Of a table, what is not given is at its default.
    if not isinstance(value, dict) and not named_after_method:
        assert same(inner, value), (place, value)


@pytest.mark.fault("F.recipe", "A9", "C.recipe")
@FUZZ
@given(changed())
def test_a_value_of_a_recipe_is_used_as_it_is_or_refused(tmp_path_factory, change) -> None:
    table, place, value = change
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_bytes(toml(table).encode("utf-8", "surrogatepass"))
    used_as_it_is_or_refused(place, value, path)


@pytest.mark.fault("F.recipe", "A9")
@FUZZ
@given(st.sampled_from(paths(RECIPES["toy/dfd"])), st.one_of(values, texts))
def test_a_value_of_set_is_used_as_it_is_or_refused(place, value) -> None:
    key = ".".join(map(str, place))
    text = toml({"x": value}).removeprefix('"x" = ').rstrip("\n")
    try:
        tomllib.loads(f"x = {text}")
    except (ValueError, UnicodeError):
        assume(False)  # text that is no TOML stands for itself
    used_as_it_is_or_refused(place, value, "toy/dfd", [f"{key}={text}"])


@pytest.mark.fault("F.recipe", "F.study", "C.recipe")
@FUZZ
@given(st.one_of(st.binary(max_size=100), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused_in_a_line(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("bytes") / "r.toml"
    path.write_bytes(data)
    for read in (load_recipe, load_study):
        try:
            with limited():
                read(path)
        except UserError as error:
            assert one_line(error)


@pytest.mark.fault("F.study", "C.study", "E.paths")
@FUZZ
@given(st.sampled_from(paths(STUDY)), values, texts)
def test_a_value_of_a_study_is_used_as_it_is_or_refused(tmp_path_factory, place, value, name):
    path = tmp_path_factory.mktemp("study") / "s.toml"
    table = put(STUDY, place, value)
    table["arms"] = (
        {name: {"recipe": "toy/dmd2"}, **table["arms"]} if "arms" in place[1:] else (table["arms"])
    )
    path.write_bytes(toml(table).encode("utf-8", "surrogatepass"))
    try:
        with limited():
            study = load_study(path)
    except UserError as error:
        assert one_line(error)
        return
    assert [arm.name for arm in study.arms] == list(table["arms"])
    for arm in study.arms:
        own = table["arms"][arm.name]
        assert same(arm.recipe, own.get("recipe", "")) and same(arm.init, own.get("init"))
        assert same(list(arm.changes), own.get("set", []))
    assert same(study.seeds, table.get("seeds", study.seeds))


@pytest.mark.fault("C.study")
@pytest.mark.parametrize("text", ["arms=3", "arms=[]", "[arms]\ndfd=3", "[arms.dfd]\nrecipe=3"])
def test_arms_that_are_no_tables_are_one_line(tmp_path, text) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"s\.toml") as caught:
        load_study(tmp_path / "s.toml")
    assert one_line(caught.value)
