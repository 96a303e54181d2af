"""The scoring engine: decode each video once, feed every metric, commit, never compute a key twice.

Used by the commands eval, study and check. Values of one clip come from the metric families;
values over the clips of a prompt follow in a second pass over the stored readings.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dfdbench.errors import UserError
from dfdbench.files import sha256_file
from dfdbench.metrics import Family, GroupValue, MissingWeights, get_family
from dfdbench.progress import Bar
from dfdbench.samples import Collection, Sample, collect
from dfdbench.scores import Key, Row, Store
from dfdbench.suites import Suite, get_suite
from dfdbench.video import Clip, decoders, read_video, select

DEVICE = "cpu"


@dataclass
class Summary:
    """What one call of `score` did.

    stores: score stores written. videos: clips named by the inputs; scored: clips for which
    something was computed; reused: clips with all scores there already; failures: (path, reason)
    of clips left out; missing: prompts of the suite without a clip, a line
    a method; skipped: families without their weights, with the reason; written: files beside the
    stores; seconds: wall time.
    """

    suite: str
    stores: list[Path] = field(default_factory=list)
    videos: int = 0
    scored: int = 0
    reused: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 1 when a clip could not be scored."""
        return 1 if self.failures else 0

    def lines(self) -> list[str]:
        """What a person should read, failures last."""
        text = [
            f"{self.suite}: {self.videos} videos, {self.scored} scored, {self.reused} known, "
            f"{len(self.failures)} left out, {self.seconds:.1f} s"
        ]
        text += [f"scores: {path}" for path in self.stores]
        text += [f"written: {path}" for path in self.written]
        text += [f"missing: {what}" for what in self.missing]
        text += [f"skipped: {what}" for what in self.skipped]
        return text + [f"left out: {reason}" for _, reason in self.failures]


def score(
    inputs: Sequence[str | Path],
    suite: str | Suite,
    store: str | Path | None = None,
    *,
    method_name: str | None = None,
    families: Sequence[str] | None = None,
    workers: int = 1,
) -> Summary:
    """Score the clips of `inputs` with the metrics of `suite`.

    Args:
        inputs: run folders, manifests, folders of videos (dfdbench.samples).
        suite: name of a suite, or one.
        store: a .sqlite file, or a folder that will hold scores.sqlite. Without it a run's scores
            go to RUN/scores.sqlite, others' to ./scores-<name>/scores.sqlite.
        method_name: method of clips for which no manifest names one.
        families: metric families instead of the suite's.
        workers: threads that decode ahead.

    Returns:
        A `Summary`; clips that cannot be read are listed in it, the rest is scored.

    Raises:
        UserError: an input, suite, family or prompt id that does not exist.
    """
    start = time.monotonic()
    if not inputs:
        raise UserError("nothing to score; name a run, a manifest or a folder of videos")
    suite = get_suite(suite) if isinstance(suite, str) else suite
    chosen, skipped = _ready(families or suite.metrics)
    collections = [collect(source, suite.name, method_name) for source in inputs]
    for sample in (s for c in collections for s in c.samples):
        suite.check_prompt(sample.prompt_id)
    by_store: dict[Path, list[Collection]] = {}
    for collection in collections:
        by_store.setdefault(_store_path(store, collection), []).append(collection)
    summary = Summary(suite.name, videos=sum(len(c.samples) for c in collections), skipped=skipped)
    with Bar(summary.videos, f"scoring {suite.name}") as bar:
        for path, parts in by_store.items():
            samples = [s for part in parts for s in part.samples]
            with Store(path) as opened:
                engine = _Engine(opened, suite, chosen, workers, summary, bar)
                engine.run(samples, complete=len(parts) == 1 and parts[0].is_run)
            summary.stores.append(path)
    if suite.reference:
        from dfdbench.released import write_comparison

        for path in summary.stores:
            summary.written += [str(p) for p in write_comparison(path, suite, path.parent)]
    summary.seconds = time.monotonic() - start
    return summary


def _ready(names: Sequence[str]) -> tuple[list[Family], list[str]]:
    """The families with their models in place; a line for each whose weights are missing."""
    ready, skipped = list[Family](), list[str]()
    for name in names:
        try:
            ready.append(get_family(name).ready())
        except MissingWeights as error:
            skipped.append(f"{name}: {error}")
    return ready, skipped


def _store_path(store: str | Path | None, collection: Collection) -> Path:
    if store is None:
        return collection.store
    path = Path(store)
    return path if path.suffix == ".sqlite" else path / "scores.sqlite"


@dataclass
class _Job:
    """A clip with families still to compute."""

    sample: Sample
    row: Row
    families: list[Family]


@dataclass
class _Engine:
    """Scores the samples of one store."""

    store: Store
    suite: Suite
    families: list[Family]
    workers: int
    summary: Summary
    bar: Bar

    def run(self, samples: list[Sample], complete: bool) -> None:
        """Score `samples`, then the groups. complete: they are all that the store should hold."""
        for job, future in self._ahead(self._jobs(samples)):
            try:
                clip = future.result()
                scores = _compute(job, clip)
            except UserError as error:
                self._failed(job.row.path, str(error))
                continue
            self.store.add_scores(job.row, scores)
            self.summary.scored += 1
            self.bar.step()
        if complete:
            self.store.keep_samples(self.suite.name, {self._name(s) for s in samples})
        self.store.set_meta({f"suite {self.suite.name}": str(self.suite.version)})
        self._groups()
        self._find_missing()

    def _name(self, sample: Sample) -> str:
        return Path(os.path.relpath(sample.path, self.store.path.parent)).as_posix()

    def _jobs(self, samples: list[Sample]) -> Iterator[_Job]:
        """Samples that lack a score; the others are recorded and counted as known."""
        for sample in samples:
            name = self._name(sample)
            try:
                sha256 = sha256_file(sample.path)
            except OSError as error:
                self._failed(name, f"{sample.path}: {error.strerror}; check the path")
                continue
            row = Row(
                self.suite.name, name, sample.prompt_id, sample.prompt, sample.seed,
                sample.method, sha256,
            )  # fmt: skip
            known = self.store.known(sha256)
            todo = [family for family in self.families if not _is_known(family, sha256, known)]
            if todo:
                yield _Job(sample, row, todo)
            else:
                self.store.add_sample(row)
                self.summary.reused += 1
                self.bar.step()

    def _ahead(self, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Future[Clip]]]:
        """Jobs in order with their clips being decoded, at most `workers` + 1 clips in memory."""
        pool = ThreadPoolExecutor(self.workers)
        try:
            waiting = [(job, _submit(pool, job)) for job in islice(jobs, self.workers)]
            while waiting:
                yield waiting.pop(0)
                waiting += [(job, _submit(pool, job)) for job in islice(jobs, 1)]
        finally:
            pool.shutdown(cancel_futures=True)

    def _failed(self, name: str, reason: str) -> None:
        self.store.add_failure(self.suite.name, name, reason)
        self.summary.failures.append((name, reason))
        self.bar.step()

    def _groups(self) -> None:
        """Second pass: values over the clips of each (method, prompt)."""
        groups: dict[tuple[str, str], dict[str, GroupValue]] = {}
        versions: dict[str, int] = {}
        for family in self.families:
            if family.group is None:
                continue
            versions |= {metric.name: metric.version for metric in family.at("prompt")}
            rows = self._readings(family)
            for (method, prompt_id), readings in rows.items():
                attributes = self.suite.prompt(prompt_id).attributes if self.suite.prompts else {}
                values = family.group(readings, attributes)
                groups.setdefault((method, prompt_id), {}).update(values)
        if versions:
            self.store.set_groups(self.suite.name, versions, groups)

    def _readings(self, family: Family) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """What the family stored of each clip, by (method, prompt id): floats and arrays."""
        floats = [m.name for m in family.at("video") if m.kind != "array"]
        table = self.store.values(self.suite.name, floats)
        for metric in family.at("video"):
            if metric.kind == "array":
                arrays = self.store.arrays(metric.name, self.suite.name)
                table[metric.name] = table["path"].map(arrays.set_index("path")["array"])
        names = [metric.name for metric in family.at("video")]
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in table.to_dict("records"):
            reading = {name: row[name] for name in names}
            rows.setdefault((row["method"], row["prompt_id"]), []).append(reading)
        return rows

    def _find_missing(self) -> None:
        samples = self.store.samples(self.suite.name)
        for method, part in samples.groupby("method"):
            there = set(part["prompt_id"])
            without = [prompt.id for prompt in self.suite.prompts if prompt.id not in there]
            if without:
                self.summary.missing.append(
                    f"method {method} has no clip of {len(without)} of "
                    f"{len(self.suite.prompts)} prompts: {', '.join(without)}"
                )


def _submit(pool: ThreadPoolExecutor, job: _Job) -> Future[Clip]:
    policies = {family.policy for family in job.families}
    return pool.submit(read_video, job.sample.path, policies.pop() if len(policies) == 1 else "all")


def _key(family: Family, metric_name: str, version: int, sha256: str, decoder: str) -> Key:
    return Key(
        sha256, metric_name, version, family.weights, family.policy, decoder, family.dtype, DEVICE
    )


def _is_known(family: Family, sha256: str, known: set[Key]) -> bool:
    # A file that the preferred decoder cannot read was scored through the fallback.
    return any(
        all(_key(family, m.name, m.version, sha256, d) in known for m in family.at("video"))
        for d in decoders()
    )


def _compute(job: _Job, clip: Clip) -> dict[Key, float | np.ndarray | None]:
    """Every score that the job's families give; None where a clip has no such value."""
    scores: dict[Key, float | np.ndarray | None] = {}
    for family in job.families:
        part = select(clip, family.policy)
        if len(part.frames) < family.min_frames:
            raise UserError(
                f"{job.sample.path}: {len(part.frames)} frame, {family.name} needs "
                f"{family.min_frames}; give a longer clip"
            )
        assert family.compute is not None  # `ready` gave it one
        values = family.compute(part)
        for metric in family.at("video"):
            value = values.get(metric.name)
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            key = _key(family, metric.name, metric.version, job.row.sha256, clip.decoder)
            scores[key] = value
    return scores
