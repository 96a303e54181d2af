"""Memory of one GPU in training, line by line, from traced networks and the passes of a step.

Used by the training plan. What the loop holds is counted (weights, gradients, AdamW, what autograd
keeps) and a test compares it with real steps; the allocator's fragmentation is not in it. Gradients
and activations are added up, as they are both there from the second accumulation round on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from dfdbench.distill.plan.measure import Cost
from dfdbench.distill.plan.pieces import Piece
from dfdbench.distill.plan.recording import Event, Freed, Look, Passes, Step, record
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
    """A recipe on a machine. blocks: of the transformer. gpus: processes. frames: of a clip."""

    recipe: Recipe
    model: str
    shape: Shape
    blocks: int
    gpus: int = 1
    frames: int = 1

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
        return trace(self.model, self.shape, trained, frozen, tapped, one.piece)

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
            block -= self._self_attention(one, network)
        return blocks * block

    @staticmethod
    def _self_attention(one: Passes, network: NetworkCost) -> int:
        """FLOPs of a block's self-attention, 4 D for each query and key."""
        if not one.piece:
            return 4 * network.hidden**2 // network.width
        frame = network.hidden // network.width // one.piece.passed  # tokens
        return 4 * network.width * frame**2 * sum(q * k for q, k in one.piece.looks)

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
            one.piece,
        )

    def remembered(self, piece: Piece) -> int:
        """Bytes of the keys and values of a block that the micro-batch's caches take."""
        return self.held(Passes("student", "none", 1, 1, piece)).kept

    def peak(self, one: Passes) -> int:
        """The most bytes of a pass over the micro-batch, forward and backward."""
        return self.held(one).peak + self._attention(one) + self._gathered(one)

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

    def _attention(self, one: Passes) -> int:
        """Queries' gradients in float32, which fused attention adds up in a buffer of its own."""
        if one.gradient == "none":
            return 0
        size = self.micro * self.trained.hidden * FLOAT32
        if one.piece:
            most = max(queries for queries, _ in one.piece.looks)
            return size * most // self.shape.latents[1]
        return size


class StepBytes(NamedTuple):
    """At the peak of a step: what passes keep for their backward passes, the keys and values that
    a causal student remembers, and what is needed for a moment on top."""

    kept: int
    cache: int
    working: int


def sequence_bytes(setup: Setup, sequence: Sequence[Event]) -> StepBytes:
    """Bytes of the passes of a step, one after the other.

    Backward passes run in the reverse order, each after the later ones were freed, so that every
    pass meets what those before it keep.
    """
    kept = cache = 0
    peaks = [(0, 0, 0)]  # most, and what is kept and remembered by then
    # What is computed again looks into the cache that it found the first time.
    again = setup.recipe.optim.checkpointing != "none" and any(
        isinstance(one, Passes) and one.piece and one.gradient != "none" for one in sequence
    )
    for i, one in enumerate(sequence):
        if isinstance(one, Freed):
            cache -= 0 if again else setup.remembered(one.piece)
            continue
        own = remembered = 0
        if isinstance(one, Look):
            own, most = setup.look(one)
        else:
            most = setup.peak(one) + _waiting(setup, sequence, i)
            if one.gradient != "none":
                own = setup.held(one).kept
            elif one.piece and one.piece.kind == "memory":
                remembered = setup.remembered(one.piece)
        peaks.append((kept + cache + most, kept + own, cache + remembered))
        kept, cache = kept + own, cache + remembered
    most, kept, cache = max(peaks)
    return StepBytes(kept, cache, most - kept - cache)


def _waiting(setup: Setup, sequence: Sequence[Event], i: int) -> int:
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


def step_bytes(setup: Setup, student: bool) -> StepBytes:
    """`sequence_bytes` of the outcome of a step's choices that needs the most."""
    return max((sequence_bytes(setup, s) for s in setup.steps[student].sequences), key=sum)


def lines(setup: Setup) -> dict[str, int]:
    """Bytes of one GPU by what they are for; their sum is the most that a step holds."""
    recipe, n, cut = setup.recipe, setup.trained, setup.gpus
    heads = setup.head_parameters
    teacher = trace(setup.model, setup.shape, False, True)
    trainable = 2 * n.parameters + heads
    moved = trainable if setup.steps[False].passes else n.parameters  # without a fake score
    step = max((step_bytes(setup, student) for student in (True, False)), key=sum)
    kind, size = MOMENTS[recipe.optim.optimiser]
    return {
        "student, fake score, heads (float32)": FLOAT32 * trainable // cut,
        "teacher (bfloat16)": teacher.parameter_bytes // cut,
        f"AdamW ({kind}, twice)": int(2 * size * moved) // cut,
        "gradients of one network (float32)": FLOAT32 * (n.parameters + heads) // cut,
        "average of the student (float32)": FLOAT32 * n.parameters // cut
        if recipe.optim.ema
        else 0,
        "clips and prompts": setup.micro * 2 * setup.shape.bytes,
        "activations kept": step.kept,
        "cache of keys and values (bfloat16)": step.cache,
        "working memory": step.working,
    }
