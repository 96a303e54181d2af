"""Suites: which prompts and seeds are generated, and which metric families score the clips.

Used by generate (prompts, seeds), scoring (families, attributes) and report. A suite's version is
raised whenever its prompts change. To add one, write a function here or in a file beside this one
and name it in SUITES. toy.py holds the toy's, vbench.py VBench's.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dfdbench.generate.suites import toy, vbench
from dfdbench.generate.suites.base import EIGHT_SEEDS, GENERAL, WITH_IMAGES, Prompt, Suite
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.reading import numbered_lines, read_text

HERE = Path(__file__).parent


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

    Ids are `<category>-<place in it>`, such as food-03; without categories `prompt-007`.

    Raises:
        UserError: the file cannot be read, names no prompt, or names one twice.
    """
    prompts, counts, seen = list[Prompt](), dict[str, int](), dict[str, int]()
    for number, line in numbered_lines(read_text(path, "prompts, one a line")):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
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


def _prompt_suite(path: Path, description: str) -> Suite:
    """The suite of a file of prompts, named after it."""
    return Suite(path.stem, 1, description, read_prompts(path), EIGHT_SEEDS, (GENERAL,))


SUITES: dict[str, Callable[[], Suite]] = {
    "toy-t2v": toy.toy_t2v,
    "toy-i2v": toy.toy_i2v,
    "clips": _clips,
    "vbench": vbench.vbench,
    "vbench-i2v": vbench.vbench_i2v,
    "vbench-custom": vbench.vbench_custom,
    "released-clips": _released_clips,
    "t2v-animation": lambda: _prompt_suite(
        HERE / "t2v-animation.txt", "70 prompts of animation in seven categories"
    ),
    "t2v-mixed": lambda: _prompt_suite(
        HERE / "t2v-mixed.txt", "70 prompts of live action in seven categories"
    ),
}


def get_suite(name: str) -> Suite:
    """The suite called `name`; an unknown name is refused with near ones.

    Raises:
        UserError: also where a suite of VBench lacks its info file; the message says how to get it.
    """
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    suite = SUITES[name]()
    ids = [prompt.id for prompt in suite.prompts]
    if len(set(ids)) != len(ids):
        raise UserError(f"suite {name}: two prompts have the same id; give each its own")
    return suite


def choose_suite(
    name: str,
    prompts: Path | None = None,
    images: Path | None = None,
    models: Sequence[str] = (),
) -> Suite:
    """The suite called `name`, or one of the user's own prompts, named after their file.

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
    if prompts.stem in SUITES:
        raise UserError(f"--prompts {prompts}: a suite is called {prompts.stem}; rename the file")
    return _prompt_suite(prompts, f"prompts of {prompts.name}")


def find_suites() -> tuple[list[Suite], dict[str, str]]:
    """All suites, and those that lack a file of VBench: name -> what, and how to get it."""
    suites, absent = list[Suite](), dict[str, str]()
    for name in SUITES:
        try:
            suites.append(get_suite(name))
        except UserError as error:
            absent[name] = str(error)
    return suites, absent
