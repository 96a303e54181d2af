"""Spellings of the version before this one: each still works, with a line that says the new one.

`modern` rewrites a command line before it is parsed, so that no command knows of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dfdbench.utils.errors import UserError


class Spelling(NamedTuple):
    """A command and one of its options, if any, as they were and as they are."""

    command: str
    option: str
    new_command: str
    new_option: str


SPELLINGS = (
    Spelling("export", "", "vbench export", ""),
    Spelling("vbench export", "--method", "vbench export", "--arm"),
    Spelling("leaderboard add", "--method", "leaderboard add", "--arm"),
    Spelling("eval", "--method-name", "eval", "--arm"),
    Spelling("distill", "--plan", "plan", ""),
    Spelling("check", "--update", "check update", ""),
    Spelling("check", "--reference", "check", "--bands"),
)


REMOVED = {
    "--vbench-python": "run the official vbench yourself and give its result files with "
    "--official-results",
    "--official": "give the official vbench's result files with --official-results",
}
"""Options of eval that are gone, and what to do instead."""


def modern(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words after `dfdbench` in this version's spelling, and a hint for each that changed.

    Raises:
        UserError: an option that is gone.
    """
    words, hints = list(words), []
    if words[:1] == ["eval"]:
        for word in words:
            if (option := word.partition("=")[0]) in REMOVED:
                raise UserError(f"{option} is gone: {REMOVED[option]}")
    for old in SPELLINGS:
        command = old.command.split()
        if words[: len(command)] != command:
            continue
        places = [i for i, word in enumerate(words) if word.partition("=")[0] == old.option]
        if old.option and not places:
            continue
        for i in reversed(places):
            value = words[i].removeprefix(old.option)
            words[i : i + 1] = [old.new_option + value] if old.new_option else []
        words[: len(command)] = old.new_command.split()
        was = f"{old.command} {old.option}".strip()
        now = f"{old.new_command} {old.new_option}".strip()
        hints.append(f"hint: dfdbench {was} is now dfdbench {now}; this version takes both")
    return words, hints
