"""Gather what a report is made of: score tables, run manifests, training logs and clips.

The first step of page.py. It reads stores and manifests only and never computes a score.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dfdbench.evaluate.vbench.totals import COLUMNS
from dfdbench.generate.suites.base import Suite
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.generate.suites.stored import stored_suite
from dfdbench.report.arms import ordered
from dfdbench.utils.errors import UserError

VALUE_COLUMNS = ["arm", "training_seed", "prompt_id", "seed", "metric", "value", "level"]
CLIP_COLUMNS = ["arm", "training_seed", "prompt_id", "prompt", "seed", "path"]
POOLED_COLUMNS = ["arm", "reference", "metric", "value", "n"]
VBENCH_COLUMNS = ["arm", "training_seed", "prompt_id", "prompt", "path", *COLUMNS]
HISTOGRAM, BINS = "saturation_histogram", 256
NO_TRAINING_SEED = -1
"""Stands for the missing training seed of the teacher, of real clips and of plain folders."""


@dataclass
class RunRecord:
    """One run folder: `info` is its run.json, `log` its metrics.jsonl a row per line."""

    path: Path
    arm: str
    training_seed: int
    info: dict[str, Any]
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Collected:
    """All that a report shows.

    values: a row per score; columns VALUE_COLUMNS, `level` is "video" or "prompt".
    clips: a row per video; columns CLIP_COLUMNS, `path` absolute.
    histograms: arm → mean over its prompts of the pixel-saturation histogram (256 bins, [0, 1]).
    runs: the run folders among the sources. skipped: one line per source that gave nothing.
    pooled: values of all clips of an arm against a reference, columns POOLED_COLUMNS.
    provenance: source → what its scores depend on (Store.provenance).
    vbench: a row per clip with arm, training_seed and what evaluate/vbench/totals.py takes; no rows
    where no dimension of VBench was scored. chosen: the suite of these rows, with the conditions it
    was scored under; None for a user's own prompts, and where its file of VBench is not here.
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

    @property
    def arms(self) -> list[str]:
        """The arms that have scores, in drawing order."""
        return ordered(self.values["arm"])


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line cut short by a crash is left out."""
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not JSON ({error.msg})") from error
    return rows


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


def _run_record(path: Path) -> RunRecord:
    from dfdbench.utils.run import Run

    run = Run.open(path)
    seed = NO_TRAINING_SEED if run.training_seed is None else int(run.training_seed)
    log = path / "metrics.jsonl"
    return RunRecord(path, run.arm, seed, dict(run.info), read_jsonl(log) if log.exists() else [])


def _owned(table: pd.DataFrame, record: RunRecord | None) -> pd.DataFrame:
    """`table` of a store with the columns arm and training_seed of the run that it belongs to."""
    return table.assign(
        arm=record.arm if record else table["method"],
        training_seed=record.training_seed if record else NO_TRAINING_SEED,
    )


def _clips(samples: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A store's samples with paths that can be opened; the store's are relative to its folder."""
    paths = [str((folder / path).resolve()) for path in samples["path"]]
    return samples.assign(path=paths)


def _mean_histograms(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Clips of a prompt first, then prompts: the prompt is the unit, as in the tables."""
    by_prompt: dict[str, list[np.ndarray]] = {}
    for (arm, _), rows in table.groupby(["arm", "prompt_id"])["array"]:
        by_prompt.setdefault(str(arm), []).append(np.mean(np.stack(list(rows)), axis=0))
    return {arm: np.mean(np.stack(parts), axis=0) for arm, parts in by_prompt.items()}


def _choose_suite(tables: Sequence[pd.DataFrame], suite: str | None) -> str:
    known = sorted({name for table in tables for name in table["suite"].unique()})
    if suite is None and len(known) == 1:
        return known[0]
    if suite is None:
        raise UserError(f"the sources hold several suites ({', '.join(known)}); choose --suite")
    if suite not in known:
        raise UserError(f"no scores of suite '{suite}'; the sources hold {', '.join(known)}")
    return suite


def _pooled(tables: Sequence[pd.DataFrame], suite: str) -> pd.DataFrame:
    frame = pd.concat(tables, ignore_index=True)
    return frame[frame["suite"] == suite].rename(columns={"method": "arm"})[POOLED_COLUMNS]


def collect(sources: Sequence[Path], suite: str | None = None) -> Collected:
    """Read every source; `suite` may be left out when the sources hold only one.

    Raises UserError for a source without scores that was named outright, and for no scores at
    all. Runs found below a named folder that have no scores are listed in `skipped`.
    """
    from dfdbench.evaluate.store import Store

    records: list[RunRecord] = []
    tables: list[pd.DataFrame] = []
    arrays: list[pd.DataFrame] = []
    clips: list[pd.DataFrame] = []
    pooled: list[pd.DataFrame] = []
    provenance: dict[str, Any] = {}
    skipped: list[str] = []
    stores: list[tuple[Path, RunRecord | None]] = []
    for source in sources:
        for path in find_sources(Path(source)):
            folder = path.parent if path.is_file() else path
            store_path = path if path.is_file() else folder / "scores.sqlite"
            record = _run_record(folder) if (folder / "run.json").exists() else None
            table = pd.DataFrame()
            if store_path.exists():
                with Store.reading(store_path) as store:
                    table = store.table()
                    arrays.append(_owned(store.arrays(HISTOGRAM, size=BINS), record))
                    clips.append(_owned(_clips(store.samples(), store_path.parent), record))
                    pooled.append(store.pooled())
                    provenance[store_path.parent.name or "."] = store.provenance()
            if table.empty:
                remedy = f"{path}: no scores; run `dfdbench eval {path} --suite NAME`"
                if path == Path(source):
                    raise UserError(remedy)
                skipped.append(remedy)
                continue
            tables.append(_owned(table, record))
            stores.append((store_path, record))
            records += [record] if record else []
    if not tables:
        raise UserError("none of the sources holds scores; run `dfdbench eval` first")
    chosen = _choose_suite(tables, suite)
    values, histograms, shown = (
        pd.concat([part[part["suite"] == chosen] for part in parts], ignore_index=True)
        for parts in (tables, arrays, clips)
    )
    vbench, suite_found, faults = _vbench(stores, chosen, set(values["metric"]))
    skipped += faults
    return Collected(
        chosen,
        values[VALUE_COLUMNS],
        shown[CLIP_COLUMNS],
        _mean_histograms(histograms),
        records,
        skipped,
        _pooled(pooled, chosen),
        provenance,
        vbench,
        suite_found,
    )


def _vbench(
    stores: Sequence[tuple[Path, RunRecord | None]], suite: str, metrics: set[str]
) -> tuple[pd.DataFrame, Suite | None, list[str]]:
    """VBench's values of every clip, the suite as the stores have it, lines for `skipped`.

    Raises:
        UserError: the stores have clips of other first frames.
    """
    from dfdbench.evaluate.store import Store

    nothing = pd.DataFrame(columns=VBENCH_COLUMNS)
    if metrics.isdisjoint(DIMENSIONS):
        return nothing, None, []
    parts, metas = [nothing], {"": dict[str, str]()}
    for path, record in stores:
        with Store.reading(path) as store:
            own = _owned(store.values(suite, COLUMNS), record)[VBENCH_COLUMNS]
            if len(own):
                parts.append(own)
                meta = store.meta()
                metas[meta.get(f"conditions {suite}", "")] = meta
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
