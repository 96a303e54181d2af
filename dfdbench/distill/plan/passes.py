"""Which networks each method runs how often in a step: the counts behind FLOPs and memory.

Used by the training plan; a test compares the sums with what the methods themselves do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dfdbench.distill.methods.dp_dmd import anchor_steps
from dfdbench.distill.sections import Recipe


@dataclass(frozen=True)
class Passes:
    """Passes of one network in a step, each over one clip.

    gradient: "none"; "weights", kept until the backward pass; "input", the same through a network
    that is not trained itself; "features" and "features_input" are these two for a GAN, whose
    gradients begin at the last tapped block. count: may be a mean over random choices. together:
    clips at a time for each clip of the batch (2 where both branches of guidance are one batch).
    """

    network: Literal["student", "fake_score", "teacher"]
    gradient: Literal["none", "weights", "input", "features", "features_input"]
    count: float
    together: int = 1


def _guided(recipe: Recipe, count: float, cfg: float | None = None) -> Passes:
    """Teacher passes for `count` guided values; recipe and checkpoint decide on guidance."""
    scale = recipe.teacher.cfg if cfg is None else cfg
    branches = 1 if scale in (None, 1) else 2
    together = branches if recipe.teacher.guidance_passes == "batched" else 1
    return Passes("teacher", "none", count * branches, together)


def _gap(recipe: Recipe) -> Iterator[Passes]:
    """The teacher's look at G, at the real clip, or at both."""
    if recipe.method != "dfd":
        yield _guided(recipe, 1)
        return
    dfd = recipe.options
    on_real = dfd.p if dfd.w is None else 1.0
    on_made = 1 - dfd.p if dfd.w is None else 1.0
    # With a lowest noise level both branches share a batch, which then runs both of guidance.
    both = dfd.t_min > 0 and dfd.cfg_dfd not in (None, recipe.teacher.cfg)
    yield _guided(recipe, on_made)
    yield _guided(recipe, on_real, 0.0 if both else dfd.cfg_dfd)


def _generated(recipe: Recipe, train: bool) -> Iterator[Passes]:
    """The student's passes that make G."""
    steps, free = recipe.student.steps, 0.0
    kept = 1
    if recipe.method == "dp_dmd":
        policy = recipe.options.gradient_steps
        kept = steps if policy == "all" else 2
        free = {"all": 0.0, "last": steps - 2, "random": (steps - 2) / 2}[policy]
    elif recipe.student.input == "backward_simulation":
        free = (steps - 1) / 2
    if train:
        yield Passes("student", "weights", kept)
    elif recipe.method == "dp_dmd" and recipe.options.gradient_steps != "random":
        free = steps - 1
        kept = 1
    yield Passes("student", "none", free if train else free + kept)


def student_passes(recipe: Recipe, gan: bool) -> list[Passes]:
    """Of one student step, for each clip of its batch."""
    passes = list(_generated(recipe, train=True))
    teacher_features = recipe.gan.features == "teacher"
    if not gan or teacher_features:
        passes.append(Passes("fake_score", "none", 1))
    if gan:
        passes.append(Passes("teacher" if teacher_features else "fake_score", "features_input", 1))
    passes += _gap(recipe)
    if recipe.method == "dp_dmd":
        passes.append(_guided(recipe, anchor_steps(recipe.options)))
    return [p for p in passes if p.count]


def critic_passes(recipe: Recipe, gan: bool) -> list[Passes]:
    """Of one step of the fake score and, with a GAN, of the discriminator."""
    passes = list(_generated(recipe, train=False))
    passes.append(Passes("fake_score", "weights", 1))
    if gan:
        more = 2 if recipe.gan.r1_weight else 1  # real clips, and those shaken for R1
        if recipe.gan.features == "teacher":
            passes.append(Passes("teacher", "none", 1 + more))
        else:
            passes.append(Passes("fake_score", "features", more))
    return [p for p in passes if p.count]


def head_passes(recipe: Recipe, student: bool) -> int:
    """Looks of the discriminator's heads in a step: at G, at real clips, at shaken ones."""
    return 1 if student else 3 if recipe.gan.r1_weight else 2
