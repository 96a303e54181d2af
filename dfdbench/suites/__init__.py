"""Suites: which prompts and seeds are generated, and which metric families score the clips.

Used by generate (prompts, seeds), scoring (families, attributes) and report. A suite's version is
raised whenever its prompts change. To add one, write a function below and name it in SUITES.
VBench's own suites are in vbench.py.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dfdbench.errors import UserError, unknown_name

HERE = Path(__file__).parent
EIGHT_SEEDS = tuple(range(1, 9))  # as the DFD paper scores diversity
GENERAL = (
    "colour",
    "flicker",
    "camera",
    "dis_flow",
    "brisque",
    "rife39",
    "effnet_lite2",
    "lpips_alex",
    "clip_vit_l14",
    "dinov2_l",
    "dinov3_l",
)  # families for any clips; those without their weights are skipped by name
VBENCH_QUALITY = (
    "vbench_subject_consistency",
    "vbench_background_consistency",
    "flicker",
    "vbench_motion_smoothness",
    "vbench_dynamic_degree",
    "vbench_aesthetic_quality",
    "vbench_imaging_quality",
)  # families of VBench's dimensions that ask for neither a prompt nor an image
VBENCH = (
    *VBENCH_QUALITY,
    "vbench_viclip",
    "vbench_i2v_subject",
    "vbench_i2v_background",
)  # VBench's dimensions that mean something for clips of any prompt
FLICKERING = "temporal_flickering"
FILTERED_SEEDS = tuple(range(25))  # of its prompts in VBench, whose static filter keeps five
WITH_IMAGES = ("vbench-i2v", "vbench-custom")  # suites that first frames may be given to
TOY_PICTURE = "toy-i2v-picture"  # conditions: one first frame a prompt, for all its clips
STAND_INS = ("rife39", "dis_flow", "brisque")  # beside them, in columns of their own


@dataclass(frozen=True)
class Prompt:
    """One prompt; `id` is a file name, `attributes` are what the text fixes.

    dimensions: VBench's dimensions that it is for; () means all. auxiliary: VBench's
    auxiliary_info. image: the first frame that a clip of it should continue.
    """

    id: str
    text: str
    attributes: dict[str, str] = field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    image: Path | None = None


@dataclass(frozen=True)
class Suite:
    """Prompts, default seeds and metric families.

    prompts: empty where they come with the videos (a manifest). reference: a JSON file of
    published or known values that the scores are compared with (dfdbench.released). protocol:
    "t2v" or "i2v" where VBench's totals of it are wanted (dfdbench.vbench.totals). conditions:
    whose first frames condition the clips: "vbench-i2v", "toy-i2v", "toy-i2v-picture", "custom", or
    "" where none do.
    static_filter: VBench's temporal_flickering counts static clips only. info_sha256: of VBench's
    info file where the prompts are VBench's own. images: the folder of first frames. notes: what a
    reader of the scores must know, a line each.
    """

    name: str
    version: int
    description: str
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    reference: Path | None = None
    protocol: str = ""
    conditions: str = ""
    static_filter: bool = False
    info_sha256: str = ""
    images: Path | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def _by_name(self) -> dict[str, Prompt]:
        texts = {text_key(prompt.text): prompt for prompt in reversed(self.prompts)}
        return texts | {prompt.id: prompt for prompt in self.prompts}

    def find(self, name: str) -> Prompt | None:
        """The prompt with this id or, if there is none, this text; None for an unknown one."""
        return self._by_name.get(name) or self._by_name.get(text_key(name))

    def prompt(self, prompt_id: str) -> Prompt:
        """The prompt with this id; an unknown id is refused with near ones."""
        found = self._by_name.get(prompt_id)
        if found is None or found.id != prompt_id:
            raise unknown_name(
                f"prompt id of suite {self.name}", prompt_id, [p.id for p in self.prompts]
            )
        return found

    def check_prompt(self, prompt_id: str) -> None:
        """Refuse a prompt id that the suite lacks; a suite without prompts accepts any."""
        if self.prompts:
            self.prompt(prompt_id)

    def seeds_of(self, prompt: Prompt) -> tuple[int, ...]:
        """The default seeds of one prompt: more where the static filter will drop clips."""
        filtered = self.static_filter and FLICKERING in prompt.dimensions
        return FILTERED_SEEDS if filtered else self.seeds

    def entries(self) -> dict[str, dict[str, Any]] | None:
        """Prompt id -> VBench's entry of its info file; None where the prompts are not VBench's."""
        if not self.info_sha256:
            return None
        return {
            prompt.id: {"prompt_en": prompt.text, "dimension": list(prompt.dimensions)}
            | ({"auxiliary_info": dict(prompt.auxiliary)} if prompt.auxiliary else {})
            | prompt.attributes
            for prompt in self.prompts
        }


def text_key(text: str) -> str:
    """What two spellings of a prompt share: file systems compose accents in different ways."""
    return unicodedata.normalize("NFC", text).strip()


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


def _toy_i2v() -> Suite:
    return replace(
        _toy_t2v(),
        name="toy-i2v",
        description="toy-t2v's captions, each with one first frame; direction and pan are free",
        metrics=("oracle_i2v", "first_frame", "colour", "flicker"),
        conditions=TOY_PICTURE,
    )


def _clips() -> Suite:
    return Suite(
        "clips",
        version=1,
        description="any clips; their prompts come with them",
        prompts=(),
        seeds=(),
        metrics=GENERAL,
    )


def _vbench_custom() -> Suite:
    return Suite(
        "vbench-custom",
        version=1,
        description="any clips by VBench's dimensions, with those of a prompt or image where given",
        prompts=(),
        seeds=(),
        metrics=(*VBENCH, *STAND_INS),
        protocol="t2v",
    )


def _released_clips() -> Suite:
    return Suite(
        "released-clips",
        version=1,
        description="the clips on the DFD paper's project page, beside their known colours",
        prompts=(),
        seeds=(),
        metrics=GENERAL,
        reference=HERE / "released_clips.json",
    )


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a text file, one a line: `prompt` or `category | prompt`; `#` is a comment.

    Ids are `<category>-<place in it>`, such as food-03; without categories `prompt-007`.

    Raises:
        UserError: the file cannot be read, names no prompt, or names one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as prompts, one a line in UTF-8") from error
    prompts, counts, seen = list[Prompt](), dict[str, int](), dict[str, int]()
    for number, line in enumerate(lines, start=1):
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
    return Suite(path.stem, 1, description, read_prompts(path), EIGHT_SEEDS, GENERAL)


def _vbench() -> Suite:
    from dfdbench.suites.vbench import vbench

    return vbench()


def _vbench_i2v() -> Suite:
    from dfdbench.suites.vbench import vbench_i2v

    return vbench_i2v()


SUITES: dict[str, Callable[[], Suite]] = {
    "toy-t2v": _toy_t2v,
    "toy-i2v": _toy_i2v,
    "clips": _clips,
    "vbench": _vbench,
    "vbench-i2v": _vbench_i2v,
    "vbench-custom": _vbench_custom,
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
            from dfdbench.suites.vbench import with_images

            return with_images(name, images, models)
        return get_suite(name)
    if prompts.stem in SUITES:
        raise UserError(f"--prompts {prompts}: a suite is called {prompts.stem}; rename the file")
    return _prompt_suite(prompts, f"prompts of {prompts.name}")


def find_suites() -> tuple[list[Suite], dict[str, str]]:
    """All suites, and those that lack a file of VBench: name -> what, and how to get it."""
    found, absent = list[Suite](), dict[str, str]()
    for name in SUITES:
        try:
            found.append(get_suite(name))
        except UserError as error:
            absent[name] = str(error)
    return found, absent


def list_suites() -> list[Suite]:
    """All suites whose files are here."""
    return find_suites()[0]
