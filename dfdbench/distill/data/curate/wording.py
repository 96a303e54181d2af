"""What a captioner is asked for, and how its answer is read: three captions of one pass.

Pure functions of text. Used by caption.py.
"""

import json
import re
from typing import NamedTuple

from dfdbench.distill.data.sources import LEVELS
from dfdbench.utils.reading import clean_text


class Length(NamedTuple):
    """Words that a caption may have, both ends included."""

    least: int
    most: int


LENGTHS = {"long": Length(60, 450), "medium": Length(20, 120), "short": Length(3, 30)}
SLACK = 1.2  # by which an answer may miss them: models count badly
TOKENS_A_WORD = 2.0  # of English in any common vocabulary there are fewer
MAX_TOKENS = int(TOKENS_A_WORD * sum(length.most for length in LENGTHS.values()))
"""Room for all three captions at their longest; with 512 a long one is cut before the others."""

PROMPT = (
    "These are frames of one video in their order. Describe the video, as a prompt from which it "
    "could be made: subjects and their looks, what they do, the setting, light and colours, the "
    "style (such as photographic, 2D animation, 3D animation, clay, watercolour), and how the "
    "camera moves. Say only what can be seen; do not speak of frames, images or uncertainty. "
    "Answer in English with exactly three captions, each on one line, and nothing else:\n"
    + "\n".join(
        f"{level.upper()}: {length.least} to {length.most} words"
        for level, length in LENGTHS.items()
    )
)

LABEL = re.compile(
    rf"^[\s>#*_`-]*({'|'.join(LEVELS)})(?: caption)?[\s*_`]*[:：][\s*_`]*",
    re.IGNORECASE | re.MULTILINE,
)
FENCE = re.compile(r"\A\s*```\w*\s*|\s*```\s*\Z")
THOUGHT = re.compile(r"\A\s*(?:<think>)?.*?</think>", re.DOTALL)
REFUSAL = re.compile(
    r"\b(?:i(?:'|’)?m sorry|i am sorry|i can(?:not|(?:'|’)t)|as an ai\b"
    r"|unable to (?:view|see|assist))",
    re.IGNORECASE,
)


class Unusable(ValueError):
    """An answer that is not three captions; its text says why."""


def parse(answer: str) -> dict[str, str]:
    """The captions of an answer by level, each on one line.

    What a reasoning model thought first, Markdown around labels and quotes around captions are
    taken away; JSON with the three labels as keys is read too.

    Raises:
        Unusable: a label is missing, twice or out of order, a caption's words are too few or too
            many, it does not end, says that there is none, or is not shorter than the one before.
    """
    text = _from_json(THOUGHT.sub("", answer))
    labels = [match for match in LABEL.finditer(text)]
    names = [match[1].lower() for match in labels]
    if names != [*LEVELS]:
        wanted = ", ".join(level.upper() for level in LEVELS)
        raise Unusable(f"labels are {', '.join(names).upper() or 'none'}, not {wanted}")
    ends = [match.start() for match in labels[1:]] + [len(text)]
    captions = {}
    for match, level, end in zip(labels, LEVELS, ends, strict=True):
        captions[level] = _checked(level, text[match.end() : end])
    counts = [len(captions[level].split()) for level in LEVELS]
    if not counts[0] > counts[1] > counts[2]:
        raise Unusable(f"captions of {counts[0]}, {counts[1]} and {counts[2]} words do not shrink")
    return captions


def _from_json(text: str) -> str:
    """The lines that were asked for, where an answer is a JSON object instead; else the answer."""
    bare = FENCE.sub("", text).strip()
    try:
        value = json.loads(bare) if bare.startswith("{") else None
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict) or not all(isinstance(told, str) for told in value.values()):
        return text
    return "\n".join(f"{label}: {' '.join(told.split())}" for label, told in value.items())


def _checked(level: str, raw: str) -> str:
    caption = " ".join(raw.split()).strip('*_`"“” ')
    words, length = len(caption.split()), LENGTHS[level]
    if not length.least / SLACK <= words <= length.most * SLACK:
        raise Unusable(f"{level}: {words} words, wanted {length.least} to {length.most}")
    if REFUSAL.search(caption):
        raise Unusable(f"{level}: a refusal ({caption[:40]}…)")
    if level != "short" and caption[-1] not in ".!?\"”'’)。":
        raise Unusable(f"{level}: does not end ({caption[-30:]})")
    try:
        return clean_text(caption)
    except ValueError as error:
        raise Unusable(f"{level}: {error}") from None
