"""Which networks a step runs how often: the method itself, recorded on clips without storage.

Used by the training plan. The networks of a real training (`build_networks`) are stand-ins here:
each notes its passes and gives tensors of the right shape on torch's meta device. What lies on the
CPU, such as the student's and the teacher's grids, keeps its values. Random choices are averaged
exactly: the method runs under every outcome of them.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dfdbench.distill.loop import build_networks
from dfdbench.distill.methods import get_method
from dfdbench.distill.parallel import Group
from dfdbench.distill.plan.pieces import Piece
from dfdbench.distill.plan.trace import Shape
from dfdbench.distill.sections import Recipe, Schedule
from dfdbench.distill.streams import Draw, Stream
from dfdbench.models.causal import Cache, Layout
from dfdbench.models.conditioning import Conditioning

T = TypeVar("T")
META = torch.device("meta")
Outcome = dict[str, tuple[int, Fraction]]  # name of a choice -> its value and the probability
Gradient = Literal["none", "weights", "input", "features", "features_input"]


@dataclass(frozen=True)
class Passes:
    """Passes of one network in a step, each over one clip.

    gradient: "none"; "weights", kept until the backward pass; "input", the same through a network
    that is not trained itself; "features" and "features_input" are these two for a GAN, whose
    gradients begin at the last tapped block. count: a mean over random choices. together: clips at
    a time for each clip of the batch (2 where both branches of guidance are one batch). piece: what
    a causal student is given; None for a network that looks at the whole clip.
    """

    network: Literal["student", "fake_score", "teacher"]
    gradient: Gradient
    count: float
    together: int = 1
    piece: Piece | None = None


class Freed(NamedTuple):
    """The end of the keys and values that the pass of this piece remembered."""

    piece: Piece


class Look(NamedTuple):
    """A look of the discriminator: whether gradients go to its heads, and to what they look at."""

    weights: bool
    features: bool


class Step(NamedTuple):
    """What one step runs for each clip of its batch.

    looks: how often each kind is taken. taps: blocks that they look at, () without a GAN.
    sequences: passes, each once, looks and the ends of what was remembered in their order, one list
    for each outcome of choices.
    """

    passes: list[Passes]
    looks: dict[Look, float]
    taps: tuple[int, ...]
    sequences: list[list["Event"]]


Event = Passes | Look | Freed
NOTHING = Step([], {}, (), [[]])


class _StandIn(nn.Module):
    """In the place of a transformer; one weight, so that it can be trained or frozen."""

    def __init__(self, name: str = "", layout: Layout | None = None) -> None:
        super().__init__()
        self.name, self.layout = name, layout
        self.weight = nn.Parameter(torch.empty(0, device=META))


class _Pass:
    """One call of a network; its backward pass says where gradients went."""

    def __init__(self, network: str, rows: int, piece: Piece | None) -> None:
        self.network: Any = network
        self.rows, self.piece = rows, piece
        self.gradient: Gradient = "none"


class _Run(torch.autograd.Function):
    """v̂, shaped as x_t (B C T H W), and `taps` hidden states (B 1 1) of a pass that is noted."""

    @staticmethod
    def forward(ctx: Any, noted: _Pass, weight: Tensor, x_t: Tensor, taps: int) -> Any:
        ctx.noted, ctx.shape = noted, x_t.shape
        ctx.set_materialize_grads(False)  # None for what the loss does not depend on
        return torch.empty_like(x_t), *(x_t.new_empty(len(x_t), 1, 1) for _ in range(taps))

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, *hidden: Tensor | None) -> Any:  # type: ignore[override]
        trained = ctx.needs_input_grad[1]
        if v is not None:
            ctx.noted.gradient = "weights" if trained else "input"
        elif any(gradient is not None for gradient in hidden):
            ctx.noted.gradient = "features" if trained else "features_input"
        else:
            return None, None, None, None
        return None, torch.empty(0, device=META), torch.empty(ctx.shape, device=META), None


class _Family:
    """Keeps what methods and `build_networks` ask of a ModelFamily; notes passes in their order."""

    def __init__(self, block_count: int, conditioning_frames: int) -> None:
        self.conditioning_frames = conditioning_frames
        self.teacher = _StandIn("teacher").requires_grad_(False)
        self.block_count = lambda module: block_count
        self.noted: list[_Pass | Look | Freed] = []
        self.causal = _Causal(self)

    def new_module(self) -> _StandIn:
        return _StandIn()

    def new_causal_module(self, layout: Layout) -> _StandIn:
        return _StandIn(layout=layout)

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """Which passes are run again does not depend on the method."""
        return ()

    def feature_width(self, module: nn.Module) -> int:
        return 1

    def predict(
        self, module: _StandIn, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return self.predict_with_features(module, x_t, t, conditioning, ())[0]

    def predict_with_features(
        self,
        module: _StandIn,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        blocks: Sequence[int],
    ) -> tuple[Tensor, Sequence[Tensor]]:
        layout = module.layout
        whole = Piece(layout, "clip", 0, x_t.shape[2]) if layout else None
        return self.note(module, x_t, len(blocks), whole)

    def note(
        self, module: _StandIn, x_t: Tensor, taps: int, piece: Piece | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        noted = _Pass(module.name, len(x_t), piece)
        self.noted.append(noted)
        v, *hidden = _Run.apply(noted, module.weight, x_t, taps)
        return v, hidden


class _Causal:
    """Keeps what methods ask of a CausalVariant. Its caches hold a number a frame."""

    def __init__(self, family: _Family) -> None:
        self.family = family

    def layout(self, module: _StandIn) -> Layout:
        assert module.layout is not None
        return module.layout

    def predict(
        self,
        module: _StandIn,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        after: Tensor | Cache | None,
    ) -> Tensor:
        layout, frames = self.layout(module), x_t.shape[2]
        if isinstance(after, Tensor):
            piece = Piece(layout, "after_clean", 0, frames)
        else:
            piece = Piece(layout, "block", after.start if after else 0, frames)
        return self.family.note(module, x_t, 0, piece)[0]

    @torch.no_grad()
    def remember(
        self, module: _StandIn, clean: Tensor, conditioning: Conditioning, past: Cache | None
    ) -> Cache:
        layout, frames = self.layout(module), clean.shape[2]
        past = past or Cache.empty(1)
        piece, noted = Piece(layout, "memory", past.start, frames), self.family.noted
        self.family.note(module, clean, 0, piece)
        key = torch.empty(len(clean), frames, 1, 1, device=META)
        weakref.finalize(key.untyped_storage(), noted.append, Freed(piece))
        return past.followed_by([(key, key)], frames, layout)


class _Choices(Stream):
    """Draws without values, but for a step's choices: as `outcome` says, else the first possible.

    others: outcomes that are left to try.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(0, 0, 0, META)
        self.outcome = outcome
        self.others: list[Outcome] = []

    def normal(self, name: str, like: Tensor) -> Tensor:
        return torch.empty(like.shape, device=META)

    def integers(self, name: str, high: int, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.long, device=META)

    def times(self, name: str, schedule: Schedule, count: int) -> Tensor:
        return torch.empty(count, device=META)

    def uniform(self, name: str, count: int) -> Tensor:
        return torch.empty(count, device=META)

    def turn(self, name: str, high: int) -> int:
        return self.integer(name, high)

    def score_draw(self, like: Tensor, schedule: Schedule) -> Draw:
        return Draw(torch.empty(len(like), device=META), self.normal("", like))

    def integer(self, name: str, high: int) -> int:
        return self._choose(name, [Fraction(1, high)] * high)

    def bernoulli(self, name: str, p: float) -> bool:
        return bool(self._choose(name, [1 - Fraction(p), Fraction(p)]))

    def bernoullis(self, name: str, p: float, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.bool, device=META)

    def _choose(self, name: str, probabilities: Sequence[Fraction]) -> int:
        if name not in self.outcome:
            first, *rest = [(value, p) for value, p in enumerate(probabilities) if p > 0]
            self.others += [{**self.outcome, name: other} for other in rest]
            self.outcome[name] = first
        return self.outcome[name][0]


def every_outcome(run: Callable[[Stream], T]) -> Iterator[tuple[Fraction, T]]:
    """Probability and result of `run` under each outcome of the choices that it draws."""
    waiting: list[Outcome] = [{}]
    while waiting:
        stream = _Choices(waiting.pop(0))
        result = run(stream)
        yield prod((p for _, p in stream.outcome.values()), start=Fraction(1)), result
        waiting += stream.others


def record(recipe: Recipe, shape: Shape, block_count: int, student: bool) -> Step:
    """The passes of a student step, or of one of the fake score and the discriminator; NOTHING
    where the method has no fake score.

    Args:
        block_count: of the model's transformer.

    Raises:
        UserError: the recipe taps blocks that the model does not have.
    """
    method = get_method(recipe.method)
    if not student and not hasattr(method, "fake_score_loss"):
        return NOTHING
    batch = shape.batch(1, META)
    family: Any = _Family(block_count, shape.conditioning_frames)
    nets: Any = build_networks(recipe, family, method, None, Group(), batch.conditioning)
    nets.student.name, nets.fake_score.name = "student", "fake_score"
    nets.train_only(*((nets.student,) if student else (nets.fake_score, nets.heads)))
    if nets.statistics is not None:
        nets.statistics.to(META)
    nets.whole_batch = recipe.optim.accumulate == 1
    look_ahead = getattr(method, "survey", None) if student and nets.statistics else None
    if nets.heads is not None:
        nets.heads.to(META).register_forward_hook(
            lambda heads, inputs, _: family.noted.append(_look(heads, *inputs))
        )
    loss = method.student_loss if student else method.fake_score_loss

    @torch.enable_grad()
    def run(rng: Stream) -> list[_Pass | Look | Freed]:
        family.noted = []
        if look_ahead and not nets.whole_batch:
            with torch.no_grad():
                look_ahead(batch, nets, recipe, rng)
        loss(batch, nets, recipe, rng).loss.backward()
        noted: list[_Pass | Look | Freed] = family.noted
        return noted

    passes: dict[tuple[Any, ...], Fraction] = defaultdict(Fraction)
    looks: dict[Look, Fraction] = defaultdict(Fraction)
    sequences: list[list[Event]] = []
    for probability, noted in every_outcome(run):
        sequences.append([])
        for one in noted:
            if isinstance(one, _Pass):
                kind = one.network, one.gradient, one.rows, one.piece
                passes[kind] += probability * one.rows
                sequences[-1].append(Passes(one.network, one.gradient, 1, one.rows, one.piece))
                continue
            sequences[-1].append(one)
            if isinstance(one, Look):
                looks[one] += probability
    return Step(
        [
            Passes(name, kept, float(count), rows, piece)
            for (name, kept, rows, piece), count in passes.items()
        ],
        {look: float(count) for look, count in looks.items()},
        nets.blocks,
        sequences,
    )


def _look(heads: nn.Module, features: Sequence[Tensor]) -> Look:
    """The look that is taken."""
    trained = any(weight.requires_grad for weight in heads.parameters())
    return Look(torch.is_grad_enabled() and trained, features[0].requires_grad)
