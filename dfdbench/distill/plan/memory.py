"""Memory of one GPU in training, line by line, from traced networks and the passes of a step.

Used by the training plan. What the loop holds is counted (weights, gradients, AdamW, what autograd
keeps) and a test compares it with real steps; the allocator's fragmentation is not in it. Gradients
and activations are added up, as they are both there from the second accumulation round on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from dfdbench.distill.plan.measure import Cost
from dfdbench.distill.plan.recording import Passes, Step, record
from dfdbench.distill.plan.trace import NetworkCost, Shape, trace, trace_heads
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
        return self._look(True, True)[0] if self.taps else 0

    def looks(self, student: bool) -> list[tuple[float, Cost]]:
        """How often the discriminator looks at a clip in a step, and what one such look costs."""
        looks = self.steps[student].looks
        return [(count, self._look(*grads)[1]) for grads, count in looks.items()]

    def _look(self, weights: bool, features: bool) -> tuple[int, Cost]:
        n = self.trained
        return trace_heads(len(self.taps), n.tokens, n.width, weights, features)

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
            tokens = network.boundary // (2 * network.width)  # of bfloat16
            block -= 4 * tokens**2 * network.width
        return blocks * block

    def kept(self, one: Passes) -> int:
        """Bytes that one pass over the micro-batch keeps until its backward pass."""
        if one.gradient == "none":
            return 0
        cost = self.cost(one)
        network = self.network(one)
        if self.recipe.optim.checkpointing != "none":
            # Inputs of blocks, and outputs of self-attention, which are as large.
            each = 2 if self.recipe.optim.checkpointing == "save_attention" else 1
            clip = network.outside.kept + network.blocks * each * network.boundary
            copies = network.outside.copies
        else:
            clip, copies = cost.kept, cost.copies
        return self.micro * clip + (copies if self.gpus == 1 else 0)

    def working(self, one: Passes) -> int:
        """Bytes that a pass over the micro-batch needs for a moment."""
        network = self.network(one)
        forward = self.micro * one.together * network.working + self._casts(network)
        if one.gradient == "none":
            return forward
        backward = network.working_backward
        if self.recipe.optim.checkpointing == "none":
            backward -= network.outside.kept + network.block.kept
        return max(forward, self.micro * backward + self.attention)

    def _casts(self, network: NetworkCost) -> int:
        """Weights cast to bfloat16: of all blocks, or of two that FSDP gathers at a time."""
        if self.gpus > 1:
            gathered = 2 * 2 * network.block_parameters
            return gathered + FLOAT32 * network.block_parameters  # and a gradient to be cut
        return network.whole.copies

    @property
    def attention(self) -> int:
        """Queries' gradients in float32, which fused attention adds up in a buffer of its own."""
        n = self.trained
        return self.micro * n.boundary * 2


def step_bytes(setup: Setup, student: bool) -> tuple[int, int]:
    """Bytes kept for the backward pass of a step, and the most needed for a moment."""
    passes = setup.passes(student)
    kept = sum(round(p.count) * setup.kept(p) for p in passes)
    kept += sum(round(count) * setup.micro * look.kept for count, look in setup.looks(student))
    return kept, max(setup.working(p) for p in passes)


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
