"""Gather what a report is made of: score tables, run manifests, training logs and clips.

The first step of page.py. It reads stores and manifests only and never computes a score.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.totals import COLUMNS
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.generate.suites.stored import stored_suite
from dfdbench.report.arms import ordered
from dfdbench.report.deleted import without_deleted
from dfdbench.report.earlier import (
    Earlier,
    Provenance,
    check_alike,
    is_report,
    read_report,
    suites_of,
)
from dfdbench.report.identity import Member, named_by_clips, named_by_recipe
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.utils.errors import UserError
from dfdbench.utils.run import Run

VALUE_COLUMNS = ["arm", "training_seed", "prompt_id", "seed", "metric", "value", "level", "n"]
CLIP_COLUMNS = ["arm", "training_seed", "prompt_id", "prompt", "seed", "path"]
POOLED_COLUMNS = ["arm", "training_seed", "reference", "metric", "value", "n"]
VBENCH_COLUMNS = ["arm", "training_seed", "prompt_id", "prompt", "path", *COLUMNS]
HISTOGRAM, BINS = "saturation_histogram", 256


@dataclass(frozen=True)
class RunRecord:
    """One run folder: `info` is its run.json, `log` its metrics.jsonl a row per line.

    parent: the arm of its first stage, where that is among the sources.
    """

    path: Path
    arm: str
    training_seed: int
    info: dict[str, Any]
    log: list[dict[str, Any]] = field(default_factory=list)
    parent: str | None = None


@dataclass
class Collected:
    """All that a report shows.

    values: a row per score; columns VALUE_COLUMNS, `level` is "video" or "prompt", n the clips.
    clips: a row per video; columns CLIP_COLUMNS, `path` absolute.
    histograms: arm → mean over its prompts of the pixel-saturation histogram (256 bins, [0, 1]).
    runs: the run folders among the sources. skipped: one line per source that gave nothing.
    pooled: values of all clips of an arm's training seed against a reference; POOLED_COLUMNS.
    provenance: source → what its scores depend on (Store.provenance).
    vbench: a row per clip with arm, training_seed and what evaluate/vbench/totals.py takes; no rows
    where no dimension of VBench was scored. chosen: the suite of these rows, with the conditions it
    was scored under; None for a user's own prompts, and where its file of VBench is not here.
    references: the arms that `eval --reference` named. families: those that the clips were scored
    with. earlier: reports among the sources, whose cells and runs count too. sources: the stores.
    """

    suite: str
    values: pd.DataFrame
    clips: pd.DataFrame
    histograms: dict[str, np.ndarray]
    runs: list[RunRecord]
    skipped: list[str]
    pooled: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=POOLED_COLUMNS))
    provenance: dict[str, Any] = field(default_factory=dict)
    vbench: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=VBENCH_COLUMNS))
    chosen: Suite | None = None
    references: frozenset[str] = frozenset()
    families: frozenset[str] = frozenset()
    earlier: tuple[Earlier, ...] = ()
    sources: tuple["Source", ...] = ()

    @property
    def arms(self) -> list[str]:
        """The arms that have scores, in drawing order."""
        return ordered([*self.values["arm"], *(a for e in self.earlier for a in e.cells["arm"])])


class Source(NamedTuple):
    """A store, and the run that it lies in.

    table, clips, arrays, pooled: as the store has them, of all suites; clips with their paths
    absolute. arms: suite and method → arm, empty until all sources are known.
    """

    path: Path
    record: RunRecord | None
    table: pd.DataFrame
    clips: pd.DataFrame
    arrays: pd.DataFrame
    pooled: pd.DataFrame
    meta: dict[str, str]
    provenance: dict[str, Any]
    arms: Mapping[str, str] = {}

    def of(self, suite: str) -> "Source":
        """The rows of one suite."""
        parts = {
            name: part[part["suite"] == suite]
            for name in ("table", "clips", "arrays", "pooled")
            for part in (getattr(self, name),)
        }
        return self._replace(**parts)

    def arm_of(self, method: str) -> str:
        """The arm of a method's clips."""
        return self.arms.get(method, method)

    def owned(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of the store with the columns arm and training_seed."""
        seed = self.record.training_seed if self.record else NO_TRAINING_SEED
        return frame.assign(arm=frame["method"].map(self.arm_of), training_seed=seed)


CLIP_KEY = ("arm", "training_seed", "prompt_id", "path")


def find_sources(source: Path) -> list[Path]:
    """The run folders and stores that a path on the command line stands for.

    A run folder or a folder with scores.sqlite is itself; a .sqlite file is itself; any other
    folder stands for the runs and stores up to two levels below it.
    """
    if not source.exists():
        raise UserError(f"{source}: no such run, folder or store")
    if source.is_file():
        if source.suffix != ".sqlite":
            raise UserError(f"{source}: expected a run folder or a scores.sqlite")
        return [source]
    if (source / "run.json").exists() or (source / "scores.sqlite").exists():
        return [source]
    found = {
        path.parent
        for name in ("run.json", "scores.sqlite")
        for pattern in (f"*/{name}", f"*/*/{name}")
        for path in source.glob(pattern)
    }
    if not found:
        raise UserError(f"{source}: holds no run (run.json) and no scores.sqlite")
    return sorted(found)


def _run_record(path: Path, skipped: list[str]) -> RunRecord:
    run = Run.open(path)
    seed = NO_TRAINING_SEED if run.training_seed is None else run.training_seed
    log = list[dict[str, Any]]()
    try:
        log += run.metrics()
    except UserError as error:
        skipped.append(f"training curve: {error}")
    return RunRecord(path, run.arm, seed, dict(run.info), log)


def _read(path: Path, record: RunRecord | None, skipped: list[str]) -> Source:
    """All that a store holds for a report, without clips that are gone."""
    with Store.reading(path) as store:
        table, samples, pooled = store.table(), store.samples(), store.pooled()
        arrays = store.arrays(HISTOGRAM, size=BINS)
        meta, provenance = store.meta(), store.provenance()
    if record:  # a run is one arm, whatever its clips' method is called
        for frame in (table, samples, pooled, arrays):
            frame["method"] = record.arm
    clips = samples.assign(
        name=samples["path"],
        path=[str((path.parent / name).resolve()) for name in samples["path"]],
    )
    kept = without_deleted(path, table, clips, arrays, pooled)
    skipped += [kept.line] if kept.line else []
    return Source(path, record, kept.table, kept.clips, kept.arrays, kept.pooled, meta, provenance)


def _named(sources: Sequence[Source]) -> list[Source]:
    """The sources of one suite with the arm of each method (identity.py)."""
    members, of_source = list[Member](), list[tuple[int, str]]()
    for i, source in enumerate(sources):
        for method in dict.fromkeys([*source.table["method"], *source.clips["method"]]):
            own = source.clips[source.clips["method"] == method]
            keys = zip(own["prompt_id"], own["seed"].astype(object), own["name"], strict=True)
            clips: dict[Hashable, str] = {
                (prompt, Path(name).name if pd.isna(seed) else seed): sha
                for (prompt, seed, name), sha in zip(keys, own["sha256"], strict=True)
            }
            record = source.record
            members.append(
                Member(
                    str(method),
                    record.training_seed if record else None,
                    source.path.parent,
                    record.info if record else None,
                    clips,
                )
            )
            of_source.append((i, str(method)))
    arms: list[dict[str, str]] = [{} for _ in sources]
    names = named_by_clips(members, named_by_recipe(members))
    for (i, method), name in zip(of_source, names, strict=True):
        arms[i][method] = name
    of_run = {
        str(run_id): arms[i].get(source.record.arm)
        for i, source in enumerate(sources)
        if source.record and (run_id := source.record.info.get("id"))
    }
    named = []
    for source, own_arms in zip(sources, arms, strict=True):
        record = source.record
        if record:
            parent = (record.info.get("parent") or {}).get("id")
            arm = own_arms.get(record.arm, record.arm)
            record = replace(record, arm=arm, parent=of_run.get(str(parent)) if parent else None)
        named.append(source._replace(arms=own_arms, record=record))
    return named


def _once(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Rows without those that a source before has too; clips without a seed are left alone."""
    again = frame.duplicated([*keys])
    if "level" in frame:
        again &= frame["seed"].notna() | (frame["level"] == "prompt")
    return frame[~again].reset_index(drop=True)


def _mean_histograms(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Clips of a prompt first, then prompts: the prompt is the unit, as in the tables."""
    by_prompt: dict[str, list[np.ndarray]] = {}
    for (arm, _), rows in table.groupby(["arm", "prompt_id"])["array"]:
        by_prompt.setdefault(str(arm), []).append(np.mean(np.stack(list(rows)), axis=0))
    return {arm: np.mean(np.stack(parts), axis=0) for arm, parts in by_prompt.items()}


def _choose_suite(suites: Collection[str], suite: str | None) -> str:
    known = sorted(suites)
    if suite is None and len(known) == 1:
        return known[0]
    if suite is None and not known:
        raise UserError("none of the sources says of which suite it is; write the reports again")
    if suite is None:
        raise UserError(f"the sources hold several suites ({', '.join(known)}); choose --suite")
    if suite not in known:
        raise UserError(f"no scores of suite '{suite}'; the sources hold {', '.join(known)}")
    return suite


def collect(sources: Sequence[Path], suite: str | None = None) -> Collected:
    """Read every source; `suite` may be left out when the sources hold only one.

    Raises UserError for a source without scores that was named outright, and for no scores at
    all. Runs found below a named folder that have no scores are listed in `skipped`.
    """
    every, skipped, seen = list[Source](), list[str](), set[Path]()
    reports = [Path(source) for source in sources if is_report(Path(source))]
    earlier = tuple(map(read_report, reports))
    for source in (source for source in sources if Path(source) not in reports):
        for path in find_sources(Path(source)):
            folder = path.parent if path.is_file() else path
            store_path = path if path.is_file() else folder / "scores.sqlite"
            if store_path.resolve() in seen:
                continue
            seen.add(store_path.resolve())
            is_run = (folder / "run.json").exists()
            record = _run_record(folder, skipped) if is_run else None
            read = _read(store_path, record, skipped) if store_path.exists() else None
            if read is None or read.table.empty:
                remedy = f"{path}: no scores; run `dfdbench eval {path} --suite NAME`"
                if path == Path(source):
                    raise UserError(remedy)
                skipped.append(remedy)
                continue
            every.append(read)
    if not every and not earlier:
        raise UserError("none of the sources holds scores; run `dfdbench eval` first")
    suites = {name for source in every for name in source.table["suite"]}
    chosen = _choose_suite(suites.union(*map(suites_of, earlier)), suite)
    named = _named([source.of(chosen) for source in every])
    runs = _with_earlier([s.record for s in named if s.record], chosen, every, earlier)
    if not every:
        values, clips = (pd.DataFrame(columns=names) for names in (VALUE_COLUMNS, CLIP_COLUMNS))
        provenance = _provenance([], earlier, chosen)
        return Collected(
            chosen, values, clips, {}, runs, skipped, provenance=provenance, earlier=earlier
        )
    values, arrays, clips = (
        pd.concat([s.owned(getattr(s, part)) for s in named], ignore_index=True)
        for part in ("table", "arrays", "clips")
    )
    values = _once(values[VALUE_COLUMNS], [c for c in VALUE_COLUMNS if c not in ("value", "n")])
    vbench, suite_found, faults = _vbench(named, chosen, set(values["metric"]))
    references = {s.arms.get(name) for s in named if (name := s.meta.get(f"reference {chosen}"))}
    families = [s.meta.get(f"families {chosen}", "").split(",") for s in named]
    return Collected(
        chosen,
        values,
        _once(clips, CLIP_KEY)[CLIP_COLUMNS],
        _mean_histograms(arrays),
        runs,
        skipped + faults,
        _pooled(named),
        _provenance(every, earlier, chosen),
        vbench,
        suite_found,
        frozenset(arm for arm in references if arm),
        frozenset(name for of_store in families for name in of_store if name),
        earlier,
        tuple(named),
    )


def _provenance(stores: Sequence[Source], earlier: Sequence[Earlier], suite: str) -> dict[str, Any]:
    own = {s.path.parent.name or ".": s.provenance | {"suite": suite} for s in stores}
    return own | {
        f"{report.path.name}: {name}": read.model_dump()
        for report in earlier
        for name, read in report.provenance.items()
    }


def _with_earlier(
    runs: list[RunRecord], suite: str, stores: Sequence[Source], earlier: Sequence[Earlier]
) -> list[RunRecord]:
    """The runs with those of earlier reports, without logs; raises what `check_alike` does."""
    runs, measured = list(runs), dict[str, tuple[Any, ...]]()
    for source in stores:
        measured |= Provenance.model_validate(source.provenance).measured()
    for report in earlier:
        check_alike(report, suite, [(run.arm, run.info) for run in runs], measured)
        for read in report.provenance.values():
            measured |= read.measured()
        have = {(run.arm, run.training_seed) for run in runs}
        for name, info in report.runs.items():
            seed, parent = info.get("training_seed"), info.get("parent") or {}
            seed = NO_TRAINING_SEED if seed is None else seed
            if (info["arm"], seed) not in have:
                path = report.path / name
                runs.append(RunRecord(path, info["arm"], seed, info, parent=parent.get("arm")))
    return runs


def _pooled(sources: Sequence[Source]) -> pd.DataFrame:
    """Values against references, both under the names of their arms."""
    parts = [
        s.owned(s.pooled).assign(reference=s.pooled["reference"].map(s.arm_of)) for s in sources
    ]
    pooled = pd.concat(parts, ignore_index=True)[POOLED_COLUMNS]
    return pooled.drop_duplicates(["arm", "training_seed", "reference", "metric"])


def _vbench(
    sources: Sequence[Source], suite: str, metrics: set[str]
) -> tuple[pd.DataFrame, Suite | None, list[str]]:
    """VBench's values of every clip, the suite as the stores have it, lines for `skipped`.

    Raises:
        UserError: the stores have clips of other first frames.
    """
    nothing = pd.DataFrame(columns=VBENCH_COLUMNS)
    if metrics.isdisjoint(DIMENSIONS):
        return nothing, None, []
    parts, metas = [nothing], {"": dict[str, str]()}
    for source in sources:
        with Store.reading(source.path) as store:
            values = store.values(suite, COLUMNS)
        values = values[values["path"].isin(set(source.clips["name"]))]
        if len(values):
            if source.record:
                values["method"] = next(iter(source.arms))
            parts.append(source.owned(values)[VBENCH_COLUMNS])
            metas[source.meta.get(f"conditions {suite}", "")] = source.meta
    if len(metas) > 2:
        raise UserError(
            f"the sources hold suite {suite} with other first frames "
            f"({', '.join(sorted(filter(None, metas)))}); report them apart"
        )
    try:
        chosen = stored_suite(metas[max(metas)], suite)  # "" sorts first: no first frames
    except UserError as error:
        return nothing, None, [f"VBench's scores and totals: {error}"]
    return pd.concat(parts[1:] or parts, ignore_index=True), chosen, []
