"""Clips of any length of a causal student: sampled, decoded and written block after block.

Used by missing.py where a length, a window or a schedule of prompts is asked for, or the suite is
one of streams; clips.py makes the clips as they were trained. Noise, prompt and decoding are those
of clips.py, so a clip of the trained length is the same one. Nothing held grows with length under a
window.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfdbench.distill.stages import grid, recipe_of
from dfdbench.generate.arms import Conditions, Item, clip_shape, load_student, student_settings
from dfdbench.generate.batches import USELESS, batches, finite_frames
from dfdbench.generate.clips import (
    UNTRAINED,
    Clips,
    clip_row,
    clips_of,
    method_of,
    model_of,
    open_family,
)
from dfdbench.generate.schedule import Schedule
from dfdbench.generate.speed import StreamSpeed, speed_file
from dfdbench.generate.suites.base import Prompt, Suite
from dfdbench.generate.suites.streams import streamed
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


AS_ASKED = Rollout()
"""As the suite and the student have it."""


class Course(NamedTuple):
    """What a rollout comes to for one run.

    suite: what is made, under the name of its folder. frames: of the clips of each prompt, by its
    id. shape: (C, T, H, W) of the latents of a clip as trained. latents: latent frames by frames.
    layout: of the rollout. prompts: one a block of a schedule.
    """

    suite: Suite
    frames: dict[str, int]
    shape: tuple[int, int, int, int]
    latents: dict[int, int]
    layout: Layout
    prompts: list[str] | None

    @property
    def longest(self) -> int:
        """Frames of the longest clip."""
        return max(self.latents)

    @property
    def settings(self) -> dict[str, Any]:
        """What the clips depend on beside the student."""
        frames = sorted(self.latents)
        return {
            "frames": frames if frames[1:] else frames[0],
            "window_frames": self.layout.window_frames,
            "sink_frames": self.layout.sink_frames,
        }


def course_of(run: Run, family: ModelFamily, suite: Suite, rollout: Rollout = AS_ASKED) -> Course:
    """Check what is asked before anything is loaded.

    Raises:
        UserError: the student is bidirectional; a clip does not fill a block, or is longer than
            trained without a window; the window does not hold a block; a prompt gets no block.
    """
    asked = rollout.options or f"suite {suite.name}"
    own = None if method_of(run) in UNTRAINED else recipe_of(run).student.layout
    if own is None:
        raise UserError(
            f"{asked}: {run.path} has no causal student, which goes on block after block; "
            f"{'leave the option out' if rollout.options else 'take another suite'}, or give a run "
            "that was trained with student.block_frames"
        )
    if rollout.frames is not None and suite.is_streamed:
        raise UserError(
            f"--frames {rollout.frames}: suite {suite.name} says how long its clips are; leave it "
            "out, or take another suite"
        )
    trained, height, width = clip_shape(run, family)
    shape = family.latent_shape(trained, height, width)
    frames = {
        prompt.id: rollout.frames or clip_frames(prompt, trained, family, own.block_frames)
        for prompt in suite.prompts
    }
    try:
        latents = {n: family.latent_shape(n, height, width)[1] for n in {*frames.values()}}
    except UserError as error:
        raise UserError(f"{asked}: {error}") from None
    layout = _layout(run, suite, rollout, own, latents, shape[1], asked)
    prompts = None
    if rollout.schedule:
        each = family.frames_per_latent
        # The first latent frame is one frame, each later one as many as the autoencoder packs.
        blocks = layout.blocks(max(latents.values()))
        first = (1 + (b.start - 1) * each if b.start else 0 for b in blocks)
        prompts = rollout.schedule.prompts([frame / family.defaults.fps for frame in first])
    if rollout.options:
        length = None if suite.is_streamed else max(frames.values())
        window = layout.window_frames or rollout.window
        suite = streamed(suite, length, window, rollout.sinks)
    return Course(suite, frames, shape, latents, layout, prompts)


def clip_frames(prompt: Prompt, trained: int, family: ModelFamily, block_frames: int) -> int:
    """Frames of a prompt's clips; `trained` where it says nothing of their length."""
    if prompt.length is None:
        return trained
    fps, each = family.defaults.fps, family.frames_per_latent
    return prompt.length.frames_for(trained, each, fps, block_frames)


def _layout(
    run: Run,
    suite: Suite,
    rollout: Rollout,
    own: Layout,
    latents: Mapping[int, int],
    trained: int,
    asked: str,
) -> Layout:
    """The blocks and the window that is asked for, else the student's own.

    A suite whose clips are longer than trained gives a student without a window one of the trained
    length, which changes nothing of a clip as trained.

    Args:
        latents: latent frames by frames of the clips. trained: latent frames of a clip as trained.
    """
    sinks = next(n for n in (rollout.sinks, suite.sinks, own.sink_frames) if n is not None)
    window = next((n for n in (rollout.window, suite.window) if n is not None), None)
    longest = max(latents.values())
    try:
        first = max(len(Layout(own.block_frames).blocks(n)[0]) for n in latents.values())
        enough = max(trained, first + sinks)
        if window is None:
            needed = suite.is_streamed and longest > trained and not own.window_frames
            window = enough if needed else own.window_frames
        layout = Layout(own.block_frames, window, sinks)
        for count in latents.values():
            layout.blocks(count)
    except UserError as error:
        raise UserError(f"{asked}: {error}") from None
    if longest > trained and not window:
        raise UserError(
            f"{asked}: the student of {run.path} was trained on {trained} latent frames, a clip "
            f"has {longest} and without a window its memory grows without end; give --window, "
            f"{enough} latent frames for example"
        )
    return layout


def generate_stream(
    run: Run,
    suite: Suite,
    rollout: Rollout = AS_ASKED,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    family: ModelFamily | None = None,
    shard: Shard = WHOLE,
    compiled: bool = False,
) -> Path:
    """Make what is missing of a suite's clips, each as a stream of frames.

    Those of a rollout that is not the suite's own lie in a folder called after suite, frames and
    window, beside the clips as trained. A clip that is there is not made again. Latency, frames a
    second and the highest use of memory are left in speed.json. Returns the path of samples.jsonl.

    Args:
        batch_size: streams at once, of one length; None: one where the rollout is asked for, so
            that latency is that of a single stream, and of a suite as many as fit (batches.py).
            Other arguments as of `clips.generate`.

    Raises:
        UserError: as `course_of`, or the clip is longer than the network's positions reach.
    """
    if family is None:
        family = open_family(model_of(run), device)
    course, asked = stream_clips(run, suite, rollout, seeds, family, shard)
    settings = asked.sample_index.settings
    folder, count = asked.sample_index.folder, len(asked.items)
    speed, largest = StreamSpeed(), 0
    if batch_size is None and rollout.options:
        batch_size = 1
    reset_peak(family.device)
    with (
        asked.sample_index.kept(asked.order, asked.columns),
        Bar(count, f"generating {run.arm}", done=count - len(asked.todo), stage="generate") as bar,
        torch.no_grad(),
    ):
        sample = _sampler(run, family, course, asked.todo, compiled) if asked.todo else None
        for together in _batches(asked.todo, batch_size, course, family):
            assert sample is not None
            counts = [0] * len(together)
            with ExitStack() as files:
                write = [
                    files.enter_context(video_writer(folder / item.path, family.defaults.fps))
                    for item in together
                ]
                for pieces in _pixels(family, sample(together), together, speed):
                    for i, frames in enumerate(pieces):
                        write[i](frames)
                        counts[i] += len(frames)
            asked.sample_index.append(
                [
                    clip_row(asked, run, family, item, written)
                    for item, written in zip(together, counts, strict=True)
                ]
            )
            bar.step(len(together))
            largest = max(largest, len(together))
    if asked.todo:
        about = {"batch": largest, "peak": peak_memory(family.device), "compile": compiled}
        about |= describe(family.device)
        write_json(speed_file(folder, shard), speed.record() | dict(settings) | about)
    return folder / "samples.jsonl"


def stream_clips(
    run: Run,
    suite: Suite,
    rollout: Rollout,
    seeds: Sequence[int] | None,
    family: ModelFamily,
    shard: Shard = WHOLE,
) -> tuple[Course, Clips]:
    """What a rollout comes to, and which clips there are and are still to make.

    Raises:
        UserError: as `course_of`.
    """
    course = course_of(run, family, suite, rollout)
    settings = student_settings(run, family) | course.settings
    if rollout.schedule:
        settings["schedule"] = [list(switch) for switch in rollout.schedule.switches]
    return course, clips_of(run, course.suite, seeds, family, settings, shard)


def _batches(
    items: Sequence[Item], size: int | None, course: Course, family: ModelFamily
) -> Iterator[Sequence[Item]]:
    """The items in order, `size` or as many as fit at a time; a batch is of one length."""
    channels, trained, height, width = course.shape
    for _, own in groupby(items, lambda item: course.frames[item.prompt.id]):
        in_sight = (channels, course.layout.window_frames or trained, height, width)
        yield from batches(list(own), size, in_sight, family.device)


def _sampler(
    run: Run, family: ModelFamily, course: Course, wanted: Sequence[Item], compiled: bool
) -> Callable[[Sequence[Item]], Iterator[Tensor]]:
    """The way from items of one length to the latents (B C T' H W) of their blocks, one by one."""
    texts = course.prompts or [item.text for item in wanted]
    encode = Conditions(family, clip_shape(run, family), texts)
    encode.fill(course.prompts or texts[:1])  # before the network is there
    module = load_student(run, family, compiled)
    assert family.causal is not None
    family.causal.give_window(module, course.layout.window_frames, course.layout.sink_frames)
    reach, longest = family.causal.reach(module), course.latents[course.longest]
    if longest > reach:
        raise UserError(
            f"clips of {course.longest} frames: {longest} latent frames, and the positions of the "
            f"student of {run.path} reach {reach}; lower --frames or take another suite, or raise "
            "rope_max_seq_len in student/transformer/config.json"
        )
    recipe = recipe_of(run)
    numbers = {b.start: i for i, b in enumerate(course.layout.blocks(longest))}

    def sample(items: Sequence[Item]) -> Iterator[Tensor]:
        texts = dict.fromkeys(course.prompts or [""])
        given = {text: encode(_under(text, items)) for text in texts}
        noises = [LongNoise(item.prompt.id, item.seed, course.shape) for item in items]
        return _precise(
            family,
            stream_blocks(
                family,
                module,
                lambda block: given[course.prompts[numbers[block.start]] if course.prompts else ""],
                lambda step, block: torch.cat([n(step, block) for n in noises]).to(family.device),
                course.latents[course.frames[items[0].prompt.id]],
                grid(recipe),
                recipe.student.sampler,
            ),
        )

    return sample


def _under(text: str, items: Sequence[Item]) -> Sequence[Item]:
    """The items with another prompt; as they are where `text` is empty."""
    if not text:
        return items
    return [replace(i, prompt=replace(i.prompt, text=text, long_text="")) for i in items]


def _precise(family: ModelFamily, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
    """The blocks, each sampled in the network's precision; what the caller does keeps its own."""
    while True:
        with compute_precision(family.device):
            latents = next(blocks, None)
        if latents is None:
            return
        yield latents


def _pixels(
    family: ModelFamily, blocks: Iterator[Tensor], items: Sequence[Item], speed: StreamSpeed
) -> Iterator[list[np.ndarray]]:
    """Frames, uint8 (T H W 3), of each item: those of one latent frame after the other."""
    decode, latency = family.stream_decoder(), 0.0
    times: list[tuple[int, float, float]] = []
    start = before = now(family.device)
    for latents in blocks:
        sampled, count, decoding = now(family.device), 0, 0.0
        for latent in latents.split(1, 2):
            begun = now(family.device)
            pieces = [finite_frames(clip) for clip in decode(latent)]
            ended = now(family.device)
            for item, frames in zip(items, pieces, strict=True):
                if frames is None:
                    raise UserError(f"{item.path} holds NaN: {USELESS}")
            whole = [frames for frames in pieces if frames is not None]
            latency = latency or ended - start
            count, decoding = count + sum(map(len, whole)), decoding + ended - begun
            yield whole
        times.append((count, sampled - before, decoding))
        before = now(family.device)
    speed.add(len(items), latency, times)
