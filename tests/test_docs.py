"""README and docs/: commands that parse, numbers with a source, links that lead somewhere."""

import importlib.util
import re
import shlex
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from test_house import ROOT
from typer.main import get_command

from dfdbench.cli.app import app
from dfdbench.distill.methods import get_method, method_names
from dfdbench.distill.recipe import load_recipe, shipped_recipes
from dfdbench.distill.sections import Recipe
from dfdbench.evaluate.metrics import FAMILY_NAMES, all_metrics
from dfdbench.generate.suites import SUITES
from dfdbench.utils.assets import ASSETS

PAGES = {p.relative_to(ROOT).as_posix(): p for p in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
BLOCK = re.compile(r"^(?: {4}|\$ )(\S.*)$", re.M)
SPAN = re.compile(r"`((?:dfdbench|make) [^`]+)`")
NUMBER = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.])")
of_pages = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/reference.py, which makes the generated parts."""
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands_of(text: str) -> list[str]:
    """Lines of code and code spans that call dfdbench."""
    lines = BLOCK.findall(text) + [line for line in SPAN.findall(text) if len(line.split()) > 2]
    return [line for line in lines if re.search(r"(^|-m )dfdbench ", line) and "…" not in line]


def leaf(words: list[str]):
    """The command that words name, and the rest of the words."""
    command, path = get_command(app), "dfdbench"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{path} {words[0]}"
        path, command, words = f"{path} {words[0]}", command.commands[words[0]], words[1:]
    return path, command, words


@of_pages
def test_every_command_parses_and_its_recipe_takes_its_values(page):
    for line in commands_of(TEXTS[page]):
        words = shlex.split(line, comments=True)
        path, command, rest = leaf(words[words.index("dfdbench") + 1 :])
        if path.split() == words or rest[:1] == ["--install-completion"]:
            continue  # only named
        given = command.make_context(path, rest).params
        recipe = given.get("recipe")
        if recipe in shipped_recipes():
            load_recipe(recipe, given.get("changes") or ())


@of_pages
def test_every_make_target_is_there(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = re.findall(r"(?:^ {4}|`|&& )make ([a-z-]+)", TEXTS[page], re.M)
    assert set(named) <= targets


@of_pages
def test_every_link_leads_to_a_file(page):
    for link in LINK.findall(TEXTS[page]):
        assert (PAGES[page].parent / link).exists(), link


def test_measured_leads_to_every_result():
    linked = {link.removeprefix("../") for link in LINK.findall(TEXTS["docs/measured.md"])}
    assert {p.relative_to(ROOT).as_posix() for p in ROOT.glob("results/**/README.md")} <= linked


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_every_number_of_a_result_is_in_the_file_that_is_named_beside_it(page):
    for paragraph in re.split(r"\n\s*\n", TEXTS[page]):
        linked = [PAGES[page].parent / link for link in LINK.findall(paragraph)]
        results = [p for p in linked if "results" in p.parts and p.suffix == ".md"]
        if not results:
            continue
        for number in set(NUMBER.findall(paragraph)):
            assert backed(number, results), f"{number} is not in {[str(p) for p in results]}"


def test_the_result_of_readme_is_in_the_files_that_it_names():
    section = TEXTS["README.md"].split("## What the toy shows")[1].split("\n## ")[0]
    results = [ROOT / link for link in LINK.findall(section)]
    assert len(results) == 4 and len(set(NUMBER.findall(section))) > 10
    for number in set(NUMBER.findall(section)):
        assert backed(number, results), number


def backed(number: str, results: list[Path]) -> bool:
    """Whether a file has the number, with as many digits or more."""
    places = len(number.partition(".")[2])
    every = {n for path in results for n in NUMBER.findall(path.read_text(encoding="utf-8"))}
    return any(len(n.partition(".")[2]) >= places and
               round(float(n), places) == float(number) for n in every)  # fmt: skip


def test_a_number_that_no_file_has_is_found(tmp_path):
    (tmp_path / "README.md").write_text("It is .1704, and 1.28 times.")
    assert backed(".170", [tmp_path / "README.md"]) and backed("1.3", [tmp_path / "README.md"])
    assert not backed(".171", [tmp_path / "README.md"])
    assert not backed(".17040", [tmp_path / "README.md"])


def test_readme_is_short_and_every_page_is_in_plain_words():
    assert len(TEXTS["README.md"].split()) <= 900
    for page, text in TEXTS.items():
        plain = re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.S)
        found = re.search(r"\b(lacks?|says?|mends?|whole sprites?)\b", plain.replace(", say)", ")"))
        assert not found, f"{page}: {found}"


def test_no_sentence_stands_twice():
    seen: dict[str, str] = {}
    beside = {
        name: (ROOT / name).read_text() for name in ("CONTRIBUTING.md", "baselines/README.md")
    }
    for page, text in (TEXTS | beside).items():
        prose = re.sub(r"^( {4}|\||```.*?^```).*$", "", text, flags=re.M)
        for sentence in re.split(r"(?<=[.:!?])\s+", re.sub(r"<!--.*?-->", "", prose)):
            words = " ".join(sentence.split())
            if len(words.split()) > 7:
                assert words not in seen, f"{page} and {seen[words]}: {words}"
                seen[words] = page


def test_every_generated_part_is_asked_for_by_one_page(reference):
    asked = [n for text in TEXTS.values() for n in re.findall(r"<!-- generated: (.+) -->", text)]
    assert sorted(asked) == sorted(reference.GENERATED)


def test_every_metric_and_family_is_in_the_reference_with_its_definition(reference):
    text = reference.metrics()
    for name, metric in all_metrics().items():
        assert f"| `{name}` " in text and reference.prose(metric.definition) in text, name
    assert all(f"### {name}\n" in text for name in FAMILY_NAMES)


def test_every_key_of_a_recipe_is_in_the_reference_with_its_default(reference):
    text = reference.recipe_keys()
    sections = dict(re.findall(r"### (\S.*)\n([^#]+)", text))
    for item in fields(Recipe):
        own = fields(item.default) if hasattr(item.default, "__dataclass_fields__") else None
        if own is None:
            assert f"| `{item.name}` |" in sections["top level"]
        for key in own or ():
            assert f"| `{key.name}` |" in sections[item.name], key.name
    for name in method_names():
        for key in fields(get_method(name).Options):
            shown = "lambda" if key.name == "weight" and name == "dp_dmd" else key.name
            assert f"| `{shown}` |" in sections[name], key.name
    assert "| `steps` | integer ≥ 1, ≤ 1,000 | `4` |" in sections["student"]
    assert "how often each (long, medium, short) is drawn" in sections["data"]


def test_every_command_and_option_is_in_the_reference(reference):
    text = reference.commands()
    sections = dict(re.findall(r"### dfdbench (.+)\n((?:(?!### ).*\n?)*)", text))

    def look(command, path):
        if hasattr(command, "commands"):
            for name, below in command.commands.items():
                look(below, f"{path} {name}".strip())
        if not hasattr(command, "commands") or (command.invoke_without_command and path):
            for parameter in command.params:
                if not getattr(parameter, "hidden", False):
                    name = getattr(parameter, "opts", [parameter.name])[0]
                    assert name in sections[path], f"{path}: {name}"
            assert "$ dfdbench" in sections[path], path

    look(get_command(app), "")


def test_every_method_recipe_suite_and_asset_is_in_the_reference(reference):
    assert all(f"### {name}\n" in reference.methods() for name in method_names())
    assert all(f"[`{name}`]" in reference.recipes() for name in shipped_recipes())
    assert all(f"| `{name}` |" in reference.suites() for name in SUITES)
    assert all(f"| `{name}` |" in reference.assets() for name in ASSETS)
    assert "eight" in reference.house().lower() and "| `cli/` |" in reference.house()


def test_text_of_a_registry_is_no_markup(reference):
    assert reference.prose("a|b <i> *c* [d] `x*y|z`") == r"a\|b &lt;i> \*c\* \[d\] `x*y|z`"


@pytest.mark.slow
def test_the_site_builds_and_asks_no_network(tmp_path, reference, monkeypatch):
    build = pytest.importorskip("mkdocs.commands.build", reason="extra docs is not installed")
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    pages = {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.rglob("*.html")}
    for name, text in pages.items():
        assert not re.search(r'src="https?:|<link[^>]+href="https?://(?!squid)', text), name
        assert "<!-- generated" not in text and "arithmatex" not in text, name
        for link in re.findall(r'<(?:a|img)[^>]+(?:href|src)="([^"#:?]+)[#"]', text):
            assert name == "404.html" or ((tmp_path / name).parent / link).exists(), (name, link)
    assert pages["methods.html"].count("<math") > 10
    assert all(f"<code>{name}</code>" in pages["metrics.html"] for name in all_metrics())
    assert "GPU-hours" in pages["large-models.html"]
