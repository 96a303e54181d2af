"""Clips meet their suite: prompt ids for texts, VBench's own words, first frames.

Used by engine.py, before any clip is decoded. A folder of VBench's names gives texts as prompt ids.
VBench scores a clip by the words of its info file, whatever longer ones the model was given; how
many clips that concerns is written down, for the two cannot be told apart later.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dfdbench.evaluate.metrics import MetricFamily
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import STATIC
from dfdbench.generate.suites.base import FLICKERING, Suite, text_key
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.generate.suites.images import RATIOS, crop, first_frame_of, images_in, nearest_ratio
from dfdbench.generate.suites.vbench import CUSTOM, OWN
from dfdbench.utils.errors import UserError
from dfdbench.utils.manifest import Collection, Sample, unique
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
    a person.
    """

    samples: list[Sample]
    suite: Suite
    facts: dict[str, str]
    notes: list[str]


def match(
    collections: Sequence[Collection], suite: Suite, families: Iterable[MetricFamily]
) -> Matched:
    """Give every clip of one store its prompt id and, in a suite of VBench, its text and image.

    Args:
        families: those that will score the clips; first frames are looked for only if one of them
            needs an image.

    Raises:
        UserError: a prompt that the suite lacks, a clip named twice, an image that is not there.
    """
    words: dict[str, Counter[str]] = defaultdict(Counter)
    samples = list[Sample]()
    for collection in collections:
        named = [_with_prompt(sample, suite, words) for sample in collection.samples]
        samples += unique(f"suite {suite.name}", named)
    if not suite.protocol:
        return Matched(samples, suite, {}, [])
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
    notes = [f"conditions: {suite.conditions}", *suite.notes] if suite.conditions else []
    if suite.conditions == CUSTOM and without:
        notes.append(f"{without} of {len(samples)} clips have no first frame")
    return Matched(samples, suite, facts, notes)


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
    """Whether a clip of this prompt should get the family's values: VBench's info file says so.

    A family without a dimension of VBench is for every clip.
    """
    prompt = suite.find(prompt_id)
    if prompt is None or not prompt.dimensions:
        return True
    names = {metric.name for metric in family.metrics}
    wanted = names & set(DIMENSIONS) | {STANDS_FOR[name] for name in names & set(STANDS_FOR)}
    return not wanted or bool(wanted & set(prompt.dimensions))


def _with_prompt(sample: Sample, suite: Suite, words: dict[str, Counter[str]]) -> Sample:
    """The sample with its prompt's id, and VBench's text; counts in `words` whose text it had."""
    prompt = suite.find(sample.prompt_id)
    if prompt is None:
        suite.check_prompt(sample.prompt_id)
        return sample
    if suite.protocol:
        same = sample.prompt and text_key(sample.prompt) == text_key(prompt.text)
        words[sample.method]["raw" if same else "other" if sample.prompt else "unknown"] += 1
        sample = sample._replace(prompt=prompt.text)
    return sample._replace(prompt_id=prompt.id)


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
