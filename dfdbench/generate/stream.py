"""Clips of any length of a causal student: sampled, decoded and written block after block.

Used by generation.py where a length, a window or a schedule of prompts is asked for; clips.py makes
the clips as they were trained. Noise, prompt and decoding are those of clips.py, so a clip of the
trained length is the same one. Nothing held grows with length under a window.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfdbench.distill.stages import grid, recipe_of
from dfdbench.generate.arms import Conditions, Item, clip_shape, load_student, student_settings
from dfdbench.generate.batches import USELESS, finite_frames
from dfdbench.generate.clips import UNTRAINED, clip_row, clips_of, model_of, open_family
from dfdbench.generate.schedule import Schedule
from dfdbench.generate.speed import StreamSpeed, speed_file
from dfdbench.generate.suites.base import Suite
from dfdbench.models.causal import Layout
from dfdbench.models.family import ModelFamily
from dfdbench.models.sampling import LongNoise, compute_precision, stream_blocks
from dfdbench.utils.device import describe, now, peak_memory, reset_peak
from dfdbench.utils.errors import UserError
from dfdbench.utils.files import write_json
from dfdbench.utils.progress import Bar
from dfdbench.utils.run import Run
from dfdbench.utils.shards import WHOLE, Shard
from dfdbench.utils.video import video_writer


@dataclass(frozen=True)
class Rollout:
    """How a causal student is rolled out, where it is not as trained.

    Attributes:
        frames: of the clip, counted in pixels' frames. window, sinks: latent frames, as of a
            `Layout`, in place of the student's own. schedule: prompts in place of a suite's.
    """

    frames: int | None = None
    window: int | None = None
    sinks: int | None = None
    schedule: Schedule | None = None

    @property
    def options(self) -> str:
        """What was asked for, as it is written on the command line; "" for nothing."""
        given = {"--frames": self.frames, "--window": self.window, "--sinks": self.sinks}
        named = [f"{option} {value}" for option, value in given.items() if value is not None]
        return " ".join([*named, *(["--prompt-schedule"] if self.schedule else [])])


class Course(NamedTuple):
    """What a rollout comes to for one run.

    frames: of the clip. shape: (C, T, H, W) of the latents of a clip as trained. latents: latent
    frames of the rollout. layout: its blocks and window. prompts: one a block of a schedule.
    """

    frames: int
    shape: tuple[int, int, int, int]
    latents: int
    layout: Layout
    prompts: list[str] | None

    def suite(self, suite: Suite) -> Suite:
        """A suite for these clips alone: others of the run keep their folder."""
        window = self.layout.window_frames
        return replace(
            suite, name=f"{suite.name}-{self.frames}f" + (f"-w{window}" if window else "")
        )


def course_of(run: Run, family: ModelFamily, rollout: Rollout) -> Course:
    """Check what is asked before anything is loaded.

    Raises:
        UserError: the student is bidirectional; the clip does not fill a block, or is longer than
            trained without a window; the window does not hold a block; a prompt gets no block.
    """
    own = None if run.arm in UNTRAINED else recipe_of(run).student.layout
    if own is None:
        raise UserError(
            f"{rollout.options}: {run.path} has no causal student, which goes on block after "
            "block; leave the option out, or give a run that was trained with student.block_frames"
        )
    trained, height, width = clip_shape(run, family)
    frames = trained if rollout.frames is None else rollout.frames
    shape = family.latent_shape(trained, height, width)
    latents = family.latent_shape(frames, height, width)[1]
    window = own.window_frames if rollout.window is None else rollout.window
    sinks = own.sink_frames if rollout.sinks is None else rollout.sinks
    try:
        layout = Layout(own.block_frames, window, sinks)
        blocks = layout.blocks(latents)
    except UserError as error:
        raise UserError(f"{rollout.options}: {error}") from None
    if latents > shape[1] and not window:
        raise UserError(
            f"--frames {frames}: the student of {run.path} was trained on {trained} frames and "
            "has no window, so its memory grows without end; give --window, "
            f"{max(shape[1], len(blocks[0]) + sinks)} latent frames for example"
        )
    prompts = None
    if rollout.schedule:
        per_latent = (frames - 1) / max(1, latents - 1)
        # The first latent frame is one frame, each later one as many as the autoencoder packs.
        first = (1 + (b.start - 1) * per_latent if b.start else 0 for b in blocks)
        prompts = rollout.schedule.prompts([frame / family.defaults.fps for frame in first])
    return Course(frames, shape, latents, layout, prompts)


def generate_stream(
    run: Run,
    suite: Suite,
    rollout: Rollout,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    family: ModelFamily | None = None,
    shard: Shard = WHOLE,
    compiled: bool = False,
) -> Path:
    """Make what is missing of a suite's clips, one after the other, each as a stream of frames.

    They lie beside the clips as trained, in a folder that is called after suite, frames and
    window. A clip that is there is not made again. Latency, frames a second and the highest use of
    memory are left in speed.json. Other arguments as of `clips.generate`; returns the path of
    samples.jsonl.

    Raises:
        UserError: as `course_of`, or the clip is longer than the network's positions reach.
    """
    if family is None:
        family = open_family(model_of(run), device)
    course = course_of(run, family, rollout)
    settings = student_settings(run, family) | {
        "frames": course.frames,
        "window_frames": course.layout.window_frames,
        "sink_frames": course.layout.sink_frames,
    }
    if rollout.schedule:
        settings["schedule"] = [list(switch) for switch in rollout.schedule.switches]
    suite = course.suite(suite)
    asked = clips_of(run, suite, seeds, family, settings, shard)
    folder, count = asked.sample_index.folder, len(asked.items)
    speed = StreamSpeed()
    reset_peak(family.device)
    with (
        asked.sample_index.kept(asked.order, asked.first_frames),
        Bar(count, f"generating {run.arm}", done=count - len(asked.todo)) as bar,
        torch.no_grad(),
    ):
        sample = _sampler(run, family, course, asked.todo, compiled) if asked.todo else None
        for item in asked.todo:
            assert sample is not None
            with video_writer(folder / item.path, family.defaults.fps) as write:
                written = 0
                for frames in _pixels(family, sample(item), item, speed):
                    write(frames)
                    written += len(frames)
            row = clip_row(asked, run, family, item, written)
            asked.sample_index.append([row])
            bar.step(1)
    if asked.todo:
        about = {"peak": peak_memory(family.device), "compile": compiled}
        about |= describe(family.device)
        write_json(speed_file(folder, shard), speed.record() | settings | about)
    return folder / "samples.jsonl"


def _sampler(
    run: Run, family: ModelFamily, course: Course, wanted: Sequence[Item], compiled: bool
) -> Callable[[Item], Iterator[Tensor]]:
    """The way from an item to the latents (1 C T' H W) of its blocks, which come one by one."""
    texts = course.prompts or [item.prompt.text for item in wanted]
    encode = Conditions(family, clip_shape(run, family), texts)
    encode.fill(course.prompts or texts[:1])  # before the network is there
    module = load_student(run, family, compiled)
    assert family.causal is not None
    family.causal.give_window(module, course.layout.window_frames, course.layout.sink_frames)
    reach = family.causal.reach(module)
    if course.latents > reach:
        raise UserError(
            f"--frames {course.frames}: {course.latents} latent frames, and the positions of the "
            f"student of {run.path} reach {reach}; lower --frames, or raise rope_max_seq_len in "
            "student/transformer/config.json"
        )
    recipe = recipe_of(run)
    numbers = {b.start: i for i, b in enumerate(course.layout.blocks(course.latents))}

    def sample(item: Item) -> Iterator[Tensor]:
        own = course.prompts or [item.prompt.text]
        given = {
            text: encode([replace(item, prompt=replace(item.prompt, text=text))])
            for text in dict.fromkeys(own)
        }
        noise = LongNoise(item.prompt.id, item.seed, course.shape)
        return _precise(
            family,
            stream_blocks(
                family,
                module,
                lambda block: given[own[numbers[block.start] if course.prompts else 0]],
                lambda step, block: noise(step, block).to(family.device),
                course.latents,
                grid(recipe),
                recipe.student.sampler,
            ),
        )

    return sample


def _precise(family: ModelFamily, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The blocks, each sampled in the network's precision; what the caller does keeps its own."""
    while True:
        with compute_precision(family.device):
            latents = next(blocks, None)
        if latents is None:
            return
        yield latents


def _pixels(
    family: ModelFamily, blocks: Iterator[Tensor], item: Item, speed: StreamSpeed
) -> Iterator[np.ndarray]:
    """Frames, uint8 (T H W 3), of one latent frame after the other."""
    decode, latency = family.stream_decoder(), 0.0
    times: list[tuple[int, float, float]] = []
    start = before = now(family.device)
    for latents in blocks:
        sampled, count, decoding = now(family.device), 0, 0.0
        for latent in latents.split(1, 2):
            begun = now(family.device)
            frames = finite_frames(decode(latent)[0])
            ended = now(family.device)
            if frames is None:
                raise UserError(f"{item.path} holds NaN: {USELESS}")
            latency = latency or ended - start
            count, decoding = count + len(frames), decoding + ended - begun
            yield frames
        times.append((count, sampled - before, decoding))
        before = now(family.device)
    speed.add(latency, times)
