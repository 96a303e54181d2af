"""The check of names that become paths, and every place that asks it."""

import pytest

from dfdbench.utils.errors import UserError
from dfdbench.utils.names import LONGEST, check_name

BAD = [
    "", " ", ".", "..", "../x", "../../owned", "/abs", "a/b", "a\\b", "..\\x", "C:\\x", "C:", "a:b",
    "CON", "con.txt", "NUL", "lpt1", "a\nb", "a\rb", "a\0b", "a\tb", "\x1b[31m", ".hidden", "-rf",
    "~", "a.", "a ", " a", "a*", "a?", "<b>", "a|b", 'a"b', "x" * (LONGEST + 1), "ä" * LONGEST,
    "a\u2028b", "a\udcff",
]  # fmt: skip


@pytest.mark.fault("E.names")
@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_elsewhere_or_fits_nowhere_is_refused_in_one_line(name):
    with pytest.raises(UserError) as caught:
        check_name(name, "study.toml, arm")
    says = str(caught.value)
    assert says.startswith("study.toml, arm ") and "\n" not in says and len(says) < 400


@pytest.mark.parametrize(
    "name", ["dfd", "dfd_w0.5", "dfd · w=0.5", "Größe", "猫", "console", "a-1"]
)
def test_ordinary_names_pass(name):
    assert check_name(name, "arm") == name


@pytest.mark.fault("E.names")
@pytest.mark.parametrize("name", [name for name in BAD if "\udcff" not in name and name])
def test_arms_of_recipes_and_studies_and_ids_of_prompts_are_asked(name, tmp_path):
    import json

    from dfdbench.cli.study import load_study
    from dfdbench.distill.recipe import load_recipe
    from dfdbench.generate.clips import _items
    from dfdbench.generate.suites.base import Prompt, Suite

    text = json.dumps(name)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'method = "dmd2"\narm = {text}\n', encoding="utf-8")
    with pytest.raises(UserError, match="arm"):
        load_recipe(recipe)
    with pytest.raises(UserError, match="arm"):
        load_recipe("toy/dmd2", [f"arm={text}"])
    study = tmp_path / "study.toml"
    study.write_text(f'[arms.{text}]\nrecipe = "toy/dmd2"\n', encoding="utf-8")
    with pytest.raises(UserError, match="arm"):
        load_study(study)
    suite = Suite("s", 1, "", (Prompt(name, "a cat"),), (1,), ())
    with pytest.raises(UserError, match="prompt id"):
        _items(suite, None, tmp_path, (17, 64, 64))


@pytest.mark.fault("E.names")
@pytest.mark.parametrize("name", ["teacher", "real"])
def test_an_arm_of_a_study_does_not_take_the_name_of_an_untrained_one(name, tmp_path):
    from dfdbench.cli.study import load_study

    (tmp_path / "study.toml").write_text(f'[arms.{name}]\nrecipe = "toy/dmd2"\n')
    with pytest.raises(UserError, match=f"arm {name}: every study has it"):
        load_study(tmp_path / "study.toml")
