"""`dfdbench generate`: a suite's prompts × seeds become clips under RUN/videos/<suite>/.

Used by the commands generate, eval, study and check; scoring reads what it writes. arms.py says how
latents are made, sample_index.py how samples.jsonl is kept by one process or many.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from dfdbench.generate.arms import (
    ArmSampler,
    Item,
    clip_shape,
    real_sampler,
    student_sampler,
    teacher_sampler,
)
from dfdbench.generate.batches import batches, make_clips
from dfdbench.generate.blocks import blocks_column
from dfdbench.generate.real import opening, write_first_frame
from dfdbench.generate.sample_index import Row, SampleIndex
from dfdbench.generate.speed import Speed, speed_file
from dfdbench.generate.suites.base import TOY_FIRST_FRAME, Suite
from dfdbench.generate.suites.images import crop, nearest_ratio
from dfdbench.generate.suites.vbench import TOY
from dfdbench.models.defaults import Guidance
from dfdbench.models.family import ModelFamily
from dfdbench.models.registry import load_family
from dfdbench.models.sampling import is_tiled
from dfdbench.utils.device import choose_device, compute_dtype, describe
from dfdbench.utils.errors import UserError, unknown_name
from dfdbench.utils.files import sha256_file, write_json
from dfdbench.utils.names import check_name
from dfdbench.utils.progress import Bar
from dfdbench.utils.reading import validate
from dfdbench.utils.run import RUN_FILE, Run, weights_sha256
from dfdbench.utils.shards import WHOLE, Shard
from dfdbench.utils.video import write_video

UNTRAINED = ("teacher", "real")
"""Arms that need no training; `reference_run` makes their run folders."""
WRITERS = 4  # threads that encode clips while the next batch is sampled


MOST_SEEDS = 10_000  # of a prompt, in one call
Steps = Annotated[int, Field(ge=1, le=1000)]  # of the teacher's sampler


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Seeds of `1-8` or `1,2,5` or a mix, sorted, each once; whole numbers below 2^63.

    Raises:
        UserError: another text, no seed in it, or more than MOST_SEEDS.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:\s*-\s*(\d{1,19}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < 2**63:
            raise UserError(f"{option} {text[:80]}: write seeds like 1-8 or 1,2,5")
        ranges.append(range(first, last + 1))
    if sum(r.stop - r.start for r in ranges) > MOST_SEEDS:
        raise UserError(
            f"{option} {text[:80]}: more than {MOST_SEEDS} seeds; give them in several calls"
        )
    return sorted(set().union(*ranges))


def _items(
    suite: Suite, seeds: Sequence[int] | None, folder: Path, shape: tuple[int, int, int]
) -> list[Item]:
    """Every clip of the suite; a toy's first frames are written beside the clips."""
    _, height, width = shape
    items = []
    for prompt in suite.prompts:
        check_name(prompt.id, f"suite {suite.name}, prompt id")
        image = prompt.image
        if suite.images:
            image = crop(suite.images, prompt, nearest_ratio(width, height))
        if suite.conditions == TOY_FIRST_FRAME:
            image = folder / prompt.id / "first.png"
            write_first_frame(image, opening(prompt))
        for seed in seeds or suite.seeds_of(prompt):
            if suite.conditions == TOY:
                image = folder / prompt.id / f"{seed}.png"
                write_first_frame(image, opening(prompt, seed))
            items.append(Item(prompt, seed, image))
    return items


def model_of(run: Run) -> str:
    """The model that a run was made with, as load_family takes it."""
    model = run.info.get("model") or (run.info.get("recipe") or {}).get("model")
    if not isinstance(model, str):
        raise UserError(f"{run.path / RUN_FILE}: names no model; restore it from a copy")
    return model


def reference_run(
    arm: str,
    out: Path,
    model: str = "toy-t2v",
    cfg: float | None = None,
    steps: int | None = None,
    name: str | None = None,
) -> Run:
    """The run folder of an arm that was not trained: `teacher` or `real`; made when absent.

    cfg, steps: guidance and sampling steps of the teacher instead of the model's recommended ones.
    name: of the arm in tables, if not `arm` itself.

    Raises:
        UserError: another arm, guidance or steps for real clips, or `out` holds a run of something
            else.
    """
    if arm not in UNTRAINED:
        raise unknown_name("arm", arm, UNTRAINED)
    own = {"cfg": cfg, "steps": steps}
    for option, value in own.items():
        if value is not None and arm != "teacher":
            raise UserError(
                f"--{option} {value}: only --arm teacher is sampled by a network; leave it out"
            )
    if cfg is not None:
        validate(Guidance, cfg, "--cfg", "1 is no guidance")
    if steps is not None:
        validate(Steps, steps, "--steps", "give the number of sampling steps")
    own = {key: value for key, value in own.items() if value is not None}
    if (out / RUN_FILE).exists():
        run = Run.open(out)
        if method_of(run) != arm or run.arm != (name or arm) or model_of(run) != model:
            raise UserError(f"{out} holds arm {run.arm} of {model_of(run)}; choose another --out")
        for key, value in own.items():
            if run.info.get(key) != value:
                raise UserError(
                    f"{out} holds the teacher at {key} {run.info.get(key) or 'of its own'}, not at "
                    f"--{key} {value}; choose another --out"
                )
        return run
    about = {"arm": name or arm, "method": arm, "model": model, "status": "finished"}
    return Run.create(out, about | own)


def method_of(run: Run) -> str:
    """The method that made a run, or the arm of which it is one that was not trained."""
    return str(run.info.get("method") or run.arm)


def open_run(
    path: Path | None,
    arm: str | None,
    out: Path | None = None,
    model: str | None = None,
    cfg: float | None = None,
    steps: int | None = None,
) -> Run:
    """The run to generate for: an existing one, or that of an untrained arm.

    Raises:
        UserError: neither or both, or an option that only the other takes.
    """
    if (path is None) == (arm is None):
        raise UserError("name either a run folder or --arm teacher or --arm real")
    if path is not None:
        for option, value in (
            ("--model", model),
            ("--cfg", cfg),
            ("--steps", steps),
            ("--out", out),
        ):
            if value is not None:
                raise UserError(
                    f"{option} {value}: a run has its own; leave it out, or name an --arm instead "
                    f"of {path}"
                )
        return Run.open(path)
    assert arm is not None
    return reference_run(arm, out or Path("runs") / arm, model or "toy-t2v", cfg, steps)


def generate(
    run: Run,
    suite: Suite,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    family: ModelFamily | None = None,
    shard: Shard = WHOLE,
    compiled: bool = False,
) -> Path:
    """Make what is missing of the suite's clips of one run; returns the path of samples.jsonl.

    Args:
        run: a distilled run, or one of `reference_run` (arms teacher and real).
        seeds: generation seeds; the suite's own if None.
        batch_size: clips sampled at once; None: as many as fit, see batches.py.
        family: the run's model, to share a loaded one.
        shard: which part of the clips is this process's; others may make theirs at the same time.
        compiled: torch.compile the network's blocks.

    A clip that is there with the right hash and settings is never made again; one of an older
    student or autoencoder is. Each batch is noted when its files are whole, so a killed call loses
    two batches at most, and nothing is loaded where nothing is missing. Clips are encoded while
    the next batch is sampled; frames a second are left in speed.json beside them.

    Raises:
        UserError: a suite without prompts, or a run without a student.
    """
    if family is None:
        family = open_family(model_of(run), device)
    if compiled and method_of(run) == "real":
        raise UserError("--compile: real clips come from no network; leave it out")
    sampler = sampler_of(run, suite, family, compiled)
    asked = clips_of(run, suite, seeds, family, sampler.settings, shard)
    todo, folder, speed = asked.todo, asked.sample_index.folder, Speed()
    count, largest = len(asked.items), 0
    with (
        asked.sample_index.kept(asked.order, asked.columns),
        Bar(count, f"generating {run.arm}", done=count - len(todo), stage="generate") as bar,
        torch.no_grad(),
        _Writer(asked, run, family) as writer,
    ):
        sample = sampler.prepare(todo) if todo else None
        shape = family.latent_shape(*clip_shape(run, family))
        for batch in batches(todo, batch_size, shape, family.device):
            assert sample is not None
            writer.submit(batch, make_clips(sample, family, batch, speed))
            bar.step(len(batch))
            largest = max(largest, len(batch))
    if todo:
        about = {"batch": largest, "compile": compiled, **describe(family.device)}
        write_json(speed_file(folder, shard), speed.record() | about)
    return folder / "samples.jsonl"


class Clips(NamedTuple):
    """A suite's clips of a run: order of all paths, the items of a shard, those still to make.

    columns: of each item's path, the columns that say what it is made from.
    """

    order: list[str]
    items: list[Item]
    todo: list[Item]
    columns: dict[str, Row]
    sample_index: SampleIndex


def sampler_of(run: Run, suite: Suite, family: ModelFamily, compiled: bool = False) -> ArmSampler:
    """The way of the run's arm to clips of the suite; nothing is loaded yet."""
    if method_of(run) == "real":
        return real_sampler(family, suite)
    choose = teacher_sampler if method_of(run) == "teacher" else student_sampler
    return choose(run, family, compiled)


def clips_of(
    run: Run,
    suite: Suite,
    seeds: Sequence[int] | None,
    family: ModelFamily,
    settings: Mapping[str, Any],
    shard: Shard = WHOLE,
) -> Clips:
    """The clips of a suite, and which of them are still to make with these settings."""
    if not suite.prompts:
        raise UserError(f"suite {suite.name} brings no prompts; its videos come from a manifest")
    decoded = {"vae_sha256": weights_sha256(family.path / "vae")}  # it decodes every clip
    folder = run.path / "videos" / suite.name
    everything = _items(suite, seeds, folder, clip_shape(run, family))
    items = shard.of(everything)
    index = SampleIndex(folder, shard, {**settings, **decoded})
    hashes = {image: sha256_file(image) for image in {item.image for item in items} if image}
    columns = {item.path: _condition_columns(folder, item, hashes) for item in items}
    intact = index.intact(columns)
    todo = [item for item in items if item.path not in intact]
    return Clips([item.path for item in everything], items, todo, columns, index)


def _condition_columns(folder: Path, item: Item, hashes: Mapping[Path, str]) -> Row:
    """What a clip is made from: both texts where it has two, and its first frame."""
    columns = {"prompt": item.prompt.text}
    if item.text != item.prompt.text:
        columns["generated_from"] = item.text
    if item.image is not None:
        where = Path(os.path.relpath(item.image, folder)).as_posix()
        columns |= {"image": where, "image_sha256": hashes[item.image]}
    return columns


class _Writer:
    """Encodes the clips of one batch in threads while the next is made, then notes them."""

    def __init__(self, asked: Clips, run: Run, family: ModelFamily) -> None:
        self.asked, self.run, self.family = asked, run, family
        self.pool = ThreadPoolExecutor(min(WRITERS, os.cpu_count() or 1))
        self.pending: list[Future[Row]] = []

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self.pool.shutdown()

    def submit(self, items: Sequence[Item], clips: Sequence[np.ndarray]) -> None:
        """Begin with a batch when the one before it is finished."""
        self.flush()
        tiled = {"vae_tiled": True} if is_tiled(self.family) else {}
        for item, frames in zip(items, clips, strict=True):
            self.pending.append(self.pool.submit(self.write, item, frames, tiled))

    def flush(self) -> None:
        """Wait for the batch and note it."""
        rows, self.pending = [future.result() for future in self.pending], []
        if rows:
            self.asked.sample_index.append(rows)

    def write(self, item: Item, frames: np.ndarray, tiled: Row) -> Row:
        """One clip's file and its row of samples.jsonl."""
        path = self.asked.sample_index.folder / item.path
        write_video(path, frames, self.family.defaults.fps)
        return tiled | clip_row(self.asked, self.run, self.family, item, len(frames))


def clip_row(asked: Clips, run: Run, family: ModelFamily, item: Item, frames: int) -> Row:
    """The row of samples.jsonl of a clip whose file is whole."""
    settings = asked.sample_index.settings
    return (
        {
            "path": item.path,
            "prompt_id": item.prompt.id,
            "prompt": item.prompt.text,
            "seed": item.seed,
            "method": run.arm,
            "sha256": sha256_file(asked.sample_index.folder / item.path),
            "frames": frames,
            "fps": family.defaults.fps,
            "model": model_of(run),
            "student_sha256": settings.get("student_sha256"),
            "settings": settings,
        }
        | blocks_column(run, family, frames)
        | asked.columns[item.path]
    )


def open_family(model: str, device: str = "auto") -> ModelFamily:
    """The model on `device`; `auto` is CUDA with a bfloat16 teacher where there is a GPU."""
    where = choose_device(device)
    return load_family(model, compute_dtype(where), where)
