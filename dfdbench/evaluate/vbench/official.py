"""Values of the official package vbench, from its result files (`eval --official-results`).

Stored after the metric families have run, under the clips whose prompts ask for them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import get_metric
from dfdbench.evaluate.metrics.vbench.official import BRIDGED, COUNTED, official
from dfdbench.evaluate.schema import Key, Row, Shape, condition_of
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.results import read_results, values_by_clip
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.files import sha256_cached
from dfdbench.utils.video import read_video

BY_PROMPT = (*BRIDGED, "appearance_style", "human_action", "temporal_style", "overall_consistency")
"""Dimensions whose values depend on the prompt."""


class Asking(NamedTuple):
    """A clip that should have a value, and the key of that value."""

    key: Key
    row: Row


def keep_official_results(files: Sequence[Path]) -> Callable[[Path, Suite], list[str]]:
    """What stores the values in `files`, once the clips are in a store.

    It takes the store's path and the suite, and returns a line for each dimension without a clip.

    Raises:
        UserError: a file that is none of the package's, or two that contradict each other.
    """
    results, sha256 = read_results(files), sha256_cached(files)

    def keep(path: Path, suite: Suite) -> list[str]:
        skipped = []
        with Store(path) as store:
            clips = store.samples(suite.name)["path"]
            for dimension, values in results.items():
                metric = get_metric(official(dimension))
                # the files' hash stands for the weights, which nobody knows
                source = sha256, "all", "official vbench, result file", "official", "unknown"
                key = Key("", metric.name, metric.version, *source)
                if not (asking := _asking(store, suite, dimension, key)):
                    continue
                by_clip = values_by_clip(values, clips)
                scored = [(a, by_clip[a.row.path]) for a in asking if a.row.path in by_clip]
                if scored:
                    _store(store, dimension, key, scored)
                else:
                    skipped.append(
                        f"{metric.name}: the result files name none of the {len(asking)} clips "
                        "that ask"
                    )
        return skipped

    return keep


def _asking(store: Store, suite: Suite, dimension: str, key: Key) -> list[Asking]:
    """The clips that should have a value of the dimension; key: without clip and condition."""
    entries = suite.entries()
    asking = []
    for sample in store.samples(suite.name).to_dict("records"):
        row = Row(**{name: sample[name] for name in Row._fields})
        row = row._replace(seed=int(row.seed) if isinstance(row.seed, int) else None)
        entry: Mapping[str, Any] = {"dimension": [dimension]}
        if entries is not None:
            entry = entries.get(row.prompt_id, {"dimension": ()})
        needs = ("prompt",) if dimension in BY_PROMPT else ()
        condition = condition_of(needs, row.prompt, row.image)
        if condition is not None and dimension in entry["dimension"]:
            asking.append(Asking(key._replace(sha256=row.sha256, condition=condition), row))
    return asking


def _store(
    store: Store, dimension: str, key: Key, scored: Sequence[tuple[Asking, float | None]]
) -> None:
    """Store the values, and that those of `key`'s files count from now on."""
    frames = f"{key.metric}_frames"
    store.set_current([key, key._replace(metric=frames)] if dimension in COUNTED else [key])
    shapes = store.shapes()
    for (own, row), value in scored:
        shape = shapes.get(own.sha256) or Shape.of(
            read_video(store.path.parent / row.path, allow_damaged=True)
        )
        scores = {own: value}
        if dimension in COUNTED:
            # The two consistencies compare each frame with the one before.
            compared = shape.frames - (dimension != "appearance_style")
            scores[own._replace(metric=frames)] = float(compared)
        store.add_scores(row, scores, shape)
