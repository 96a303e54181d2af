"""Score the clips of one store: decode each once, feed every family, commit, never twice.

Used by engine.py. A key that the store has is not computed again; each finished clip is committed
at once, so that a killed run loses only the clips under way.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfdbench.evaluate.match import asks
from dfdbench.evaluate.metrics import Compute, Metric, MetricFamily, Setting
from dfdbench.evaluate.metrics.base import Values, is_shared
from dfdbench.evaluate.schema import Key, Row, Shape, condition_of, damage_key
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.summary import Summary
from dfdbench.generate.suites.base import Suite
from dfdbench.utils import decode
from dfdbench.utils.errors import UserError, pass_out_of_memory
from dfdbench.utils.files import sha256_file
from dfdbench.utils.manifest import Refused, Sample
from dfdbench.utils.progress import Bar
from dfdbench.utils.video import Clip, Damaged, damaged_line, read_image, read_video, select

AS_IT_IS = ", or score it as it is with --allow-damaged"
MOST_WORKERS = 8  # each holds one decoded clip
LEAST_BESIDE_GPU = 4  # so that it computes while clips are decoded, also on a machine of few cores
Scores = dict[Key, float | np.ndarray | None]
Outcome = tuple[Scores, Shape, str | None]  # the last: what the decoder reported of damage


class Models:
    """What computes each family, loaded when first asked for; `weights` are known before."""

    def __init__(self, setting: Setting, weights: Mapping[str, str]) -> None:
        self.setting, self.weights = setting, weights
        self._loaded: dict[str, Compute] = {}

    def get(self, family: MetricFamily) -> Compute:
        """The family's function; loads its model the first time."""
        if family.name not in self._loaded:
            self._loaded[family.name] = family.load(self.setting)
        return self._loaded[family.name]

    def key(self, family: MetricFamily, metric: Metric, row: Row | None, decoder: str) -> Key:
        """The key of one score; without a row, of the metric's scores of any clip."""
        device = self.setting.device.split(":")[0] if family.model else "cpu"
        condition = _condition(family, row) if row else ""
        return Key(
            row.sha256 if row else "", metric.name, metric.version, self.weights[family.name],
            family.policy, decoder, family.dtype, device, condition or "",
        )  # fmt: skip


def _condition(family: MetricFamily, row: Row) -> str | None:
    return condition_of(family.needs, row.prompt, row.image, row.blocks)


class _Job(NamedTuple):
    """A clip with families still to compute."""

    sample: Sample
    row: Row
    families: list[tuple[MetricFamily, Compute]]


@dataclass
class ClipScorer:
    """Scores the samples of one store; `summary` and `bar` are told of each.

    allow_damaged: score clips on which the decoder reports errors, and say so; else leave them out.
    """

    store: Store
    suite: Suite
    families: list[MetricFamily]
    models: Models
    workers: int | None
    summary: Summary
    bar: Bar
    allow_damaged: bool = False

    def run(self, samples: list[Sample], complete: bool) -> None:
        """Score `samples`. complete: they are all that the store should hold."""
        self._say_what_counts()
        for job, future in self._ahead(self._jobs(samples)):
            try:
                scores, shape, damage = future.result()
            except UserError as error:
                self._failed(job.row.path, str(error))
                continue
            if damage:
                self.store.set_meta({damage_key(job.row.sha256): damage})
                self._kept(job.row.path, damage)
            self.store.add_scores(job.row, scores, shape)
            self.summary.scored += 1
            self.bar.step()
        if complete:
            names = {self.store.name_of(sample.path) for sample in samples}
            self.store.keep_samples(self.suite.name, names)

    def refuse(self, refused: Iterable[Refused]) -> None:
        """Record what cannot be scored, each with the reason."""
        for path, reason in refused:
            name = self.store.name_of(path)
            self._failed(name.encode(errors="backslashreplace").decode(), reason)

    def _say_what_counts(self) -> None:
        """Before any clip, so that a killed run's scores are read like those of a finished one."""
        name = self.suite.name
        self.store.set_current(
            self.models.key(family, metric, None, "")
            for family in self.families
            for metric in family.at("video")
        )
        families = ",".join(family.name for family in self.families)
        self.store.set_meta(
            {f"suite {name}": str(self.suite.version), f"families {name}": families}
        )

    def _jobs(self, samples: list[Sample]) -> Iterator[_Job]:
        """Samples that lack a score; the others are recorded and counted as reused."""
        damaged = self.store.meta()
        for sample in samples:
            name = self.store.name_of(sample.path)
            try:
                sha256 = sha256_file(sample.path)
                image = sha256_file(sample.image) if sample.image else ""
            except OSError as error:
                self._failed(name, f"{error.filename}: {error.strerror}; check the path")
                continue
            row = Row(
                self.suite.name, name, sample.prompt_id, sample.prompt, sample.seed,
                sample.method, sha256, image, sample.blocks,
            )  # fmt: skip
            stored = self.store.known(sha256)
            asked = [f for f in self.families if asks(self.suite, row.prompt_id, f)]
            lacking = [family for family in asked if not self._is_stored(family, row, stored)]
            if lacking:
                yield _Job(sample, row, [(family, self.models.get(family)) for family in lacking])
            elif (damage := damaged.get(damage_key(sha256))) and not self.allow_damaged:
                self._failed(name, damaged_line(sample.path, damage) + AS_IT_IS)
            else:
                if damage:
                    self._kept(name, damage)
                self.store.add_sample(row)
                self.summary.reused += 1
                self.bar.step()

    def _is_stored(self, family: MetricFamily, row: Row, stored: set[Key]) -> bool:
        if _condition(family, row) is None:
            return True  # nothing to compute
        decoder = decode.name()
        return all(self.models.key(family, m, row, decoder) in stored for m in family.at("video"))

    def _ahead(self, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Future[Outcome]]]:
        """Jobs in order, `workers` of them under way: as many decoded clips are in memory.

        As many again are ready, so that no thread waits for a clip that takes longer.
        """
        workers = self.workers or usual_workers(self.models.setting.device)
        pool = ThreadPoolExecutor(workers)
        try:
            waiting = [(job, self._submit(pool, job)) for job in islice(jobs, 2 * workers)]
            while waiting:
                yield waiting.pop(0)
                waiting += [(j, self._submit(pool, j)) for j in islice(jobs, 1)]
        finally:
            pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, job: _Job) -> Future[Outcome]:
        return pool.submit(_work, job, self.models, self.allow_damaged)

    def _kept(self, name: str, damage: str) -> None:
        self.summary.notes.append(f"{name}: scored although damaged ({damage})")

    def _failed(self, name: str, reason: str) -> None:
        self.store.add_failure(self.suite.name, name, reason)
        self.summary.failures.append((name, reason))
        self.bar.step()


def usual_workers(device: str) -> int:
    """Clips worked on at once where no number is asked for."""
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    return max(workers, LEAST_BESIDE_GPU) if is_shared(device) else workers


def _one_thread() -> None:
    """Keep libraries from threads of their own, as `threadpool_limits` keeps numpy and scipy.

    Clips are the parallel unit: threads in threads cost half as much CPU again, and a score would
    depend on the number of cores.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(1)


def _work(job: _Job, models: Models, allow_damaged: bool) -> Outcome:
    """Decode one clip and compute what it lacks; runs in a thread."""
    _one_thread()
    policies = {family.policy for family, _ in job.families}
    policy = policies.pop() if len(policies) == 1 else "all"
    try:
        clip = read_video(job.sample.path, policy, allow_damaged)
    except Damaged as error:
        raise UserError(f"{error}{AS_IT_IS}") from None
    shape = Shape.of(clip)
    if any("image" in family.needs for family, _ in job.families):
        clip = clip._replace(image=read_image(job.sample.image))
    clip = clip._replace(prompt=job.sample.prompt, blocks=job.sample.blocks)
    scores: Scores = {}
    for family, compute in job.families:
        values = _compute(family, compute, clip, job.sample.path)
        for metric in family.at("video"):
            value = values.get(metric.name)
            if isinstance(value, float) and not math.isfinite(value):
                value = None
            scores[models.key(family, metric, job.row, clip.decoder)] = value
    return scores, shape, clip.damage


def _compute(family: MetricFamily, compute: Compute, clip: Clip, path: Path) -> Values:
    """The family's values of a clip; a UserError that names the file where it cannot."""
    shown = select(clip, family.policy)
    if len(shown.frames) < family.min_frames:
        raise UserError(
            f"{path}: {len(shown.frames)} frame, {family.name} needs {family.min_frames}; give a "
            "longer clip"
        )
    try:
        return compute(shown)
    except UserError:
        raise
    except Exception as error:  # one odd clip must not end the scoring of the others
        pass_out_of_memory(error)
        raise UserError(
            f"{path}: {family.name} failed on it ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); write the clip again or choose other --metrics"
        ) from error
