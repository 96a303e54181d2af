"""Second passes of scoring: values over one prompt's clips, and of a method against a reference.

Used by engine.py and merge.py. They work on stored readings only: no video is decoded and no model
is loaded, and one prompt's arrays are in memory at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from dfdbench.evaluate.match import asks
from dfdbench.evaluate.metrics import GroupValue, MetricFamily, Reading
from dfdbench.evaluate.schema import condition_of
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.summary import Summary
from dfdbench.generate.suites.base import Suite

MOST_NAMED = 12  # prompts in a line


def aggregate(
    store: Store,
    suite: Suite,
    families: Sequence[MetricFamily],
    reference: str | None,
    summary: Summary,
) -> None:
    """Store the values over each prompt's clips and, with a reference, those against it.

    reference: the method that the others are compared with. summary: gets a line for each prompt
    left out, its clips being of several sizes, and for each method without clips of some prompts.
    """
    mixed = _mixed_sizes(store, suite)
    outdated = _aggregate_prompts(store, suite, families, reference, set(mixed))
    if reference is not None:
        _aggregate_pooled(store, suite, families, reference)
    summary.mixed += [f"method {m}, prompt {p}: {why}" for (m, p), why in mixed.items()]
    summary.notes += [
        f"{family}: an older version of it read {count} clips, which are not in the values over "
        "prompts; score them again: dfdbench eval"
        for family, count in outdated.items()
    ]
    summary.missing += _missing_prompts(store, suite)


def compare(store: Store, reference: Store, suite: Suite, families: Sequence[MetricFamily]) -> None:
    """Store the values over each prompt's clips anew, with those against another store's clips.

    reference: scored with the same suite, of one method, such as the teacher's run. Values pooled
    over prompts are left as they are.
    """
    left_out = set(_mixed_sizes(store, suite)) | set(_mixed_sizes(reference, suite))
    _aggregate_prompts(store, suite, families, None, left_out, reference)


class _Readings:
    """What a family stored of the clips of a suite, of the prompts that ask for it.

    Clips that only an older version of the family read are left out: its classes and units may be
    others. `outdated` is their number.
    """

    def __init__(self, store: Store, suite: Suite, family: MetricFamily) -> None:
        self.store, self.needs = store, family.needs
        metrics = family.at("video")
        self.arrays = [m.name for m in metrics if m.kind == "array"]
        versions = {m.name: m.version for m in metrics if m.kind != "array"}
        self.floats = list(versions)
        ever = store.values(suite.name, self.floats)[self.floats].notna().any(axis=1)
        table = store.values(suite.name, versions)
        asked = {p: asks(suite, p, family) for p in table["prompt_id"].unique()}
        table = table[table["prompt_id"].map(asked).astype(bool)]
        old = ever[table.index] & table[self.floats].isna().all(axis=1)
        self.table, self.outdated = table[~old], int(old.sum())

    def of(self, rows: pd.DataFrame) -> Iterator[Reading]:
        """One reading a row of `table`; arrays are read as they are asked for."""
        for row in rows.to_dict("records"):
            reading: dict[str, Any] = {name: row[name] for name in self.floats}
            condition = condition_of(self.needs, row["prompt"], row["image"], row["blocks"])
            for name in self.arrays:
                reading[name] = None
                if condition is not None:
                    reading[name] = self.store.array(row["sha256"], name, condition)
            yield reading


def _aggregate_prompts(
    store: Store,
    suite: Suite,
    families: Sequence[MetricFamily],
    reference: str | None,
    left_out: set[tuple[str, str]],
    elsewhere: Store | None = None,
) -> dict[str, int]:
    """Compute and store the values of level "prompt".

    left_out: (method, prompt id) without any. elsewhere: the reference's store if it is another.
    Returns the families of which some clips were read by an older version, with their number.
    """
    outdated: dict[str, int] = {}
    aggregates: dict[tuple[str, str], dict[str, GroupValue]] = {}
    versions: dict[str, int] = {}
    for family in families:
        against = reference is not None or elsewhere is not None
        if family.group is None and (family.versus is None or not against):
            continue
        versions |= {metric.name: metric.version for metric in family.at("prompt")}
        readings = _Readings(store, suite, family)
        if readings.outdated:
            outdated[family.name] = readings.outdated
        clips = dict(_by_prompt(readings.table))
        theirs, of_prompt = readings, {p: rows for (m, p), rows in clips.items() if m == reference}
        if elsewhere is not None:
            theirs = _Readings(elsewhere, suite, family)
            of_prompt = {p: rows for (_, p), rows in _by_prompt(theirs.table)}
        for (method, prompt_id), rows in clips.items():
            if (method, prompt_id) in left_out:
                continue
            values = aggregates.setdefault((method, prompt_id), {})
            if family.group:
                attributes = suite.prompt(prompt_id).attributes if suite.prompts else {}
                values.update(family.group(list(readings.of(rows)), attributes))
            if family.versus and prompt_id in of_prompt and method != reference:
                both = list(readings.of(rows)), list(theirs.of(of_prompt[prompt_id]))
                values.update(family.versus(*both))
    if versions:
        store.set_groups(suite.name, versions, aggregates)
    return outdated


def _by_prompt(samples: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """((method, prompt id), its rows) for every pair that has clips."""
    for (method, prompt_id), rows in samples.groupby(["method", "prompt_id"]):
        yield (str(method), str(prompt_id)), rows


def _mixed_sizes(store: Store, suite: Suite) -> dict[tuple[str, str], str]:
    """(method, prompt) whose clips differ in size -> the sizes and the remedy."""
    shapes = store.shapes()
    mixed = {}
    for key, rows in _by_prompt(store.samples(suite.name)):
        sizes = {shapes[h][:2] for h in rows["sha256"] if h in shapes}
        if len(sizes) > 1:
            named = ", ".join(f"{width}×{height}" for width, height in sorted(sizes))
            mixed[key] = f"its clips have {len(sizes)} sizes ({named}); give every seed one size"
    return mixed


def _aggregate_pooled(
    store: Store, suite: Suite, families: Sequence[MetricFamily], reference: str
) -> None:
    """Compute and store the values of level "pooled": every other method against `reference`.

    Over the prompts that both have; over all clips of both where they have none in common.
    """
    pooled: dict[str, dict[str, GroupValue]] = {}
    versions: dict[str, int] = {}
    for family in families:
        if family.pool is None:
            continue
        versions |= {metric.name: metric.version for metric in family.at("pooled")}
        readings = _Readings(store, suite, family)
        clips = {str(method): rows for method, rows in readings.table.groupby("method")}
        of_reference = clips.pop(reference, None)
        if of_reference is None:
            continue
        for method, rows in clips.items():
            own, real = _of_shared_prompts(rows, of_reference)
            values = family.pool(readings.of(own), readings.of(real))
            pooled.setdefault(method, {}).update(values)
    if versions:
        store.set_pooled(suite.name, reference, versions, pooled)


def _of_shared_prompts(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the prompts that both have, or all rows where there is none."""
    shared = set(a["prompt_id"]) & set(b["prompt_id"])
    if not shared:
        return a, b
    return a[a["prompt_id"].isin(shared)], b[b["prompt_id"].isin(shared)]


def _missing_prompts(store: Store, suite: Suite) -> list[str]:
    """A line for each method that has no clip of some of the suite's prompts."""
    lines = []
    for method, rows in store.samples(suite.name).groupby("method"):
        with_clips = set(rows["prompt_id"])
        without = [prompt.id for prompt in suite.prompts if prompt.id not in with_clips]
        if without:
            lines.append(
                f"method {method} has no clip of {len(without)} of "
                f"{len(suite.prompts)} prompts: {', '.join(without[:MOST_NAMED])}"
                + (f" and {len(without) - MOST_NAMED} more" if without[MOST_NAMED:] else "")
            )
    return lines
