"""Prompts of one clip with the seconds at which each begins, and their file.

Used by stream.py: a causal student goes on under another prompt from the next block on.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from dfdbench.generate.suites import is_suite
from dfdbench.generate.suites.base import EIGHT_SEEDS, GENERAL, Prompt, Suite
from dfdbench.utils.errors import UserError
from dfdbench.utils.names import check_name
from dfdbench.utils.reading import Outside, Text, numbered_lines, parse_json, read_text, validate

FORMS = (
    "write SECONDS | PROMPT a line, times rising, the first 0; or JSON: "
    '[{"seconds": 0, "prompt": "a cat"}, …]'
)
LINE = re.compile(r"\s*([^\s|]+)\s*[|\t]\s*(\S.*)")


class Switch(NamedTuple):
    """A prompt and the second of the clip at which it begins."""

    seconds: float
    prompt: str


class Entry(Outside):
    """One prompt of a JSON file."""

    seconds: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
    prompt: Text


class Schedule(NamedTuple):
    """The prompts of one clip in their order, and the file that they come from."""

    path: Path
    switches: tuple[Switch, ...]

    def prompts(self, begins: Sequence[float]) -> list[str]:
        """The prompt of each block; `begins` are the seconds at which blocks begin, from 0 on.

        A prompt takes over at the first block that begins at its time or later.

        Raises:
            UserError: a prompt gets no block, as the clip or the next prompt ends before.
        """
        numbers = [
            max(i for i, switch in enumerate(self.switches) if switch.seconds <= begin)
            for begin in begins
        ]
        for number, switch in enumerate(self.switches):
            if number not in numbers:
                raise UserError(
                    f"{self.path}: the prompt at {switch.seconds:g} seconds gets no block, for the "
                    f"last one begins at {begins[-1]:g} seconds, or no block begins before the "
                    "next prompt; move it, remove it, or raise --frames"
                )
        return [self.switches[number].prompt for number in numbers]

    def suite(self) -> Suite:
        """Of one prompt that is called like the file; its text names all prompts.

        Raises:
            UserError: the file's name is no file name for clips, or a suite's.
        """
        name = self.path.stem
        if is_suite(name):
            raise UserError(
                f"--prompt-schedule {self.path}: a suite is called {name}; rename the file"
            )
        check_name(name, f"--prompt-schedule {self.path}")
        text = " | ".join(switch.prompt for switch in self.switches)
        about = f"prompts of {self.path.name}, one after the other"
        return Suite(name, 1, about, (Prompt(name, text),), EIGHT_SEEDS, (GENERAL,))


def read_schedule(path: Path) -> Schedule:
    """The prompts of a file: `SECONDS | PROMPT` a line (or a tab; `#` is a comment), or JSON.

    Raises:
        UserError: the file cannot be read, or the times do not rise from 0.
    """
    text = read_text(path, "prompts with their times")
    if path.suffix.lower() == ".json":
        entries = validate(list[Entry], parse_json(text, path, FORMS), path, FORMS)
        places = [f"{path}: entry {number}" for number in range(1, len(entries) + 1)]
        switches = [Switch(entry.seconds, entry.prompt.strip()) for entry in entries]
    else:
        places, switches = [], []
        for number, line in numbered_lines(re.sub(r"\r\n?", "\n", text)):
            if line.strip() and not line.lstrip().startswith("#"):
                places.append(f"{path}:{number}")
                switches.append(_switch(line, places[-1]))
    if not switches:
        raise UserError(f"{path}: names no prompt; {FORMS}")
    before = -1.0
    for place, switch in zip(places, switches, strict=True):
        if not switch.prompt:
            raise UserError(f"{place}: an empty prompt; {FORMS}")
        if before < 0 < switch.seconds:
            raise UserError(f"{place}: begins at {switch.seconds:g} seconds, not at 0; {FORMS}")
        if switch.seconds <= before:
            raise UserError(
                f"{place}: {switch.seconds:g} seconds after {before:g}; bring the times in order"
            )
        before = switch.seconds
    return Schedule(path, tuple(switches))


def _switch(line: str, place: str) -> Switch:
    match = LINE.fullmatch(line)
    try:
        seconds = float(match[1]) if match else math.nan
    except ValueError:
        seconds = math.nan
    if match is None or not 0 <= seconds < math.inf:
        raise UserError(f"{place}: no time and prompt; {FORMS}")
    return Switch(seconds, validate(Text, match[2].strip(), place, "write that prompt anew"))
