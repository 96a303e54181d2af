"""What is causal in a video network: its blocks of latent frames, what they see, and its cache.

Used by the causal networks of the families and by whatever rolls them out. Knows no network.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError


@dataclass(frozen=True)
class Layout:
    """How a clip is cut into blocks, each of which sees itself and frames before it.

    Self Forcing (2506.08009) has blocks of 3; its rolling window keeps the newest frames.

    Attributes:
        block_frames: latent frames a block. Frames beyond whole blocks join the first one.
        window_frames: the most latent frames that a block sees, itself and the sinks among them;
            0: everything before it.
        sink_frames: so many of the first latent frames stay in sight, whatever the window.
    """

    block_frames: int = 3
    window_frames: int = 0
    sink_frames: int = 0

    def __post_init__(self) -> None:
        if self.block_frames < 1 or self.window_frames < 0 or self.sink_frames < 0:
            raise UserError(
                f"a causal network cannot have {self}; block_frames must be at least 1, the "
                "others 0 or more"
            )
        if self.sink_frames and not self.window_frames:
            raise UserError("sink_frames mean something only within a window; set window_frames")
        if self.window_frames:
            self._fits(self.block_frames + self.sink_frames)

    def _fits(self, frames: int) -> None:
        if self.window_frames < frames:
            raise UserError(
                f"window_frames = {self.window_frames} is too small for a rollout: the sinks and a "
                f"block are {frames} latent frames; set window_frames to {frames} or more"
            )

    def blocks(self, frames: int) -> list[range]:
        """The blocks of a clip of so many latent frames, in their order.

        Raises:
            UserError: the clip does not fill a block, or the window cannot hold its first one.
        """
        if frames < self.block_frames:
            raise UserError(
                f"a clip of {frames} latent frames does not fill a block of {self.block_frames}; "
                "take a longer clip or smaller blocks"
            )
        first = self.block_frames + frames % self.block_frames
        if self.window_frames:
            self._fits(first)
        later = range(first, frames, self.block_frames)
        return [range(first), *(range(begin, begin + self.block_frames) for begin in later)]

    def seen(self, begin: int, end: int) -> list[int]:
        """The frames before `begin` that a block of the frames from `begin` to `end` sees."""
        if not self.window_frames:
            return list(range(begin))
        oldest = end - (self.window_frames - self.sink_frames)
        return [frame for frame in range(begin) if frame < self.sink_frames or frame >= oldest]


class Cache(NamedTuple):
    """Keys and values of the frames that later blocks see.

    Nothing in it ever changes: remembering a block gives a new cache that shares its tensors. So a
    block that is computed again for gradient checkpointing meets what it met the first time.

    Attributes:
        start: latent frames gone by, where the next block begins.
        frames: the kept ones, in their order.
        layers: for each layer and each kept frame its (key, value), (B N heads D), N tokens a
            frame, keys with their rotary embedding.
    """

    start: int
    frames: tuple[int, ...]
    layers: tuple[tuple[tuple[Tensor, Tensor], ...], ...]

    @staticmethod
    def empty(layers: int) -> "Cache":
        """Of a clip that has not begun."""
        return Cache(0, (), ((),) * layers)

    def followed_by(
        self, new: Sequence[tuple[Tensor, Tensor]], count: int, layout: Layout
    ) -> "Cache":
        """With `count` more frames, and without those that no later block sees.

        Args:
            new: each layer's keys and values (B, count · N, heads, D).
        """
        end = self.start + count
        whole = (*self.frames, *range(self.start, end))
        kept = {*layout.seen(end, end + 1)}  # by the shortest block that can follow
        layers = []
        for old, (key, value) in zip(self.layers, new, strict=True):
            keys, values = (
                x.detach().unflatten(1, (count, -1)).unbind(1) for x in (key, value)
            )  # (B N heads D) a frame
            both = zip(whole, (*old, *zip(keys, values, strict=True)), strict=True)
            layers.append(tuple(pair for frame, pair in both if frame in kept))
        return Cache(end, tuple(frame for frame in whole if frame in kept), tuple(layers))


class CausalVariant(ABC):
    """How a family's denoiser is made causal, and asked for the blocks of a clip one by one.

    The family's own `predict` runs a causal denoiser too: all blocks of a clip in one pass, t
    being (B,) or, for each frame, (B T).

    Attributes:
        network: class of the causal denoiser, a subclass of the bidirectional one with the same
            weights, whose config also has the fields of a `Layout`.
    """

    network: ClassVar[Any]

    @abstractmethod
    def predict(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        after: Tensor | Cache | None,
    ) -> Tensor:
        """v̂ (B C T H W) float32 of a causal denoiser.

        Args:
            t: (B,), or (B T) for each frame.
            after: what x_t follows. A clean clip of its shape: each of the blocks in x_t follows
                the clean frames before it (teacher forcing). A cache: x_t is the next block. None:
                x_t is the first block.

        Raises:
            UserError: the denoiser is bidirectional.
        """

    @abstractmethod
    def remember(
        self, module: nn.Module, clean: Tensor, conditioning: Conditioning, past: Cache | None
    ) -> Cache:
        """The cache after one more clean block (B C T H W), of a pass at t = 0 without gradient.

        Raises:
            UserError: the denoiser is bidirectional.
        """

    def layout(self, module: nn.Module) -> Layout:
        """The blocks of a causal denoiser.

        Raises:
            UserError: it is bidirectional.
        """
        if not isinstance(module, self.network):
            raise UserError(
                "the network is bidirectional, where a causal one is needed; give a student that "
                "was trained with student.block_frames"
            )
        layout: Layout = module.layout
        return layout

    @abstractmethod
    def reach(self, module: nn.Module) -> int:
        """Latent frames of the longest rollout that its positions allow, whatever the window.

        Raises:
            UserError: the denoiser is bidirectional.
        """

    def give_window(self, module: nn.Module, window_frames: int, sink_frames: int = 0) -> None:
        """Let a causal denoiser see no more than a window from here on; its blocks stay.

        Raises:
            UserError: it is bidirectional, or the window cannot hold the sinks and a block.
        """
        module.layout = replace(  # type: ignore[assignment]
            self.layout(module), window_frames=window_frames, sink_frames=sink_frames
        )

    def variant_of(self, plain: nn.Module, layout: Layout) -> nn.Module:
        """A causal denoiser with the weights of a bidirectional one, which is used up."""
        config: Any = plain.config
        with torch.device("meta"):
            module: nn.Module = self.network.from_config({**config, **vars(layout)})
        module.load_state_dict(plain.state_dict(), assign=True)
        for name, buffer in plain.named_buffers():  # those that no checkpoint holds
            owner, _, key = name.rpartition(".")
            setattr(module.get_submodule(owner), key, buffer)
        return module.train(plain.training)
