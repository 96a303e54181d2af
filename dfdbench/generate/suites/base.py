"""What a prompt and a suite are, and the families of VBench's dimensions that suites share."""

import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.manifest import CUTS

EIGHT_SEEDS = tuple(range(1, 9))  # as the DFD paper scores diversity
GENERAL = "general"  # stands for the families for any clips: evaluate/metrics knows which they are


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


WITH_IMAGES = (
    "vbench-i2v",
    "vbench-custom",
    "vbench-i2v-extended",
)  # suites that first frames may be given to


OF_STREAMS = ("drift", "seams")  # families that clips of any length are scored with as well


TOY_FIRST_FRAME = "toy-i2v-picture"  # conditions: one first frame a prompt, for all its clips


STAND_INS = ("rife39", "dis_flow", "brisque")  # beside them, in columns of their own


@dataclass(frozen=True)
class Length:
    """How long a stream of a causal student is; one of the three is given.

    frames: of the clip. seconds: about so many, in whole blocks. times: as many latent frames as
    `times` clips of the length that the student was trained on.
    """

    frames: int = 0
    seconds: float = 0
    times: int = 0

    def frames_for(self, trained: int, per_latent: int, fps: float, block: int) -> int:
        """Frames of the clip: of whole blocks, but where `frames` says how many.

        Args:
            trained: frames of the clips that the student was trained on. per_latent: frames of a
                latent frame after the first, which is one frame. block: latent frames a block.
        """
        if self.frames:
            return self.frames
        if self.times:
            return 1 + ((1 + (trained - 1) // per_latent) * self.times - 1) * per_latent
        blocks = ((self.seconds * fps - 1) / per_latent + 1) / block
        return 1 + (max(1, round(blocks)) * block - 1) * per_latent


@dataclass(frozen=True)
class Prompt:
    """One prompt; `id` is a file name, `attributes` are what the text fixes.

    dimensions: VBench's dimensions that it is for; () means all. auxiliary: VBench's
    auxiliary_info. image: the first frame that a clip of it should continue. long_text: what clips
    are generated from where that is another text; names and scores go by `text`. length: of its
    clips, which are streams then; None: as the model was trained. metrics: families that its clips
    are scored with; () means all of the suite.
    """

    id: str
    text: str
    attributes: dict[str, str] = field(default_factory=dict)
    dimensions: tuple[str, ...] = ()
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    image: Path | None = None
    long_text: str = ""
    length: Length | None = None
    metrics: tuple[str, ...] = ()

    @property
    def source_text(self) -> str:
        """What clips are generated from."""
        return self.long_text or self.text


@dataclass(frozen=True)
class Suite:
    """Prompts, default seeds and metric families.

    metrics: names of families; GENERAL among them stands for those that say so themselves.
    prompts: empty where they come with the videos (a manifest). reference: a JSON file of
    published or known values that the scores are compared with (evaluate/comparison.py). protocol:
    "t2v" or "i2v" where VBench's totals of it are wanted (evaluate/vbench/totals.py). conditions:
    whose first frames condition the clips: "vbench-i2v", "toy-i2v", "toy-i2v-picture", "custom", or
    "" where none do.
    static_filter: VBench's temporal_flickering counts static clips only. info_sha256: of VBench's
    info file where the prompts are VBench's own. images: the folder of first frames. notes: what a
    reader of the scores must know, a line each. files: clip's file -> prompt id, where a map of
    clips gave the prompts. window, sinks: latent frames that a block of a stream sees, and that
    stay in sight; None: the student's own, or of a clip longer than trained the trained length.
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
    files: Mapping[str, str] = field(default_factory=dict)
    window: int | None = None
    sinks: int | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether its clips are streams, which only a causal student makes."""
        return any(prompt.length for prompt in self.prompts)

    @property
    def is_extended(self) -> bool:
        """Whether clips are generated from longer texts than they are scored by."""
        return any(prompt.long_text for prompt in self.prompts)

    @cached_property
    def _by_name(self) -> dict[str, Prompt]:
        long = {text_key(prompt.long_text): prompt for prompt in reversed(self.prompts)}
        texts = {text_key(prompt.text): prompt for prompt in reversed(self.prompts)}
        long.pop("", None)
        return long | texts | {prompt.id: prompt for prompt in self.prompts}

    @cached_property
    def _by_cut(self) -> dict[str, list[Prompt]]:
        """Prompts by the beginning that files' names keep of them."""
        cut = defaultdict[str, list[Prompt]](list)
        for prompt in self.prompts:
            for length in CUTS:
                if len(prompt.text) > length:
                    cut[text_key(prompt.text[:length])].append(prompt)
        return cut

    def find(self, name: str) -> Prompt | None:
        """The prompt with this id or, if there is none, this text; None for an unknown one.

        A text may be cut where the files' names of VBench and Self-Forcing are, if only one prompt
        begins so.
        """
        found = self._by_name.get(name) or self._by_name.get(text_key(name))
        cut = self._by_cut.get(text_key(name), [])
        return found or (cut[0] if len(cut) == 1 else None)

    def prompt(self, prompt_id: str) -> Prompt:
        """The prompt with this id; an unknown id is refused with near ones."""
        prompt = self._by_name.get(prompt_id)
        if prompt is None or prompt.id != prompt_id:
            if cut := self._by_cut.get(text_key(prompt_id)):
                ids = ", ".join(prompt.id for prompt in cut[:3])
                raise UserError(
                    f"{len(cut)} prompts of suite {self.name} begin like the name '{prompt_id}' "
                    f"({ids}); say which one in a manifest"
                )
            raise unknown_name(
                f"prompt id of suite {self.name}", prompt_id, [p.id for p in self.prompts]
            )
        return prompt

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
            | ({"aug_prompt_en": prompt.long_text} if prompt.long_text else {})
            | ({"auxiliary_info": dict(prompt.auxiliary)} if prompt.auxiliary else {})
            | prompt.attributes
            for prompt in self.prompts
        }


def text_key(text: str) -> str:
    """What two spellings of a prompt share: file systems compose accents in different ways."""
    return unicodedata.normalize("NFC", text).strip()
