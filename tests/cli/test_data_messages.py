"""What the messages of `dfdbench data` advise can be done: a flag that one names is the command's.

Every text in a module that a command uses is looked at, whether a test can provoke it or not.
"""

import ast
import re
from pathlib import Path

import click
import pytest
import typer

from dfdbench.cli.app import app

PACKAGE = Path(__file__).parents[2] / "dfdbench"
CURATE = "distill/data/curate"
OF_STAGES = ("shots", "caption", "features", "cluster", "grid", "pick", "pack")
COMMANDS = {
    **{f"curate {stage}": [f"{CURATE}/{stage}.py"] for stage in OF_STAGES},
    "describe": ["evaluate/set_rows.py", "evaluate/set_latents.py", "evaluate/set_numbers.py"],
    "encode": ["distill/data/encode.py", "distill/data/sources.py", "distill/data/format.py"],
}
COMMANDS["curate shots"] += [f"{CURATE}/{name}.py" for name in ("cuts", "measures", "letters")]
COMMANDS["curate caption"] += [f"{CURATE}/{name}.py" for name in ("servers", "wording")]
COMMANDS["curate grid"].append(f"{CURATE}/pages.py")
SHARED = {  # and the commands that use them; a flag must be one of all
    f"{CURATE}/work.py": [f"curate {stage}" for stage in OF_STAGES if stage != "pick"],
    f"{CURATE}/footage.py": ["curate caption", "curate features", "curate grid", "curate pack"],
    f"{CURATE}/readers.py": ["curate shots", "describe"],
    f"{CURATE}/rows.py": [f"curate {stage}" for stage in OF_STAGES],
    "utils/decode.py": [*COMMANDS],
    "utils/video.py": [*COMMANDS],
    "utils/files.py": [*COMMANDS],
    "utils/folders.py": [*COMMANDS],
    "utils/reading.py": [*COMMANDS],
    "utils/errors.py": [*COMMANDS],
}
ABOUT_ANOTHER = re.compile(r"dfdbench data encode|--shard (?:auto|\{)")


def options_of(command):
    found = typer.main.get_command(app)
    for word in ["data", *command.split()]:
        found = found.get_command(click.Context(found), word)
    return {name for option in found.params for name in (*option.opts, *option.secondary_opts)}


def texts_of(path):
    """Line and text of every string of a module that is no docstring; f-strings as one."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    documents = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if node in inside or node in documents:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def foreign(path, known):
    return [
        f"{path}:{line}: {flag}"
        for line, text in texts_of(path)
        if not ABOUT_ANOTHER.search(text)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)
        if flag not in known
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_message_advises_only_flags_of_its_command(command):
    known = options_of(command)
    assert len(known) > 1
    assert [fault for path in COMMANDS[command] for fault in foreign(path, known)] == []


def test_a_message_of_several_commands_advises_only_flags_of_all():
    options = {command: options_of(command) for command in COMMANDS}
    for path, commands in SHARED.items():
        assert foreign(path, set.intersection(*(options[c] for c in commands))) == []


def test_every_module_of_curation_is_looked_at():
    looked_at = {path for paths in COMMANDS.values() for path in paths} | {*SHARED}
    there = {f"{CURATE}/{path.name}" for path in (PACKAGE / CURATE).glob("*.py")}
    assert there - looked_at == {f"{CURATE}/__init__.py"}


def test_a_flag_of_another_command_would_be_found():
    faults = foreign("evaluate/clip_scores.py", options_of("describe"))
    assert any(fault.endswith(": --allow-damaged") for fault in faults)
