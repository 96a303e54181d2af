"""Suites: which prompts and seeds are generated, and which metric families score the clips.

Used by generate (prompts, seeds), scoring (families, attributes) and report. A suite's version is
raised whenever its prompts change. To add one, write a function below and name it in SUITES.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dfdbench.errors import UserError, unknown_name


@dataclass(frozen=True)
class Prompt:
    """One prompt; `id` is a file name, `attributes` are what the text fixes."""

    id: str
    text: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Prompts, default seeds and metric families.

    prompts: empty where they come with the videos (a manifest). reference: a JSON file of
    published or known values that the scores are compared with (dfdbench.released).
    """

    name: str
    version: int
    description: str
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    reference: Path | None = None

    def prompt(self, prompt_id: str) -> Prompt:
        """The prompt with this id; an unknown id is refused with near ones."""
        for prompt in self.prompts:
            if prompt.id == prompt_id:
                return prompt
        raise unknown_name(
            f"prompt id of suite {self.name}", prompt_id, [p.id for p in self.prompts]
        )

    def check_prompt(self, prompt_id: str) -> None:
        """Refuse a prompt id that the suite lacks; a suite without prompts accepts any."""
        if self.prompts:
            self.prompt(prompt_id)


def _toy_t2v() -> Suite:
    from dfdbench.toy.world import captions

    return Suite(
        "toy-t2v",
        version=1,
        description="12 captions that fix shape and scene; hue, direction and pan are free",
        prompts=tuple(
            Prompt(c.id, c.text, {"shape": c.shape, "scene": c.scene}) for c in captions()
        ),
        seeds=tuple(range(1, 17)),
        metrics=("oracle", "colour", "flicker"),
    )


def _released_clips() -> Suite:
    return Suite(
        "released-clips",
        version=1,
        description="any real clips with a manifest, such as those on the DFD paper's project page",
        prompts=(),
        seeds=(),
        metrics=("colour", "flicker"),
        reference=Path(__file__).parent / "released_clips.json",
    )


SUITES: dict[str, Callable[[], Suite]] = {
    "toy-t2v": _toy_t2v,
    "released-clips": _released_clips,
}


@cache
def get_suite(name: str) -> Suite:
    """The suite called `name`; an unknown name is refused with near ones."""
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    suite = SUITES[name]()
    ids = [prompt.id for prompt in suite.prompts]
    if len(set(ids)) != len(ids):
        raise UserError(f"suite {name}: two prompts have the same id; give each its own")
    return suite


def list_suites() -> list[Suite]:
    """All suites."""
    return [get_suite(name) for name in SUITES]
