"""Score the clips of some inputs with the metrics of a suite, into one store or several.

Used by the commands eval, study and check. Step by step: families whose weights are here; inputs to
clips, clips to their suite and store; scores of each clip (clip_scores.py); values over prompts and
against a reference (aggregate.py); files beside the store (follow_ups.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from dfdbench.evaluate.aggregate import aggregate, compare
from dfdbench.evaluate.clip_scores import ClipScorer, Models
from dfdbench.evaluate.follow_ups import write_follow_ups
from dfdbench.evaluate.match import Matched, match, record
from dfdbench.evaluate.metrics import MetricFamily, Setting, families_of, get_family
from dfdbench.evaluate.score_table import as_lines, score_rows, without_groups
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.stored_clips import settle
from dfdbench.evaluate.summary import Summary
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.device import choose_device, whole_float32
from dfdbench.utils.errors import MissingWeights, UserError, clean
from dfdbench.utils.files import write_text
from dfdbench.utils.manifest import (
    MOST_LINES,
    Collection,
    Refused,
    Sample,
    collect,
    default_name,
    names_of,
)
from dfdbench.utils.progress import Bar
from dfdbench.utils.shards import Shard


class Part(NamedTuple):
    """What one call scores into one store.

    store: its file, of the shard where there is one. suite: with the conditions of these clips.
    matched: all clips of the store. samples, refused: this shard's. complete: they are all that
    the store should hold.
    """

    store: Path
    suite: Suite
    matched: Matched
    samples: list[Sample]
    refused: list[Refused]
    complete: bool


def score(
    inputs: Sequence[str | Path],
    suite: str | Suite,
    store: str | Path | None = None,
    *,
    method_name: str | Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    reference: str | Path | None = None,
    workers: int | None = None,
    shard: Shard | None = None,
    setting: Setting | None = None,
    afterwards: Callable[[Path, Suite], list[str]] | None = None,
    allow_damaged: bool = False,
) -> Summary:
    """Score the clips of `inputs` with the metrics of `suite`.

    Args:
        inputs: run folders, manifests, folders of videos (dfdbench.utils.manifest).
        suite: name of a suite, or one.
        store: a .sqlite file, or a folder that will hold scores.sqlite. Without it a run's scores
            go to RUN/scores.sqlite, others' to ./scores-<name>/scores.sqlite.
        method_name: method of clips for which no manifest names one; one for all inputs, or one
            for each.
        families: metric families instead of the suite's.
        reference: what methods are compared with, pooled over prompts: the name of a method among
            the inputs, or one more input, which is scored too under its own name. The store's meta
            `reference SUITE` says which method it is.
        workers: clips worked on at once, each on one thread; None: one a core, at most 8, and at
            least 4 beside a GPU. They change no score, but for rounding on a GPU, where clips share
            the passes of a network.
        shard: score only this part, into a store of its own; `dfdbench merge` joins them.
        setting: device of models, which may be "auto", and folder of pose files.
        afterwards: called with each store once its clips are scored, to add scores that come from
            elsewhere; gives a line for each that it could not.
        allow_damaged: score clips on which the decoder reports errors, each with a note; else they
            are left out.

    Returns:
        A `Summary`; clips that cannot be read are listed in it, the rest is scored.

    Raises:
        UserError: an input, suite, family, reference or prompt id that does not exist; weights
            that cannot be used. What was scored before stays.
    """
    start = time.monotonic()
    if not inputs:
        raise UserError("nothing to score; name a run, a manifest or a folder of videos")
    suite = get_suite(suite) if isinstance(suite, str) else suite
    setting = setting or Setting()
    ready, weights, skipped = _ready(suite.metrics if families is None else families, setting)
    networks = any(family.model for family in ready)  # nothing else asks torch for a GPU
    setting = replace(setting, device=choose_device(setting.device if networks else "cpu"))
    names = names_of(inputs, method_name)
    collections = [collect(i, suite.name, n) for i, n in zip(inputs, names, strict=True)]
    reference_name = _add_reference(collections, reference, suite, store)
    parts = _parts(collections, suite, store, ready, shard)
    summary = Summary(suite.name, [part.store for part in parts], skipped=skipped)
    summary.videos = sum(len(part.samples) + len(part.refused) for part in parts)
    summary.notes += dict.fromkeys(note for part in parts for note in part.matched.notes)
    summary.notes += _cut_prompts(parts, ready)
    models = Models(setting, weights)
    with (
        Bar(summary.videos, f"scoring {suite.name}", stage="score") as bar,
        threadpool_limits(1, user_api="blas"),
        whole_float32(setting.device),
    ):
        for part in parts:
            with Store(part.store) as opened:
                paths = {opened.name_of(sample.path) for sample in part.samples}
                if not part.complete:
                    named, folders = part.matched.samples, part.matched.folders
                    summary.notes += settle(opened, suite.name, named, folders)
                record(opened, part.suite, part.matched.facts, paths)
                scorer = ClipScorer(
                    opened, part.suite, ready, models, workers, summary, bar, allow_damaged
                )
                scorer.refuse(part.refused)
                scorer.run(part.samples, part.complete)
                opened.set_meta({f"reference {suite.name}": reference_name or ""})
                if not shard:
                    aggregate(opened, part.suite, ready, reference_name, summary)
                    summary.notes += without_groups(opened, suite.name, ready)
                    summary.scores += score_rows(opened, suite.name, ready)
    if afterwards:
        for part in parts:
            lines = afterwards(part.store, part.suite)
            summary.skipped += [line for line in lines if line not in summary.skipped]
    if not shard:
        for part in parts:
            write_follow_ups(part.store, part.suite, summary)
    summary.table = as_lines(summary.scores)
    _write_left_out(summary)
    summary.seconds = time.monotonic() - start
    return summary


def compare_with(run: Path, reference: Path, suite: str | Suite) -> None:
    """Add to a scored run what its clips are beside those of another, such as the teacher's.

    Raises:
        UserError: one of them has no store of scores.
    """
    suite = get_suite(suite) if isinstance(suite, str) else suite
    families = [get_family(name) for name in families_of(suite.metrics)]
    with Store.reading(reference / "scores.sqlite") as theirs, Store(run / "scores.sqlite") as own:
        compare(own, theirs, suite, families)


def _cut_prompts(parts: Sequence[Part], families: Sequence[MetricFamily]) -> list[str]:
    """A line for each family that reads only the beginning of some prompts."""
    texts = {sample.prompt: None for part in parts for sample in part.samples if sample.prompt}
    lines = []
    for family in families:
        if family.cuts and (cut := sum(map(family.cuts, texts))):
            lines.append(f"{family.name} reads the beginning of {cut} of {len(texts)} prompts only")
    return lines


def _write_left_out(summary: Summary) -> None:
    """All that is left out, beside the first store, where it is too much to print."""
    store = summary.stores[0]
    path = store.with_name(f"left_out{store.stem.removeprefix('scores')}.txt")
    lines = [*summary.mixed, *(reason for _, reason in summary.failures)]
    if max(len(summary.mixed), len(summary.failures)) > MOST_LINES:
        write_text(path, "".join(f"{clean(line)}\n" for line in lines))
        summary.left_out_file = str(path)
    else:
        path.unlink(missing_ok=True)


def _ready(
    names: Sequence[str], setting: Setting
) -> tuple[list[MetricFamily], dict[str, str], list[str]]:
    """Families whose weights are here, the weights' sha256 by family, a line for each other one."""
    ready, weights, skipped = list[MetricFamily](), dict[str, str](), list[str]()
    for name in families_of(names):
        family = get_family(name)
        try:
            weights[name] = family.find(setting) if family.find else ""
            ready.append(family)
        except MissingWeights as error:
            skipped.append(f"{name}: {error}")
    return ready, weights, skipped


def _parts(
    collections: Sequence[Collection],
    suite: Suite,
    store: str | Path | None,
    families: Sequence[MetricFamily],
    shard: Shard | None,
) -> list[Part]:
    """The clips by store, matched with the suite before any is decoded."""
    target = Path(store) if store else None
    if target and target.suffix != ".sqlite":
        target /= "scores.sqlite"
    by_store: dict[Path, list[Collection]] = {}
    for collection in collections:
        by_store.setdefault(target or collection.store, []).append(collection)
    parts = []
    for path, own in by_store.items():
        matched = match(own, suite, families)
        parts.append(
            Part(
                store=shard.store(path) if shard else path,
                suite=matched.suite,
                matched=matched,
                samples=shard.of(matched.samples) if shard else matched.samples,
                refused=shard.of(matched.refused) if shard else matched.refused,
                complete=len(own) == 1 and own[0].is_run and not shard,
            )
        )
    return parts


def _add_reference(
    collections: list[Collection], reference: str | Path | None, suite: Suite, store: object
) -> str | None:
    """The method that is the reference; its clips are added where it is an input of its own."""
    if reference is None:
        return None
    methods = {sample.method for c in collections for sample in c.samples}
    if str(reference) not in methods:
        if not Path(reference).exists():
            raise UserError(
                f"--reference {reference}: no method of that name ({', '.join(sorted(methods))}) "
                "and no such run, manifest or folder"
            )
        name = default_name(Path(reference))
        collections.append(collect(reference, suite.name, name))
        own = {sample.method for sample in collections[-1].samples}
        if len(own) != 1:
            raise UserError(
                f"--reference {reference}: holds methods {', '.join(sorted(own))}; give it "
                "among the inputs and name one of them as the reference"
            )
        if own <= methods:
            raise UserError(
                f"--reference {reference}: is method {name}, as one of the inputs is; give it "
                "among the inputs, each with its --arm, and name that of the reference"
            )
        reference = own.pop()
    if store is None and len({c.store for c in collections}) > 1:
        raise UserError("--reference needs --out: methods can be compared within one store only")
    return str(reference)
