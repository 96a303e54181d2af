"""The bridge to the official package vbench: which clips it is asked about, and where values go.

Used by `dfdbench eval --vbench-python PATH [--official DIM,...]`, after the metric families. Each
dimension is one run of the package (official.py) on the clips that lack its value. Its values are
stored as soon as it ends, so that a killed call redoes the dimension under way and no other.

What has been run with the package itself: temporal_flickering, and scene with random weights in the
stack that vbench pins (transformers 4.33.2, numpy 1.26, on a CPU). object_class, multiple_objects,
color and spatial_relationship need detectron2, which no package index has: for them only a stand-in
of the package was run, and the error without it.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dfdbench.evaluate.metrics import get_metric
from dfdbench.evaluate.metrics.vbench.bridge import BRIDGED, COUNTED, NATIVE, VERSION, official
from dfdbench.evaluate.schema import Key, Row, Shape, condition_of
from dfdbench.evaluate.store import Store
from dfdbench.evaluate.vbench.official import Entry, Failed, ask, check_python, find_files
from dfdbench.generate.suites.base import Suite
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.vbench_weights import vbench_digest
from dfdbench.utils.video import read_video

LOGS = "vbench-official"  # folder beside the store
BY_PROMPT = (
    *BRIDGED,
    "appearance_style",
    "human_action",
    "temporal_style",
    "overall_consistency",
)
"""Dimensions whose values depend on the prompt."""


class Clips(NamedTuple):
    """Clips with the same bytes and condition, which have one value. rows: their samples."""

    key: Key
    rows: list[Row]
    entry: Entry


class Bridge(NamedTuple):
    """An interpreter with the package, and what it is asked for.

    python: its path. dimensions: VBench's names, of which BRIDGED are stored under their own name
    and the rest as official_<dimension>. device: of the package's networks.
    """

    python: Path
    dimensions: tuple[str, ...]
    device: str = "cpu"

    def run(self, path: Path, suite: Suite) -> list[str]:
        """Compute what the clips of `suite` in the store lack; a line for each dimension skipped.

        Progress goes to stderr, what the package prints to vbench-official/ beside the store.
        """
        skipped = []
        with Store(path) as store:
            for dimension in self.dimensions:
                try:
                    self._score(store, suite, dimension)
                except UserError as error:
                    skipped.append(f"{official(dimension)}: {error}")
        return skipped

    def _score(self, store: Store, suite: Suite, dimension: str) -> None:
        files = find_files(dimension)
        metric = get_metric(official(dimension))
        weights = vbench_digest(*files.values()) if files else ""
        key = Key(
            "", metric.name, metric.version, weights, "all", f"official vbench {VERSION}",
            "official", self.device.split(":")[0],
        )  # fmt: skip
        frames_key = key._replace(metric=f"{metric.name}_frames")
        store.set_current([key, frames_key] if dimension in COUNTED else [key])
        clips = list(_lacking(store, suite, dimension, key))
        if not clips:
            return
        start, folder = time.monotonic(), store.path.parent.absolute()
        _say(f"{dimension}, {len(clips)} clips")
        asked = [(folder / rows[0].path, entry) for _, rows, entry in clips]
        log = folder / LOGS / f"{dimension}.log"
        values = ask(self.python, dimension, asked, files, self.device, log)
        shapes = store.shapes()
        for (own, rows, _), value in zip(clips, values, strict=True):
            shape = shapes.get(own.sha256) or _shape(folder / rows[0].path)
            scores = {own: value}
            if dimension in COUNTED:
                # The two consistencies compare each frame with the one before.
                frames = shape.frames - (dimension != "appearance_style")
                scores[own._replace(metric=frames_key.metric)] = float(frames)
            for row in rows:
                store.add_scores(row, scores, shape)
        _say(f"{dimension} done in {time.monotonic() - start:.0f} s")


def open_bridge(
    python: Path | None, wanted: str | None, suite: Suite, device: str
) -> Bridge | None:
    """The bridge that the options ask for; None without them.

    Args:
        python: --vbench-python.
        wanted: --official, names with commas between or "all".
        suite: whose prompts say which of BRIDGED are asked for.
        device: of the package's networks.

    Raises:
        UserError: an option that cannot be used, or nothing that the package could do.
    """
    names = [name.strip() for name in wanted.split(",")] if wanted else []
    if python is None:
        if names:
            raise UserError(f"--official {wanted} needs --vbench-python, the package's python")
        return None
    names = list(NATIVE) if names == ["all"] else names
    for name in names:
        if name not in NATIVE:
            raise unknown_name("--official dimension", name, (*NATIVE, "all"))
    entries = (suite.entries() or {}).values()
    asked = {name for entry in entries for name in entry["dimension"]}
    dimensions = (*(name for name in BRIDGED if name in asked), *dict.fromkeys(names))
    if not dimensions:
        raise UserError(
            f"--vbench-python: no prompt of suite {suite.name} asks for {', '.join(BRIDGED)}; "
            "choose --suite vbench, or dimensions with --official"
        )
    return Bridge(check_python(python), dimensions, device)


def _lacking(store: Store, suite: Suite, dimension: str, key: Key) -> Iterator[Clips]:
    """The clips that should have a value of the dimension and have none."""
    entries = suite.entries()
    if entries is None and dimension == "appearance_style":
        raise Failed("VBench names a prompt's style in its own list only; choose --suite vbench")
    needs = ("prompt",) if dimension in BY_PROMPT else ()
    found: dict[Key, Clips] = {}
    for sample in store.samples(suite.name).to_dict("records"):
        row = _row(sample)
        entry: Mapping[str, Any] = {"prompt_en": row.prompt or "", "dimension": [dimension]}
        if entries is not None:
            entry = entries.get(row.prompt_id, {"dimension": ()})
        condition = condition_of(needs, row.prompt, row.image)
        if condition is None or dimension not in entry["dimension"]:
            continue
        own = key._replace(sha256=row.sha256, condition=condition)
        found.setdefault(own, Clips(own, [], entry)).rows.append(row)
    for clips in found.values():
        if clips.key not in store.known(clips.key.sha256):
            yield clips


def _row(sample: Mapping[Any, Any]) -> Row:
    """A row of `Store.samples` as the store takes it."""
    row = Row(**{name: sample[name] for name in Row._fields})
    return row._replace(seed=int(row.seed) if isinstance(row.seed, int) else None)


def _shape(path: Path) -> Shape:
    """Size and length of a clip that no family of ours has decoded."""
    clip = read_video(path)
    frames, height, width = clip.frames.shape[:3]
    return Shape(width, height, frames, clip.fps)


def _say(text: str) -> None:
    print(f"official vbench: {text}", file=sys.stderr, flush=True)
