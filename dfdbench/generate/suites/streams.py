"""Suites of streams: clips of a length of their own, which causal students make block after block.

Used by suites/__init__.py. `ar-5s`, `ar-30s` and `ar-60s` have 70 long descriptions, or a user's
prompts; `ar-toy` has the toy's captions at the trained length, and some at 8 times it. Any other
suite becomes one of streams by a length in its name: toy-t2v-157f-w5 is toy-t2v at 157 frames,
under a window of 5 latent frames.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dfdbench.generate.suites.base import EIGHT_SEEDS, GENERAL, OF_STREAMS, Length, Prompt, Suite
from dfdbench.generate.suites.toy import TOY_METRICS, toy_t2v
from dfdbench.toy.world import SHAPES

SECONDS = {"ar-5s": 5, "ar-30s": 30, "ar-60s": 60}  # as long rollouts are published
PROMPTS = Path(__file__).parent / "ar-long.txt"
SEEDS = (1, 2, 3, 4)  # of a prompt longer than 5 seconds; such clips are dear
LONGER = 8  # times the trained length, of the toy's long clips
OF_TOY_STREAMS = (*OF_STREAMS, "oracle_drift")
NAME = re.compile(r"(.+?)(?:-([0-9]{1,6})f)?(?:-w([0-9]{1,6}))?(?:-s([0-9]{1,6}))?")


class Asked(NamedTuple):
    """What the end of a suite's name says of its streams; None: nothing."""

    base: str
    frames: int | None
    window: int | None
    sinks: int | None


def parse_name(name: str) -> Asked:
    """`toy-t2v-157f-w5-s1` as the suite's name, frames, window and sinks."""
    match = NAME.fullmatch(name)
    if match is None:
        return Asked(name, None, None, None)
    frames, window, sinks = (int(part) if part else None for part in match.groups()[1:])
    return Asked(match[1], frames, window, sinks)


def streamed(
    suite: Suite, frames: int | None = None, window: int | None = None, sinks: int | None = None
) -> Suite:
    """The suite with streams as its clips, under a name that says what was asked for.

    Args:
        frames: of every clip; None: as the suite has it. window, sinks: latent frames, in place of
            the student's own.
    """
    given = {f"-{frames}f": frames, f"-w{window}": window, f"-s{sinks}": sinks}
    name = suite.name + "".join(end for end, value in given.items() if value is not None)
    prompts = suite.prompts
    if frames is not None:
        prompts = tuple(replace(prompt, length=Length(frames=frames)) for prompt in prompts)
    more = OF_TOY_STREAMS if suite.metrics == TOY_METRICS else OF_STREAMS
    metrics = tuple(dict.fromkeys((*suite.metrics, *more)))
    return replace(suite, name=name, prompts=prompts, metrics=metrics, window=window, sinks=sinks)


def ar_suite(name: str, prompts: tuple[Prompt, ...]) -> Suite:
    """One of SECONDS, of these prompts."""
    length = Length(seconds=SECONDS[name])
    return Suite(
        name,
        version=1,
        description=f"{len(prompts)} prompts, clips of about {length.seconds} seconds by causal "
        "students",
        prompts=tuple(replace(prompt, length=length) for prompt in prompts),
        seeds=EIGHT_SEEDS if length.seconds <= 5 else SEEDS,
        metrics=(GENERAL, *OF_STREAMS),
    )


def ar_toy() -> Suite:
    """The toy's captions as trained, scored as toy-t2v is, and some 8 times as long, for drift.

    The long ones have each shape and each scene once: a stream takes as long as 8 clips, made one
    after the other. Teacher and real clips have the short ones alone.
    """
    short = toy_t2v()
    apart = len(SHAPES) + 1  # from a caption to that with the next shape and the next scene
    long = tuple(
        replace(
            prompt,
            id=f"{prompt.id}-{LONGER}x",
            length=Length(times=LONGER),
            metrics=OF_TOY_STREAMS,
        )
        for prompt in short.prompts[::apart]
    )
    own = (*TOY_METRICS, "seams", "oracle_ends")
    prompts = (replace(p, length=Length(times=1), metrics=own) for p in short.prompts)
    return replace(
        short,
        name="ar-toy",
        description="toy-t2v's captions by causal students, as trained, and four of them "
        f"{LONGER} times as long",
        prompts=(*prompts, *long),
        metrics=(*TOY_METRICS, *OF_TOY_STREAMS, "oracle_ends"),
    )
