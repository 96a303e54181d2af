"""The clips of a page: which are shown, where they lie, and a sheet of stills for each prompt.

Used by render.py. One prompt's clips go into the page itself; the others lie in a folder beside it
under the hash of their bytes and are loaded when a reader chooses their prompt. Sheets stand in for
clips that are not there, as when somebody has the page alone.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from dfdbench.report.arms import ordered
from dfdbench.report.collect import Collected
from dfdbench.report.statistics import NO_TRAINING_SEED
from dfdbench.report.web.previews import (
    SMALL_SIDE,
    UNREADABLE,
    Facts,
    facts_of,
    middle_frame,
    preview,
)
from dfdbench.utils.files import atomic_path, sha256_file
from dfdbench.utils.progress import track

FOLDER = "clips"
SEEDS = 8
"""Clips of a prompt, arm and training seed that a page shows."""
MOST_CLIPS, MOST_PREVIEWS = 2000, 400
STILL_WIDTH, SHEET_WIDTH = 96, 320
SHEETS_INSIDE = 1_500_000
"""Bytes of sheets within the page; those of further prompts lie in the folder."""
OWN_NAME = re.compile(r"[0-9a-f]{20}\.(mp4|jpg)")


class Shown(NamedTuple):
    """A clip of the page. seed: None where its manifest names none. file: its name in FOLDER."""

    arm: str
    training_seed: int
    prompt: str
    seed: int | None
    file: str
    source: Path
    facts: Facts


class Sheet(NamedTuple):
    """Stills of a prompt's clips in one picture, `columns` a row, as `clips` lists them.

    source: a data address, or the address of a file beside the page. width, height: of one still.
    """

    source: str
    columns: int
    width: int
    height: int
    clips: Sequence[int]
    rows: Sequence[str]


class Clips(NamedTuple):
    """clips: those that the page shows. inside: file → data address of those within it, which are
    the clips of the prompt `first` at the training seeds `lowest`.

    sheets: prompt → its sheet. total, prompts: all clips that were scored and are there, and their
    prompts. faults: a line for each that cannot be read.
    """

    clips: Sequence[Shown]
    inside: Mapping[str, str]
    sheets: Mapping[str, Sheet]
    first: str | None
    lowest: Set[int]
    total: int
    prompts: int
    faults: Sequence[str] = ()


def chosen_rows(clips: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most SEEDS clips of a prompt, arm and training seed, those that most arms have, in order.

    Above `most` clips in all, training seeds go, the highest first, then prompts, the last first.

    clips: columns of collect.CLIP_COLUMNS.
    """
    rows = clips.sort_values(["prompt_id", "training_seed", "seed", "path"])
    key = ["prompt_id", "training_seed", "seed"]
    of_arms = rows.groupby(key, dropna=False)["arm"].transform("nunique")
    rows = rows.assign(alone=-of_arms).sort_values(["alone", "seed", "path"], kind="stable")
    rows = rows.groupby(["prompt_id", "training_seed", "arm"], sort=False).head(SEEDS)
    trained = sorted(set(rows["training_seed"]) - {NO_TRAINING_SEED})
    while len(rows) > most and len(trained) > 1:
        rows = rows[rows["training_seed"] != trained.pop()]
    prompts = rows.groupby("prompt_id").size().cumsum()
    kept = {*prompts.index[prompts <= most], *prompts.index[:1]}
    rows = rows[rows["prompt_id"].isin(kept)]
    return rows.sort_values(["prompt_id", "arm", "training_seed", "seed", "path"])


def clips_of(collected: Collected, out: Path, prompt: str | None, first: str | None) -> Clips:
    """Choose the clips, write those of FOLDER, and make the sheets.

    Args:
        out: the page's folder.
        prompt: the prompt that a caller asked for; else `first`, where it has clips, else the
            prompt with the most of them.
    """
    there = collected.clips
    there = there[[Path(path).is_file() for path in there["path"]]]
    if there.empty:
        _sweep(out / FOLDER, set())
        return Clips([], {}, {}, None, set(), 0, 0)
    rows = chosen_rows(there, MOST_PREVIEWS if _are_large(there["path"]) else MOST_CLIPS)
    shown, faults = _prepared(rows)
    every = len(there), there["prompt_id"].nunique()
    if not shown:
        return Clips([], {}, {}, None, set(), *every, faults)
    counts = pd.Series([clip.prompt for clip in shown]).value_counts()
    inside = next((p for p in (prompt, first) if p and p in counts.index), str(counts.idxmax()))
    seeds = [c.training_seed for c in shown if c.training_seed != NO_TRAINING_SEED]
    lowest = {NO_TRAINING_SEED, *([min(seeds)] if seeds else [])}
    data, kept = dict[str, str](), set[str]()
    for clip in shown:
        if clip.prompt == inside and clip.training_seed in lowest:
            data.setdefault(clip.file, data_address(clip.source.read_bytes(), "video/mp4"))
        else:
            _place(clip.source.read_bytes(), out / FOLDER / clip.file)
            kept.add(clip.file)
    sheets = _sheets(shown, lowest, inside, out / FOLDER, kept)
    _sweep(out / FOLDER, kept)
    return Clips(shown, data, sheets, inside, lowest, *every, faults)


def data_address(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _are_large(paths: Iterable[str]) -> bool:
    """Whether previews are needed, by the first clip that can be read."""
    for path in paths:
        try:
            return preview_needed(Path(path))
        except UNREADABLE:
            continue
    return False


def preview_needed(path: Path) -> bool:
    """Whether a page plays a smaller copy of this clip."""
    return max(facts_of(path)[:2]) > SMALL_SIDE


def _prepared(rows: pd.DataFrame) -> tuple[list[Shown], list[str]]:
    """The clips with what is played of them, in the order of `rows`; a line for each without."""

    def work(row: tuple[str, int, str, float | None, str]) -> Shown | str:
        arm, training_seed, prompt, seed, path = row
        try:
            source = preview(Path(path))
            file = f"{sha256_file(source)[:20]}.mp4"
            number = None if pd.isna(seed) else int(seed)  # type: ignore[arg-type]
            facts = facts_of(source)
        except UNREADABLE as error:
            return f"{Path(path).name}: {' '.join(str(error).split())[:120]}"
        return Shown(arm, int(training_seed), prompt, number, file, source, facts)

    columns = ["arm", "training_seed", "prompt_id", "seed", "path"]
    every = list(rows[columns].astype({"seed": object}).itertuples(index=False, name=None))
    with ThreadPoolExecutor(2) as pool:
        made = list(track(pool.map(work, every), "clips of the page", total=len(every)))
    return [m for m in made if isinstance(m, Shown)], [m for m in made if isinstance(m, str)]


def _place(data: bytes, target: Path) -> None:
    if not target.is_file():
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)


def _sweep(folder: Path, kept: set[str]) -> None:
    """Delete the clips of an earlier page in the same folder; nothing that has another name."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if OWN_NAME.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _sheets(
    shown: Sequence[Shown], lowest: set[int], inside: str, folder: Path, kept: set[str]
) -> dict[str, Sheet]:
    """A sheet a prompt, of the lowest training seed; the prompt that is inside comes first."""
    by_prompt: dict[str, list[int]] = {inside: []}
    for index, clip in enumerate(shown):
        if clip.training_seed in lowest:
            by_prompt.setdefault(clip.prompt, []).append(index)
    sheets, used = dict[str, Sheet](), 0
    for prompt, indices in by_prompt.items():
        made = _sheet([shown[i] for i in indices])
        if made is None:
            continue
        data, columns, width, height, order = made
        used += len(data) * 4 // 3
        if used <= SHEETS_INSIDE or prompt == inside:
            source = data_address(data, "image/jpeg")
        else:
            name = f"{hashlib.sha256(data).hexdigest()[:20]}.jpg"
            _place(data, folder / name)
            kept.add(name)
            source = f"{FOLDER}/{name}"
        places = [-1 if k is None else indices[k] for k in order]
        rows = ordered(shown[i].arm for i in indices)
        sheets[prompt] = Sheet(source, columns, width, height, places, rows)
    return sheets


def _sheet(
    clips: Sequence[Shown],
) -> tuple[bytes, int, int, int, list[int | None]] | None:
    """JPEG of the middle frames, an arm a row; columns, size of a still, and which clip is where.

    None where no clip can be read.
    """
    arms = ordered(clip.arm for clip in clips)
    rows = [[k for k, clip in enumerate(clips) if clip.arm == arm] for arm in arms]
    columns = max(map(len, rows))
    facts = clips[0].facts
    width = min(facts.width, max(STILL_WIDTH, SHEET_WIDTH // columns))
    height = max(1, round(width * facts.height / facts.width))
    sheet = Image.new("RGB", (columns * width, len(arms) * height), (128, 128, 128))
    order = list[int | None]()
    for y, row in enumerate(rows):
        for x in range(columns):
            k = row[x] if x < len(row) else None
            try:
                picture = None if k is None else _still(clips[k], width, height)
            except UNREADABLE:
                picture = None
            if picture is not None:
                sheet.paste(picture, (x * width, y * height))
            order.append(k if picture is not None else None)
    if not any(k is not None for k in order):
        return None
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=78)
    return out.getvalue(), columns, width, height, order


def _still(clip: Shown, width: int, height: int) -> Image.Image:
    frame: np.ndarray = middle_frame(clip.source, clip.facts.frames)
    return Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)
