"""Suites: which prompts and seeds are generated, and which metric families score the clips.

Used by generate (prompts, seeds), scoring (families, attributes) and report. A suite's version is
raised whenever its prompts change. To add one, write a function here or in a file beside this one
and name it in SUITES. toy.py holds the toy's, vbench.py VBench's, streams.py those of causal
students.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfdbench.generate.suites import streams, toy, vbench
from dfdbench.generate.suites.base import EIGHT_SEEDS, GENERAL, WITH_IMAGES, Prompt, Suite
from dfdbench.generate.suites.vbench_info import read_info
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.reading import (
    Name,
    Text,
    numbered_lines,
    parse_json,
    read_text,
    validate,
)

HERE = Path(__file__).parent
MANIFESTS = (".jsonl", ".csv", ".tsv")
FORMS = "write one prompt a line (.txt), or a JSON list of texts, or a JSON map of clips to texts"


def _clips() -> Suite:
    return Suite(
        "clips",
        version=1,
        description="any clips; their prompts come with them",
        prompts=(),
        seeds=(),
        metrics=(GENERAL,),
    )


def _released_clips() -> Suite:
    return Suite(
        "released-clips",
        version=1,
        description="the clips on the DFD paper's project page, beside their known colours",
        prompts=(),
        seeds=(),
        metrics=(GENERAL,),
        reference=HERE / "released_clips.json",
    )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a text file, one a line: `prompt` or `category | prompt`; `#` is a comment.

    Ids are `<category>-<place in it>`, such as food-03; without categories `prompt-007`. A JSON
    file is a list of prompts, or a map from clips to theirs (`read_prompt_map`).

    Raises:
        UserError: the file cannot be read, names no prompt, or names one twice.
    """
    if path.suffix.lower() == ".json":
        return read_prompt_map(path)[0]
    if path.suffix.lower() in MANIFESTS:
        raise UserError(f"{path}: a manifest is an input, not a list of prompts; {FORMS}")
    prompts, counts, seen = list[Prompt](), dict[str, int](), dict[str, int]()
    text = read_text(path, "prompts, one a line")
    for number, line in numbered_lines(re.sub(r"\r\n?", "\n", text)):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        validate(Text, line, f"{path}:{number}", "write that prompt anew")
        category, bar, text = (part.strip() for part in line.rpartition("|"))
        if not text or (bar and not re.fullmatch(r"[a-z0-9][a-z0-9-]*", category)):
            raise UserError(
                f"{path}:{number}: write `category | prompt`, category like slow-motion"
            )
        if text in seen:
            raise UserError(f"{path}:{number}: the prompt of line {seen[text]} again; remove one")
        seen[text] = number
        counts[category] = place = counts.get(category, 0) + 1
        name = f"{category}-{place:02d}" if category else f"prompt-{place:03d}"
        prompts.append(Prompt(name, text, {"category": category} if category else {}))
    if not prompts:
        raise UserError(f"{path}: names no prompt; write one a line")
    return tuple(prompts)


def read_prompt_map(path: Path) -> tuple[tuple[Prompt, ...], dict[str, str]]:
    """Prompts of a JSON file, and file of a clip -> id of its prompt where the file is such a map.

    Ids are `prompt-<place>`; clips of the same text share one.

    Raises:
        UserError: neither a list of texts, each once, nor an object of texts.
    """
    raw = parse_json(read_text(path, "prompts in JSON"), path, FORMS)
    kind = list[Text] if isinstance(raw, list) else dict[Text, Text]
    given: Any = validate(kind, raw, path, FORMS)
    texts = [text.strip() for text in (given.values() if isinstance(given, dict) else given)]
    ids = {text: f"prompt-{place:03d}" for place, text in enumerate(dict.fromkeys(texts), start=1)}
    if not texts or "" in ids:
        raise UserError(f"{path}: {'an empty prompt' if texts else 'names no prompt'}; {FORMS}")
    if isinstance(given, list) and len(ids) < len(texts):
        again = next(text for i, text in enumerate(texts) if text in texts[:i])
        raise UserError(f"{path}: names the prompt {again!r} twice; remove one")
    pairs = given.items() if isinstance(given, dict) else ()
    of_files = {file: ids[text.strip()] for file, text in pairs}
    return tuple(Prompt(name, text) for text, name in ids.items()), of_files


def _prompt_suite(path: Path, description: str) -> Suite:
    """The suite of a file of prompts, named after it."""
    name = validate(Name, path.stem, path, "rename it")
    is_json = path.suffix.lower() == ".json"
    prompts, files = read_any_json(path) if is_json else (read_prompts(path), {})
    return Suite(name, 1, description, prompts, EIGHT_SEEDS, (GENERAL,), files=files)


def read_any_json(path: Path) -> tuple[tuple[Prompt, ...], dict[str, str]]:
    """As `read_prompt_map`; also the prompts of an info file of VBench, whose entries have
    `prompt_en`: clips of it are generated from `aug_prompt_en`, where every entry has one.
    """
    raw = parse_json(read_text(path, "prompts in JSON"), path, FORMS)
    if not (isinstance(raw, list) and raw and isinstance(raw[0], dict) and "prompt_en" in raw[0]):
        return read_prompt_map(path)
    extended = all(isinstance(entry, dict) and "aug_prompt_en" in entry for entry in raw)
    texts: dict[str, Prompt] = {}
    for prompt in read_info(path, extended):
        texts.setdefault(prompt.text, Prompt(prompt.id, prompt.text, long_text=prompt.long_text))
    return tuple(texts.values()), {}


def _ar(name: str) -> Callable[[], Suite]:
    return lambda: streams.ar_suite(name, read_prompts(streams.PROMPTS))


SUITES: dict[str, Callable[[], Suite]] = {
    "toy-t2v": toy.toy_t2v,
    "toy-hue": toy.toy_hue,
    "toy-direction": toy.toy_direction,
    "toy-i2v": toy.toy_i2v,
    "clips": _clips,
    "vbench": vbench.vbench,
    "vbench-extended": lambda: vbench.vbench(extended=True),
    "vbench-i2v": vbench.vbench_i2v,
    "vbench-i2v-extended": lambda: vbench.vbench_i2v(extended=True),
    "vbench-custom": vbench.vbench_custom,
    "released-clips": _released_clips,
    "t2v-animation": lambda: _prompt_suite(
        HERE / "t2v-animation.txt", "70 prompts of animation in seven categories"
    ),
    "t2v-mixed": lambda: _prompt_suite(
        HERE / "t2v-mixed.txt", "70 prompts of live action in seven categories"
    ),
    "ar-toy": streams.ar_toy,
    **{name: _ar(name) for name in streams.SECONDS},
}


def is_suite(name: str) -> bool:
    """Whether a suite is called so, or so with the length of its streams."""
    return name in SUITES or streams.parse_name(name).base in SUITES


def get_suite(name: str) -> Suite:
    """The suite called `name`; an unknown name is refused with near ones.

    A name may end in the length and window of streams: toy-t2v-157f-w5 (suites/streams.py).

    Raises:
        UserError: also where a suite of VBench lacks its info file; the message says how to get it.
    """
    base, *asked = streams.parse_name(name)
    if name not in SUITES and base in SUITES:
        return _streamed(name, get_suite(base), *asked)
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    suite = SUITES[name]()
    ids = [prompt.id for prompt in suite.prompts]
    if len(set(ids)) != len(ids):
        raise UserError(f"suite {name}: two prompts have the same id; give each its own")
    return suite


def _streamed(
    name: str, suite: Suite, frames: int | None, window: int | None, sinks: int | None
) -> Suite:
    """The suite at the length and window that its name ends in."""
    if not suite.prompts or suite.conditions:
        raise UserError(
            f"suite {name}: {suite.name} has no prompts of its own for streams, or takes first "
            "frames; name one of prompts alone, such as toy-t2v-157f-w5"
        )
    if frames is not None and suite.is_streamed:
        raise UserError(
            f"suite {name}: {suite.name} says how long its clips are; leave -{frames}f out"
        )
    if frames is None and not suite.is_streamed:
        raise UserError(
            f"suite {name}: {suite.name} is none of streams; say how many frames, such as "
            f"{suite.name}-157f-w{window or 5}"
        )
    if frames == 0:
        raise UserError(f"suite {name}: a clip has at least 1 frame; write another number")
    return streams.streamed(suite, frames, window, sinks)


def choose_suite(
    name: str,
    prompts: Path | None = None,
    images: Path | None = None,
    models: Sequence[str] = (),
) -> Suite:
    """The suite called `name`, or one of the user's own prompts, named after their file.

    The user's prompts get the length of ar-5s, ar-30s or ar-60s, and both names; and that which
    any other name ends in, such as toy-t2v-157f-w5.

    Args:
        images: folder of first frames, for a suite of VBench that takes them.
        models: of the runs that are to be scored; they decide whose first frames are meant.

    Raises:
        UserError: an unknown name, a file that is no list of prompts or is called like a suite,
            images where none are wanted, or a file of VBench that is not there.
    """
    if images and (prompts or name not in WITH_IMAGES):
        raise UserError(f"--images {images}: only for --suite {' or '.join(WITH_IMAGES)}")
    if prompts is None:
        if name in WITH_IMAGES:
            return vbench.with_images(name, images, models)
        return get_suite(name)
    if is_suite(prompts.stem):
        raise UserError(f"--prompts {prompts}: a suite is called {prompts.stem}; rename the file")
    own = _prompt_suite(prompts, f"prompts of {prompts.name}")
    asked = streams.parse_name(name)
    if asked.base == "ar-toy":
        raise UserError(
            f"--prompts {prompts}: suite ar-toy has the toy's captions; take --suite ar-5s, or "
            "toy-t2v-157f-w5, for prompts of your own"
        )
    if asked.base in streams.SECONDS:
        suite = streams.ar_suite(asked.base, own.prompts)
        own = replace(suite, name=f"{asked.base}-{own.name}", files=own.files)
    return own if not any(asked[1:]) else _streamed(name, own, *asked[1:])


def find_suites() -> tuple[list[Suite], dict[str, str]]:
    """All suites, and those that lack a file of VBench: name -> what, and how to get it."""
    suites, absent = list[Suite](), dict[str, str]()
    for name in SUITES:
        try:
            suites.append(get_suite(name))
        except UserError as error:
            absent[name] = str(error)
    return suites, absent
