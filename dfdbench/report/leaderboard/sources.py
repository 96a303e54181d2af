"""From score stores and run folders, or from the paper's tables, to leaderboard entries.

Used by cli.py for `leaderboard add`. Entries hold names, hashes and numbers, never a path of the
machine that they were made on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfdbench.evaluate.metrics import all_metrics
from dfdbench.evaluate.schema import Key
from dfdbench.evaluate.store import Store
from dfdbench.report import published
from dfdbench.report.arms import KNOWN, label_of, looks, ordered
from dfdbench.report.cells import Cell
from dfdbench.report.collect import find_sources
from dfdbench.report.deleted import without_deleted
from dfdbench.report.identity import Member, named_by_recipe, recipe_digest
from dfdbench.report.leaderboard.entries import (
    RECIPE,
    SCHEMA,
    evidence_text,
    measure,
    slug,
)
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.run import Run, provenance

RUN_FIELDS = (
    "id", "training_seed", "method", "recipe_digest", "student_updates", "student_updates_total",
    "wall_seconds", "wall_seconds_total", "device", "processes", "teacher_sha256",
    "student_sha256",
)  # fmt: skip


Entry = dict[str, Any]
"""An entry as it is written, but for its hashes; entries.py has its models."""


@dataclass
class Part:
    """What one store says of one arm, all of one suite.

    table: rows of Store.table. videos: sha256 of every clip. keys: how each was scored. run: what
    is kept of the run's manifest, None for a plain store. folder: of the store. info: run.json.
    reference: `eval --reference` named its clips.
    """

    arm: str
    training_seed: int | None
    source: str
    suite: str
    suite_version: str | None
    table: pd.DataFrame
    videos: list[str]
    keys: set[Key]
    versions: dict[str, int]
    run: dict[str, Any] | None
    folder: Path
    info: dict[str, Any] | None
    reference: bool


def name_faults(name: str, method: str) -> Iterator[str]:
    """Whether a name says that a method is another one, such as "real clips" of a teacher's."""
    said = " ".join(name.lower().replace("_", " ").replace("(reference)", "").split())
    for arm, look in KNOWN.items():
        if said in (look.label.lower(), arm.replace("_", " ")) and method != arm:
            yield f"'{name}' is what {arm} is called, and the clips are of {method}"


def model_name(model: str) -> str:
    """A model as anyone may read it: a shipped name or hub id, of a path its last part."""
    return Path(model).name if model.startswith(("/", "~", ".")) or "\\" in model else model


def _run_facts(run: Run, suite: str) -> dict[str, Any]:
    """What an entry keeps of run.json; the teacher's own hash stands in its samples' list."""
    facts = {key: run.info[key] for key in RUN_FIELDS if run.info.get(key) is not None}
    facts["model"] = model_name(str(run.info.get("model", "")))
    code = run.info.get("code", {})
    if recipe := recipe_digest(run.info):
        facts[RECIPE] = recipe
    facts |= {"code_sha256": code.get("sha256"), "commit": code.get("commit")}
    listing = run.videos / suite / "samples.jsonl"
    if "teacher_sha256" not in facts and listing.is_file():
        with open(listing, encoding="utf-8") as file:
            settings = json.loads(file.readline() or "{}").get("settings", {})
        facts |= {k: v for k, v in settings.items() if k == "teacher_sha256"}
    return facts


def _parts(path: Path, suite: str | None) -> list[Part]:
    """The arms in one run folder, folder with a store, or store.

    Raises:
        UserError: no scores, or of clips that are gone.
    """
    folder = path.parent if path.is_file() else path
    run = Run.open(folder) if (folder / "run.json").exists() else None
    file = path if path.is_file() else folder / "scores.sqlite"
    if not file.exists():
        raise UserError(f"{path}: no scores; run `dfdbench eval {path} --suite NAME`")
    parts = []
    with Store.reading(file) as store:
        table, samples, meta = store.table(), store.samples(), store.meta()
        versions = store.provenance()["metric_versions"]
        named = [str((file.parent / name).resolve()) for name in samples["path"]]
        clips = samples.assign(name=samples["path"], path=named)
        if line := without_deleted(file, table, clips, store.arrays("", None), store.pooled()).line:
            raise UserError(line)
        known = {m.name for m in all_metrics().values() if m.kind == "score"}
        table = table[table["metric"].isin(known)].dropna(subset=["value"])
        if suite is not None:
            table = table[table["suite"] == suite]
        for (name, method), rows in table.groupby(["suite", "method"]):
            of_arm = samples[(samples["suite"] == name) & (samples["method"] == method)]
            videos = sorted(of_arm["sha256"])
            keys = set().union(*(store.counted(sha) for sha in set(videos)))
            parts.append(
                Part(
                    run.arm if run else str(method), run.training_seed if run else None,
                    folder.name, str(name), meta.get(f"suite {name}"), rows, videos, keys, versions,
                    _run_facts(run, str(name)) if run else None,
                    folder, dict(run.info) if run else None,
                    meta.get(f"reference {name}") == method,
                )
            )  # fmt: skip
    return parts


def measured_entries(
    sources: Sequence[Path],
    board: str,
    name: str | None = None,
    methods: Sequence[str] = (),
    suite: str | None = None,
) -> list[tuple[Entry, str]]:
    """One entry, with the text of its evidence, for each arm in the sources.

    Args:
        sources: run folders (those of one arm make one entry), folders of runs, or stores.
        name: shown instead of the arm's usual label; for one arm only.
        methods: only these arms; all if empty.
        suite: needed where the sources hold several.

    Raises:
        UserError: no scores, several suites, an unknown arm, or two sources that cannot be one
            entry: the same training seed twice, other versions of a metric or of the suite.
    """
    parts = [p for s in sources for path in find_sources(Path(s)) for p in _parts(path, suite)]
    suites = sorted({part.suite for part in parts})
    if not parts:
        raise UserError(f"no scores{f' of suite {suite}' if suite else ''}; run `dfdbench eval`")
    if len(suites) > 1:
        raise UserError(f"the sources hold several suites ({', '.join(suites)}); choose --suite")
    members = [Member(p.arm, p.training_seed, p.folder, p.info) for p in parts]
    for part, arm in zip(parts, named_by_recipe(members), strict=True):
        part.arm = arm
    arms = ordered(part.arm for part in parts)
    for method in methods:
        if method not in arms:
            raise unknown_name("--arm", method, arms)
    chosen = [arm for arm in arms if not methods or arm in methods]
    if name and len(chosen) > 1:
        raise UserError(f"--name names one entry, the sources hold {', '.join(chosen)}")
    return [_entry([p for p in parts if p.arm == arm], board, name) for arm in chosen]


def _entry(parts: Sequence[Part], board: str, name: str | None) -> tuple[Entry, str]:
    arm = parts[0].arm
    _check_one_entry(parts)
    for fault in name_faults(name or label_of(arm), arm):
        raise UserError(f"--name {name or label_of(arm)}: {fault}; choose another")
    cells = _cells(parts)
    metrics = all_metrics()
    numbers = measure(cells)
    for metric, values in numbers.items():
        # Values of a prompt have no key of their own: their version is that of this dfdbench.
        version = parts[0].versions.get(metric, metrics[metric].version)
        values |= {"version": version, "direction": metrics[metric].direction}
    videos = sorted(sha for part in parts for sha in part.videos)
    now = provenance()
    seeds = sorted(part.training_seed for part in parts if part.training_seed is not None)
    entry = {
        "schema": SCHEMA,
        "board": board,
        "id": slug(name or arm),
        "name": name or label_of(arm),
        "method": arm,
        "kind": "measured",
        **({"reference": True} if any(part.reference for part in parts) else {}),
        "suite": {"name": parts[0].suite, "version": parts[0].suite_version},
        "metrics": numbers,
        "provenance": {
            "dfdbench": now["versions"]["dfdbench"],
            "commit": now["code"]["commit"],
            "code_sha256": now["code"]["sha256"],
            "created": now["created"],
            "decoders": sorted({key.decoder for part in parts for key in part.keys}),
            "families": _families(parts, numbers),
            "videos": {
                "count": len(videos),
                "digest": hashlib.sha256("\n".join(videos).encode()).hexdigest(),
            },
            "prompts": len({cell.prompt for cell in cells}),
            "training_seeds": seeds,
            "runs": [part.run for part in parts if part.run],
        },
    }
    return entry, evidence_text(cells)


def _check_one_entry(parts: Sequence[Part]) -> None:
    """Refuse sources of one arm that cannot be averaged."""
    arm, seen = parts[0].arm, dict[int | None, str]()
    for part in parts:
        if part.training_seed in seen:
            seed = (
                "no training seed" if part.training_seed is None else f"seed {part.training_seed}"
            )
            raise UserError(
                f"{part.source} and {seen[part.training_seed]} are both {arm} with {seed}; name one"
            )
        seen[part.training_seed] = part.source
        if part.suite_version != parts[0].suite_version:
            raise UserError(f"{part.source}: another version of suite {part.suite}; score it again")
        metrics = set(part.table["metric"])
        for metric in metrics & set(parts[0].table["metric"]):
            if part.versions.get(metric) != parts[0].versions.get(metric):
                raise UserError(f"{part.source}: another version of {metric}; score it again")


def _cells(parts: Sequence[Part]) -> list[Cell]:
    """Clips of a prompt and training seed averaged, by metric, prompt and seed."""
    order = list(all_metrics())
    cells = []
    for part in parts:
        for (metric, prompt), rows in part.table.groupby(["metric", "prompt_id"]):
            value, n = float(rows["value"].mean()), int(rows["n"].sum())
            cells.append(
                Cell(
                    arm=part.arm,
                    prompt=str(prompt),
                    training_seed=part.training_seed,
                    metric=str(metric),
                    # As written, so that the means are those of the evidence to the last digit.
                    value=float(f"{value:.9g}"),
                    n=n,
                )
            )
    return sorted(cells, key=lambda c: (order.index(c.metric), c.prompt, c.training_seed or 0))


def _families(parts: Sequence[Part], numbers: dict[str, Any]) -> dict[str, Any]:
    """Family -> its metrics in the entry and how its clips were read and scored.

    Values of a prompt come from the readings and arrays of their family, so the weights of the
    family are theirs.
    """
    metrics = all_metrics()
    keys = {key for part in parts for key in part.keys if key.metric in metrics}
    newest: dict[str, int] = {}
    for key in keys:
        newest[key.metric] = max(newest.get(key.metric, 0), key.version)
    result: dict[str, Any] = {}
    for family in dict.fromkeys(metrics[name].family for name in numbers):
        own = [
            k for k in keys if metrics[k.metric].family == family and k.version == newest[k.metric]
        ]
        result[family] = {
            "metrics": [name for name in numbers if metrics[name].family == family],
            "frame_policies": sorted({key.policy for key in own}),
            "weights_sha256": sorted({key.weights for key in own} - {""}),
            "dtypes": sorted({key.dtype for key in own}),
            "devices": sorted({key.device for key in own}),
        }
    return result


def published_board(setting: str) -> str:
    """The board of a table of the paper, such as t2v-wan."""
    return setting.replace("_", "-")


def published_entries(board: str | None = None) -> list[Entry]:
    """The paper's rows as entries, of one board or of all.

    Raises:
        UserError: no table of the paper has this board.
    """
    boards = {published_board(setting): setting for setting in published.settings()}
    if board is not None and board not in boards:
        raise unknown_name("--board of published numbers", board, boards)
    entries = []
    for name, setting in boards.items():
        rows = published.of_setting(setting) if board in (None, name) else ()
        for method in dict.fromkeys(row.method for row in rows):
            own = [row for row in rows if row.method == method]
            entries.append(
                {
                    "schema": SCHEMA,
                    "board": name,
                    "id": f"published-{slug(method)}",
                    "name": looks([method])[method].label,
                    "method": method,
                    "kind": "published",
                    "source": {"paper": own[0].source, "table": own[0].table, "setting": setting},
                    "metrics": {
                        row.metric: {
                            "value": row.value,
                            "as_printed": row.text,
                            "direction": published.DIRECTION,
                        }
                        for row in own
                    },
                }
            )
    return entries
