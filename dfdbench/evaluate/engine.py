"""The scoring engine: decode each video once, feed every metric, commit, never compute a key twice.

Used by the commands eval, study and check. Values of one clip come from the metric families;
values over the clips of a prompt, and against a reference, follow in second passes (groups.py).
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from dfdbench.evaluate.aggregate import find_missing, group_values, pooled_values
from dfdbench.evaluate.match import asks, match, record
from dfdbench.evaluate.metrics import (
    Compute,
    Metric,
    MetricFamily,
    Setting,
    families_of,
    get_family,
)
from dfdbench.evaluate.schema import Key, Row, Shape, condition_of
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.summary import Summary
from dfdbench.generate.suites import get_suite
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.files import sha256_file
from dfdbench.utils.manifest import Collection, Sample, collect, names_of
from dfdbench.utils.progress import Bar
from dfdbench.utils.shards import Shard
from dfdbench.utils.video import decoders, read_image, read_video, select

MOST_WORKERS = 8  # each holds one decoded clip


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
            the inputs, or one more input, which is scored too and is called `real` where no
            manifest names its method.
        workers: clips worked on at once, each on one thread; None: one a core, at most 8. They
            change no score.
        shard: score only this part, into a store of its own; `dfdbench merge` joins them.
        setting: device of models and folder of pose files.
        afterwards: called with each store once its clips are scored, to add scores that come from
            elsewhere; gives a line for each that it could not.

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
    chosen, weights, skipped = _ready(suite.metrics if families is None else families, setting)
    names = names_of(inputs, method_name)
    collections = [collect(i, suite.name, n) for i, n in zip(inputs, names, strict=True)]
    reference_name = _add_reference(collections, reference, suite, store)
    by_store: dict[Path, list[Collection]] = {}
    for collection in collections:
        by_store.setdefault(_store_path(store, collection), []).append(collection)
    matched = {path: match(found, suite, chosen) for path, found in by_store.items()}
    parts = {path: _share(found.samples, shard) for path, found in matched.items()}
    summary = Summary(suite.name, videos=sum(map(len, parts.values())), skipped=skipped)
    summary.notes += dict.fromkeys(note for found in matched.values() for note in found.notes)
    models = _Models(setting, weights)
    bar_of_videos = Bar(summary.videos, f"scoring {suite.name}")
    with bar_of_videos as bar, threadpool_limits(1, user_api="blas"):
        for path, samples in parts.items():
            target = shard.store(path) if shard else path
            suite, facts = matched[path].suite, matched[path].facts
            whole = len(by_store[path]) == 1 and by_store[path][0].is_run and not shard
            with Store(target) as opened:
                engine = _Engine(opened, suite, chosen, models, workers, summary, bar)
                record(opened, suite, facts, {engine.name(sample) for sample in samples})
                engine.run(samples, complete=whole)
                opened.set_meta({f"reference {suite.name}": reference_name or ""})
                if not shard:
                    summary.mixed += group_values(opened, suite, chosen, reference_name)
                    pooled_values(opened, suite, chosen, reference_name)
                    summary.missing += find_missing(opened, suite)
            summary.stores.append(target)
    if afterwards:
        for path, found in zip(summary.stores, matched.values(), strict=True):
            lines = afterwards(path, found.suite)
            summary.skipped += [line for line in lines if line not in summary.skipped]
    if suite.reference and not shard:
        from dfdbench.evaluate.comparison import write_comparison

        for path in summary.stores:
            summary.written += [str(p) for p in write_comparison(path, suite, path.parent)]
    if suite.protocol and not shard:
        from dfdbench.evaluate.vbench.summary import is_partial, summarise, warnings, write_summary

        for path, found in zip(summary.stores, matched.values(), strict=True):
            suite = found.suite
            methods = summarise(path, suite)
            written = write_summary(path.parent, suite, methods, skipped)
            summary.written += [str(p) for p in written]
            summary.partial |= is_partial(methods)
            summary.notes += warnings(methods)
    summary.seconds = time.monotonic() - start
    return summary


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
        collections.append(collect(reference, suite.name, "real"))
        found = {sample.method for sample in collections[-1].samples}
        if len(found) != 1:
            raise UserError(
                f"--reference {reference}: holds methods {', '.join(sorted(found))}; give it among "
                "the inputs and name one of them as the reference"
            )
        reference = found.pop()
    if store is None and len({c.store for c in collections}) > 1:
        raise UserError("--reference needs --out: methods can be compared within one store only")
    return str(reference)


def _store_path(store: str | Path | None, collection: Collection) -> Path:
    if store is None:
        return collection.store
    path = Path(store)
    return path if path.suffix == ".sqlite" else path / "scores.sqlite"


def _share(samples: list[Sample], shard: Shard | None) -> list[Sample]:
    return shard.of(samples) if shard else samples


class _Models:
    """What computes each family, loaded when first asked for; `weights` are known before."""

    def __init__(self, setting: Setting, weights: Mapping[str, str]) -> None:
        self.setting, self.weights = setting, weights
        self._loaded: dict[str, Compute] = {}

    def get(self, family: MetricFamily) -> Compute:
        """The family's function; loads its model the first time."""
        if family.name not in self._loaded:
            self._loaded[family.name] = family.load(self.setting)
            if family.model and self.setting.device != "cpu":
                import torch

                torch.backends.cudnn.allow_tf32 = False  # the key says float32
        return self._loaded[family.name]

    def key(self, family: MetricFamily, metric: Metric, row: Row | None, decoder: str) -> Key:
        """The key of one score; without a row, of the metric's scores of any clip."""
        device = self.setting.device.split(":")[0] if family.model else "cpu"
        condition = condition_of(family.needs, row.prompt, row.image) if row else ""
        return Key(
            row.sha256 if row else "", metric.name, metric.version, self.weights[family.name],
            family.policy, decoder, family.dtype, device, condition or "",
        )  # fmt: skip


@dataclass
class _Job:
    """A clip with families still to compute."""

    sample: Sample
    row: Row
    families: list[tuple[MetricFamily, Compute]]


Scores = dict[Key, float | np.ndarray | None]


@dataclass
class _Engine:
    """Scores the samples of one store."""

    store: Store
    suite: Suite
    families: list[MetricFamily]
    models: _Models
    workers: int | None
    summary: Summary
    bar: Bar

    def run(self, samples: list[Sample], complete: bool) -> None:
        """Score `samples`. complete: they are all that the store should hold."""
        # Said first: a killed run's scores are read like those of a finished one.
        self.store.set_current(
            self.models.key(family, metric, None, "")
            for family in self.families
            for metric in family.at("video")
        )
        families = ",".join(family.name for family in self.families)
        self.store.set_meta(
            {
                f"suite {self.suite.name}": str(self.suite.version),
                f"families {self.suite.name}": families,
            }
        )
        for job, future in self._ahead(self._jobs(samples)):
            try:
                scores, shape = future.result()
            except UserError as error:
                self._failed(job.row.path, str(error))
                continue
            self.store.add_scores(job.row, scores, shape)
            self.summary.scored += 1
            self.bar.step()
        if complete:
            self.store.keep_samples(self.suite.name, {self.name(s) for s in samples})

    def name(self, sample: Sample) -> str:
        """The clip's path as the store has it."""
        return Path(os.path.relpath(sample.path, self.store.path.parent)).as_posix()

    def _jobs(self, samples: list[Sample]) -> Iterator[_Job]:
        """Samples that lack a score; the others are recorded and counted as known."""
        for sample in samples:
            name = self.name(sample)
            try:
                sha256 = sha256_file(sample.path)
                image = sha256_file(sample.image) if sample.image else ""
            except OSError as error:
                self._failed(name, f"{error.filename}: {error.strerror}; check the path")
                continue
            row = Row(
                self.suite.name, name, sample.prompt_id, sample.prompt, sample.seed,
                sample.method, sha256, image,
            )  # fmt: skip
            known = self.store.known(sha256)
            asked = [f for f in self.families if asks(self.suite, row.prompt_id, f)]
            todo = [family for family in asked if not self._is_known(family, row, known)]
            if todo:
                yield _Job(sample, row, [(family, self.models.get(family)) for family in todo])
            else:
                self.store.add_sample(row)
                self.summary.reused += 1
                self.bar.step()

    def _is_known(self, family: MetricFamily, row: Row, known: set[Key]) -> bool:
        # A file that the preferred decoder cannot read was scored through the fallback.
        if condition_of(family.needs, row.prompt, row.image) is None:
            return True  # nothing to compute
        return any(
            all(self.models.key(family, m, row, d) in known for m in family.at("video"))
            for d in decoders()
        )

    def _ahead(self, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Future[tuple[Scores, Shape]]]]:
        """Jobs in order, `workers` of them under way: as many decoded clips are in memory."""
        workers = self.workers or min(os.cpu_count() or 1, MOST_WORKERS)
        pool = ThreadPoolExecutor(workers)
        try:
            waiting = [(job, pool.submit(_work, job, self.models)) for job in islice(jobs, workers)]
            while waiting:
                yield waiting.pop(0)
                waiting += [(j, pool.submit(_work, j, self.models)) for j in islice(jobs, 1)]
        finally:
            pool.shutdown(cancel_futures=True)

    def _failed(self, name: str, reason: str) -> None:
        self.store.add_failure(self.suite.name, name, reason)
        self.summary.failures.append((name, reason))
        self.bar.step()


def _one_thread() -> None:
    """Keep libraries from threads of their own, as `threadpool_limits` keeps numpy and scipy.

    Clips are the parallel unit: threads in threads cost half as much CPU again, and a score would
    depend on the number of cores.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(1)


def _work(job: _Job, models: _Models) -> tuple[Scores, Shape]:
    """Decode one clip and compute what it lacks; runs in a thread."""
    _one_thread()
    policies = {family.policy for family, _ in job.families}
    policy = policies.pop() if len(policies) == 1 else "all"
    clip = read_video(job.sample.path, policy, threads=1)
    frames, height, width = clip.frames.shape[:3]
    if any("image" in family.needs for family, _ in job.families):
        clip = clip._replace(image=read_image(job.sample.image))
    clip = clip._replace(prompt=job.sample.prompt)
    scores: Scores = {}
    for family, compute in job.families:
        part = select(clip, family.policy)
        if len(part.frames) < family.min_frames:
            raise UserError(
                f"{job.sample.path}: {len(part.frames)} frame, {family.name} needs "
                f"{family.min_frames}; give a longer clip"
            )
        try:
            values = compute(part)
        except UserError:
            raise
        except Exception as error:  # one odd clip must not end the scoring of the others
            raise UserError(
                f"{job.sample.path}: {family.name} failed on it ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:120]}); write the clip again or choose other "
                "--metrics"
            ) from error
        for metric in family.at("video"):
            value = values.get(metric.name)
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            scores[models.key(family, metric, job.row, clip.decoder)] = value
    return scores, Shape(width, height, frames, clip.fps)
