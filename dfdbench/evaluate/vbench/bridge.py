"""Values of the official package vbench: which clips should have them, and how they are stored.

Used by `dfdbench eval` after the metric families. They come from result files that were written
elsewhere (--official-results) or from running the package (--vbench-python, --official), a
dimension at a time on the clips that lack its value; a killed call redoes the one under way only.
With the package itself have been run: temporal_flickering, and scene with random weights. The
other four of BRIDGED need detectron2, which no index has; a stand-in of the package was run.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import get_metric
from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, COUNTED, NATIVE, VERSION, official
from dfdbench.evaluate.schema import Key, Row, Shape, condition_of
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.official import ask, check_python, find_files
from dfdbench.evaluate.vbench.results import Values, read_results, values_by_clip
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import sha256_cached
from dfdbench.utils.video import read_video

LOGS = "vbench-official"  # folder beside the store
BY_PROMPT = (*BRIDGED, "appearance_style", "human_action", "temporal_style", "overall_consistency")
"""Dimensions whose values depend on the prompt."""


class Asking(NamedTuple):
    """A clip that should have a value: its key, its sample, and VBench's entry of its prompt."""

    key: Key
    row: Row
    entry: Mapping[str, Any]


Scored = tuple[Asking, float | None]


class Bridge(NamedTuple):
    """Where the package's values come from.

    python: an interpreter that has it. dimensions: what it is asked for. device: of its networks.
    results: as of `read_results`, of files whose hash is `sha256`; the package is not asked for
    what they hold.
    """

    python: Path | None = None
    dimensions: tuple[str, ...] = ()
    device: str = "cpu"
    results: Mapping[str, Values] = {}
    sha256: str = ""

    def run(self, path: Path, suite: Suite) -> list[str]:
        """Store the values of the clips of `suite`; a line for each dimension that has none.

        What the package prints goes to vbench-official/ beside the store.
        """
        skipped = []
        with Store(path) as store:
            for dimension in dict.fromkeys((*self.results, *self.dimensions)):
                try:
                    key = self._key(dimension)
                    if asking := _asking(store, suite, dimension, key):
                        values_of = self._read if dimension in self.results else self._ask
                        _store(store, dimension, key, values_of(store, suite, dimension, asking))
                except UserError as error:
                    skipped.append(f"{official(dimension)}: {error}")
        return skipped

    def _key(self, dimension: str) -> Key:
        """The key of a dimension's values, without clip and condition."""
        metric = get_metric(official(dimension))
        if dimension in self.results:  # the files' hash stands for weights and device
            source = self.sha256, "all", "official vbench, result file", "official", "unknown"
        else:
            files = list(find_files(dimension).values())
            weights, device = sha256_cached(files) if files else "", self.device.split(":")[0]
            source = weights, "all", f"official vbench {VERSION}", "official", device
        return Key("", metric.name, metric.version, *source)

    def _read(
        self, store: Store, suite: Suite, dimension: str, asking: Sequence[Asking]
    ) -> list[Scored]:
        """The values in the result files."""
        values = values_by_clip(self.results[dimension], store.samples(suite.name)["path"])
        scored = [(clip, values[clip.row.path]) for clip in asking if clip.row.path in values]
        if not scored:
            raise UserError(f"the result files name none of the {len(asking)} clips that ask")
        return scored

    def _ask(
        self, store: Store, suite: Suite, dimension: str, asking: Sequence[Asking]
    ) -> list[Scored]:
        """The package's values of the clips that have none."""
        if dimension == "appearance_style" and suite.entries() is None:
            raise UserError("VBench names styles in its own list only; choose --suite vbench")
        lacking = [clip for clip in asking if clip.key not in store.known(clip.row.sha256)]
        if not lacking or self.python is None:
            return []
        print(f"official vbench: {dimension}, {len(lacking)} clips", file=sys.stderr, flush=True)
        folder = store.path.parent.absolute()
        clips = [(folder / clip.row.path, clip.entry) for clip in lacking]
        log = folder / LOGS / f"{dimension}.log"
        values = ask(self.python, dimension, clips, self.device, log)
        return list(zip(lacking, values, strict=True))


def open_bridge(
    python: Path | None, wanted: Sequence[str], results: Sequence[Path], suite: Suite, device: str
) -> Bridge | None:
    """The bridge that --vbench-python, --official and --official-results ask for; None without.

    wanted: VBench's names, or "all". suite: whose prompts say which of BRIDGED are asked for.

    Raises:
        UserError: an option that cannot be used, or nothing that the package could do.
    """
    if python is None and wanted:
        raise UserError(f"--official {','.join(wanted)} needs --vbench-python, its python")
    for name in wanted:
        if name not in (*NATIVE, "all"):
            raise unknown_name("--official dimension", name, (*NATIVE, "all"))
    dimensions: tuple[str, ...] = ()
    if python:
        entries = (suite.entries() or {}).values()
        asked = {name for entry in entries for name in entry["dimension"]}
        native = NATIVE if "all" in wanted else dict.fromkeys(wanted)
        dimensions = (*(name for name in BRIDGED if name in asked), *native)
        if not dimensions:
            raise UserError(
                f"--vbench-python: no prompt of suite {suite.name} asks for {', '.join(BRIDGED)}; "
                "choose --suite vbench, or dimensions with --official"
            )
        python = check_python(python)
    elif not results:
        return None
    sha256 = sha256_cached(results) if results else ""
    return Bridge(python, dimensions, device, read_results(results), sha256)


def _asking(store: Store, suite: Suite, dimension: str, key: Key) -> list[Asking]:
    """The clips that should have a value of the dimension; key: without clip and condition."""
    entries = suite.entries()
    asking = []
    for sample in store.samples(suite.name).to_dict("records"):
        row = Row(**{name: sample[name] for name in Row._fields})
        row = row._replace(seed=int(row.seed) if isinstance(row.seed, int) else None)
        entry: Mapping[str, Any] = {"prompt_en": row.prompt or "", "dimension": [dimension]}
        if entries is not None:
            entry = entries.get(row.prompt_id, {"dimension": ()})
        needs = ("prompt",) if dimension in BY_PROMPT else ()
        condition = condition_of(needs, row.prompt, row.image)
        if condition is not None and dimension in entry["dimension"]:
            own = key._replace(sha256=row.sha256, condition=condition)
            asking.append(Asking(own, row, entry))
    return asking


def _store(store: Store, dimension: str, key: Key, scored: Sequence[Scored]) -> None:
    """Store the values, and that those of `key`'s weights and settings count from now on."""
    frames = f"{key.metric}_frames"
    store.set_current([key, key._replace(metric=frames)] if dimension in COUNTED else [key])
    shapes = store.shapes()
    for (own, row, _), value in scored:
        shape = shapes.get(own.sha256) or Shape.of(
            read_video(store.path.parent / row.path, allow_damaged=True)
        )
        scores = {own: value}
        if dimension in COUNTED:
            # The two consistencies compare each frame with the one before.
            compared = shape.frames - (dimension != "appearance_style")
            scores[own._replace(metric=frames)] = float(compared)
        store.add_scores(row, scores, shape)
