"""Memory of one GPU in training, line by line, from traced networks and the passes of a step.

Used by the training plan. What the loop holds is counted (weights, gradients, AdamW, what autograd
keeps) and a test compares it with real steps; the allocator's fragmentation is not in it. Gradients
and activations are added up, as they are both there from the second accumulation round on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dfdbench.distill.plan.measure import Cost
from dfdbench.distill.plan.recording import Look, Passes, Step, record
from dfdbench.distill.plan.trace import (
    HeadsCost,
    Held,
    NetworkCost,
    Shape,
    trace,
    trace_heads,
    trace_held,
)
from dfdbench.distill.sections import Recipe

FLOAT32 = 4
# A moment of AdamW: its name, and bytes for a number; torchao's 8 bits have a scale for 256.
MOMENTS = {"adamw": ("float32", 4.0), "adamw8bit": ("8 bits", 1 + FLOAT32 / 256)}


@dataclass(frozen=True)
class Setup:
    """A recipe on a machine. blocks: of the transformer. gpus: processes."""

    recipe: Recipe
    model: str
    shape: Shape
    blocks: int
    gpus: int = 1

    @property
    def micro(self) -> int:
        """Clips at a time."""
        return self.recipe.optim.batch // self.recipe.optim.accumulate

    @property
    def rounds(self) -> int:
        """Accumulation rounds of one GPU in an optimiser step."""
        return self.recipe.optim.accumulate // self.gpus

    @cached_property
    def trained(self) -> NetworkCost:
        """Student and fake score, when they are trained."""
        return trace(self.model, self.shape, True, False)

    def network(self, one: Passes) -> NetworkCost:
        """The network of a pass, as the pass uses it."""
        trained = one.network != "teacher"
        frozen = not trained or one.gradient.endswith("input")
        tapped = one.gradient.startswith("features")
        return trace(self.model, self.shape, trained, frozen, tapped)

    @cached_property
    def steps(self) -> dict[bool, Step]:
        """What a student step (True) and one of the fake score (False) run, by the method."""
        return {
            student: record(self.recipe, self.shape, self.blocks, student)
            for student in (True, False)
        }

    @property
    def taps(self) -> tuple[int, ...]:
        """Blocks that a GAN looks at, () without one."""
        return self.steps[True].taps

    @property
    def head_parameters(self) -> int:
        """Of the discriminator."""
        return self._heads(Look(True, True), 1).parameters if self.taps else 0

    def looks(self, student: bool) -> list[tuple[float, Cost]]:
        """How often the discriminator looks at a clip in a step, and what one such look costs."""
        looks = self.steps[student].looks
        return [(count, self._heads(look, 1).cost) for look, count in looks.items()]

    def look(self, one: Look) -> Held:
        """Bytes of a look at the micro-batch."""
        return self._heads(one, self.micro).held

    def _heads(self, look: Look, size: int) -> HeadsCost:
        n = self.trained
        return trace_heads(len(self.taps), size, n.tokens, n.width, *look)

    def passes(self, student: bool) -> list[Passes]:
        """Of one step."""
        return self.steps[student].passes

    def cost(self, one: Passes) -> Cost:
        """Of one pass over one clip; forward only where nothing is kept."""
        network = self.network(one)
        if one.gradient.startswith("features"):
            return network.upto(max(self.taps))
        whole = network.whole
        return whole if one.gradient != "none" else Cost(whole.forward, 0, 0, 0)

    def recomputed(self, one: Passes) -> int:
        """FLOPs of the second forward pass that gradient checkpointing costs."""
        if one.gradient == "none" or self.recipe.optim.checkpointing == "none":
            return 0
        network = self.network(one)
        blocks = max(self.taps) + 1 if one.gradient.startswith("features") else network.blocks
        block = network.block.forward
        if self.recipe.optim.checkpointing == "save_attention":
            block -= 4 * network.hidden**2 // network.width  # of self-attention, 4 L² D
        return blocks * block

    def held(self, one: Passes) -> Held:
        """Bytes of a pass over the micro-batch, beside weights and their gradients."""
        tapped = one.gradient.startswith("features")
        return trace_held(
            self.model,
            self.shape,
            self.micro * one.together,
            max(self.taps) + 1 if tapped else self.blocks,
            one.gradient,
            one.network != "teacher",
            self.recipe.optim.checkpointing,
        )

    def peak(self, one: Passes) -> int:
        """The most bytes of a pass over the micro-batch, forward and backward."""
        attention = self.attention if one.gradient != "none" else 0
        return self.held(one).peak + attention + self._gathered(one)

    def _gathered(self, one: Passes) -> int:
        """Weights of two blocks that FSDP gathers at a time, beside all that lies outside of
        blocks, and a block's gradients before and while they are cut."""
        if self.gpus == 1:
            return 0
        network = self.network(one)
        gathered = network.parameter_bytes - (network.blocks - 2) * network.block_bytes
        if one.gradient in ("weights", "features"):
            gathered += 2 * FLOAT32 * network.block_parameters
        return gathered

    def gradients(self, one: Passes) -> int:
        """Bytes of the gradients of weights (float32) that a pass makes."""
        if one.gradient not in ("weights", "features"):
            return 0
        n = self.trained
        blocks = max(self.taps) + 1 if one.gradient == "features" else n.blocks
        return FLOAT32 * (n.parameters - (n.blocks - blocks) * n.block_parameters)

    @property
    def attention(self) -> int:
        """Queries' gradients in float32, which fused attention adds up in a buffer of its own."""
        n = self.trained
        return self.micro * n.hidden * FLOAT32


def sequence_bytes(setup: Setup, sequence: Sequence[Passes | Look]) -> tuple[int, int]:
    """Bytes that passes keep for their backward passes at the peak of a step, and those it needs
    for a moment on top. Backward passes run in the reverse order, each after the later ones were
    freed, so that every pass meets what those before it keep.
    """
    kept = 0
    peaks = [(0, 0)]  # most, and kept by then
    for i, one in enumerate(sequence):
        if isinstance(one, Look):
            own, most = setup.look(one)
        else:
            own, most = setup.held(one).kept, setup.peak(one) + _waiting(setup, sequence, i)
            own = own if one.gradient != "none" else 0
        peaks.append((kept + most, kept + own))
        kept += own
    most, then = max(peaks)
    return then, most - then


def _waiting(setup: Setup, sequence: Sequence[Passes | Look], i: int) -> int:
    """Bytes of gradients that wait on top of the peak of pass number `i`.

    Where one backward goes through a network several times, autograd sums up the gradients of a
    weight before it hands them on: those of later passes wait, whole, for the earliest.
    """
    one = sequence[i]
    assert isinstance(one, Passes)
    others = [
        (j, setup.gradients(other))
        for j, other in enumerate(sequence)
        if isinstance(other, Passes) and j != i and other.network == one.network
    ]
    made = setup.gradients(one)
    if not made or not any(size for _, size in others):
        return 0
    if later := max((size for j, size in others if j > i), default=0):
        return later
    return max(0, made - setup.held(one).kept)  # they come as what it kept goes


def step_bytes(setup: Setup, student: bool) -> tuple[int, int]:
    """`sequence_bytes` of the outcome of a step's choices that needs the most."""
    return max((sequence_bytes(setup, s) for s in setup.steps[student].sequences), key=sum)


def lines(setup: Setup) -> dict[str, int]:
    """Bytes of one GPU by what they are for; their sum is the most that a step holds."""
    recipe, n, cut = setup.recipe, setup.trained, setup.gpus
    heads = setup.head_parameters
    teacher = trace(setup.model, setup.shape, False, True)
    trainable = 2 * n.parameters + heads
    steps: Sequence[tuple[int, int]] = [step_bytes(setup, student) for student in (True, False)]
    kept, working = max(steps, key=sum)
    kind, size = MOMENTS[recipe.optim.optimiser]
    return {
        "student, fake score, heads (float32)": FLOAT32 * trainable // cut,
        "teacher (bfloat16)": teacher.parameter_bytes // cut,
        f"AdamW ({kind}, twice)": int(2 * size * trainable) // cut,
        "gradients of one network (float32)": FLOAT32 * (n.parameters + heads) // cut,
        "average of the student (float32)": FLOAT32 * n.parameters // cut
        if recipe.optim.ema
        else 0,
        "clips and prompts": setup.micro * 2 * setup.shape.bytes,
        "activations kept": kept,
        "working memory": working,
    }
