"""Clips meet their suite: prompt ids for texts, VBench's own words, first frames.

Used by engine.py, before any clip is decoded. A folder of VBench's names gives texts as prompt ids:
of a name that ends in a number the whole is looked for first, then what stands before the number.
VBench scores a clip by the words of its info file, whatever longer ones the model was given; how
many clips that concerns is written down, for the two cannot be told apart later.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

from dfdbench.evaluate.metrics import MetricFamily
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import STATIC
from dfdbench.generate.suites.base import FLICKERING, Prompt, Suite, text_key
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.generate.suites.images import RATIOS, crop, first_frame_of, images_in, nearest_ratio
from dfdbench.generate.suites.vbench import CUSTOM, OWN
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import MOST_LINES, Collection, Refused, Sample, doubts, listed, unique
from dfdbench.utils.video import frame_size

STANDS_FOR = {
    STATIC: FLICKERING,  # VBench counts static clips only
    "rife39_motion_smoothness": "motion_smoothness",
    "dis_flow_dynamic": "dynamic_degree",
    "brisque": "imaging_quality",
}
"""Metrics that are wanted where a dimension of VBench is."""


class Matched(NamedTuple):
    """Clips as the suite sees them.

    suite: with the conditions of the clips. facts: texts for the store's meta. notes: lines for
    a person. refused: what cannot be scored. folders: method -> the folder that it is named after.
    """

    samples: list[Sample]
    suite: Suite
    facts: dict[str, str]
    notes: list[str]
    refused: list[Refused]
    folders: dict[str, Path]


def match(
    collections: Sequence[Collection], suite: Suite, families: Iterable[MetricFamily]
) -> Matched:
    """Give every clip of one store its prompt id and, in a suite of VBench, its text and image.

    Args:
        families: those that will score the clips; first frames are looked for only if one of them
            needs an image.

    Raises:
        UserError: no clip's prompt is the suite's, a clip named twice, an image that is not there.
    """
    words: dict[str, Counter[str]] = defaultdict(Counter)
    found = _Found(suite)
    for collection in collections:
        for sample in collection.samples:
            found.add(sample, collection.by_name, words)
    samples = unique(f"suite {suite.name}", found.samples)
    if found.refused and not samples:
        more = f" (and {len(found.refused) - 1} more)" if found.refused[1:] else ""
        raise UserError(found.refused[0].reason + more)
    refused = [item for collection in collections for item in collection.refused] + found.refused
    notes = [note for collection in collections for note in collection.notes]
    by_name = [c for c in collections if c.by_name]
    notes += found.notes() if suite.prompts else [n for c in by_name for n in doubts(c.samples)]
    folders = {
        c.samples[0].method: c.samples[0].path.parent
        for c in by_name
        if c.samples[0].method == c.samples[0].path.parent.resolve().name
    }
    if not suite.protocol:
        return Matched(samples, suite, {}, notes, refused, folders)
    if suite.images and any("image" in family.needs for family in families):
        add = _with_crops if suite.conditions == OWN else _with_pictures
        samples = add(samples, suite, suite.images)
    without = sum(not sample.image for sample in samples)
    if without < len(samples) and not suite.conditions:
        suite = replace(suite, conditions=CUSTOM)
    facts = {
        f"conditions {suite.name}": suite.conditions,
        f"info {suite.name}": suite.info_sha256,
    }
    for method, counts in words.items():
        facts[f"prompts {suite.name} {method}"] = json.dumps(counts)
    for method, ratios in _ratios(samples).items():
        facts[f"crop {suite.name} {method}"] = ", ".join(sorted(ratios))
    if suite.conditions:
        notes = [f"conditions: {suite.conditions}", *suite.notes, *notes]
    if suite.conditions == CUSTOM and without:
        notes.append(f"{without} of {len(samples)} clips have no first frame")
    return Matched(samples, suite, facts, notes, refused, folders)


def record(store: Store, suite: Suite, facts: dict[str, str], paths: set[str]) -> None:
    """Write `facts` into the store's meta.

    Args:
        paths: the clips that are about to be scored, as the store names them.

    Raises:
        UserError: the store has other clips of the suite, of other prompts or first frames.
    """
    before = store.meta()
    for key in (f"conditions {suite.name}", f"info {suite.name}"):
        changed = facts and before.get(key, facts[key]) != facts[key]
        if changed and not paths.issuperset(store.samples(suite.name)["path"]):
            raise UserError(
                f"{store.path}: holds clips of suite {suite.name} with other prompts or first "
                f"frames ({before[key] or 'none'}, not {facts[key] or 'none'}); name another --out"
            )
    store.set_meta(facts)


def asks(suite: Suite, prompt_id: str, family: MetricFamily) -> bool:
    """Whether a clip of this prompt should get the family's values: VBench's info file says so,
    or the suite, of a prompt that has families of its own.

    A family without a dimension of VBench is for every clip of VBench's.
    """
    prompt = suite.find(prompt_id)
    if prompt is None:
        return True
    if prompt.metrics and family.name not in prompt.metrics and family.name in suite.metrics:
        return False
    if not prompt.dimensions:
        return True
    names = {metric.name for metric in family.metrics}
    wanted = names & set(DIMENSIONS) | {STANDS_FOR[name] for name in names & set(STANDS_FOR)}
    return not wanted or bool(wanted & set(prompt.dimensions))


class _Found:
    """The clips whose prompts the suite has; the others are refused, each with the reason."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.samples, self.refused = list[Sample](), list[Refused]()
        self.doubtful = list[str]()  # names that are a prompt with and without their number
        self.files: dict[str, list[str]] = defaultdict(list)  # file's name -> files of the map
        for file in suite.files:
            self.files[PurePath(file).name].append(file)
        self.unused = set(suite.files)

    def add(self, sample: Sample, by_name: bool, words: dict[str, Counter[str]]) -> None:
        """Look for the sample's prompt; count in `words` whose text a clip of VBench's had."""
        try:
            prompt, seed = self._prompt(sample, by_name)
        except UserError as error:
            self.refused.append(Refused(sample.path, f"{sample.path}: {error}"))
            return
        if prompt is not None:
            text = sample.prompt
            if self.suite.protocol:
                words[sample.method][_origin(sample, prompt, by_name)] += 1
            if self.suite.protocol or by_name:
                text = prompt.text
            sample = sample._replace(prompt_id=prompt.id, prompt=text, seed=seed)
        self.samples.append(sample)

    def _prompt(self, sample: Sample, by_name: bool) -> tuple[Prompt | None, int | None]:
        """The prompt, None in a suite without any, and the seed."""
        suite, number = self.suite, sample.seed
        if suite.files and by_name:
            return suite.prompt(suite.files[self._file(sample.path)]), number
        found = suite.find(sample.prompt_id)
        if by_name and number is not None and (whole := suite.find(sample.path.stem)):
            if found and found != whole:
                self.doubtful.append(sample.path.name)
            return whole, None
        by_text = suite.find(sample.prompt) if sample.prompt else None
        if found and by_text and found != by_text and found.text != by_text.text:
            raise UserError(
                f"its prompt is that of {by_text.id}, its prompt_id {found.id}; say one"
            )
        if found is None and by_text is None:
            self._refuse(sample.prompt_id)
        return found or by_text, number

    def _refuse(self, name: str) -> None:
        """Raise for a prompt that the suite lacks, with near ones while they will be read."""
        if len(self.refused) < MOST_LINES:
            self.suite.check_prompt(name)
        elif self.suite.prompts:
            raise UserError(f"unknown prompt id of suite {self.suite.name} '{name}'")

    def _file(self, path: Path) -> str:
        """The file of the map that a clip is."""
        files = self.files.get(path.name, [])
        if len(files) > 1:
            parts = path.resolve().parts
            files = [f for f in files if parts[-len(PurePath(f).parts) :] == PurePath(f).parts]
        if len(files) != 1:
            wrong = f"names {len(files)} times" if files else "does not name"
            raise UserError(f"the map of prompts {self.suite.name} {wrong} this clip; add it there")
        self.unused.discard(files[0])
        return files[0]

    def notes(self) -> list[str]:
        """Lines for a person."""
        lines = []
        if self.doubtful:
            lines.append(
                f"{len(self.doubtful)} names are a prompt with their number and without it "
                f"({listed(self.doubtful)}); they count as the former, without a seed"
            )
        if self.unused:
            names = [file for file in self.suite.files if file in self.unused]
            lines.append(f"{len(names)} clips of the map of prompts are not here ({listed(names)})")
        return lines


def _origin(sample: Sample, prompt: Prompt, by_name: bool) -> str:
    """Where the text that a clip of VBench's was made from is from: a key of protocol.ORIGINS."""
    made_from = sample.generated_from or sample.prompt
    if not made_from or (by_name and prompt.long_text):
        return "unknown"  # names of files are the short prompts, whatever clips were made from
    if prompt.long_text and text_key(made_from) == text_key(prompt.long_text):
        return "extended"
    return "raw" if text_key(made_from) == text_key(prompt.text) else "other"


def _with_crops(samples: list[Sample], suite: Suite, folder: Path) -> list[Sample]:
    """VBench's images in the ratio of each method's first readable clip."""
    ratios: dict[str, str] = {}
    for sample in samples:
        if sample.method not in ratios and (size := frame_size(sample.path)):
            ratios[sample.method] = nearest_ratio(*size)

    def add(sample: Sample) -> Sample:
        if sample.image or sample.method not in ratios:
            return sample
        prompt = suite.prompt(sample.prompt_id)
        return sample._replace(image=crop(folder, prompt, ratios[sample.method]))

    return [add(sample) for sample in samples]


def _with_pictures(samples: list[Sample], suite: Suite, folder: Path) -> list[Sample]:
    by_name = images_in(folder)
    added = [s if s.image else s._replace(image=first_frame_of(by_name, s)) for s in samples]
    if not any(sample.image for sample in added):
        raise UserError(
            f"--images {folder}: no picture is called after a clip, its prompt or prompt id; "
            f"expected names like {samples[0].path.stem}.png"
        )
    return added


def _ratios(samples: Iterable[Sample]) -> dict[str, set[str]]:
    """Method -> the ratios of VBench's crops among its first frames."""
    ratios: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.image and sample.image.parent.name in RATIOS:
            ratios[sample.method].add(sample.image.parent.name)
    return ratios
