"""Adaptive norms of Cosmos by frame: all tokens of a frame have its time.

Used by cosmos.py. diffusers repeats the embeddings of time for every token and puts all T·H·W rows
through both linear layers of every norm, a tenth of a block's linear work. Here one row a frame
goes through them, and shift and scale are broadcast; the values are the same.
"""

from functools import partial
from typing import Any

from diffusers.models.transformers.transformer_cosmos import (
    CosmosAdaLayerNorm,
    CosmosAdaLayerNormZero,
)
from torch import Tensor, nn


class _Frames:
    """How many latent frames the network was given last."""

    count = 0


def modulate_by_frame(module: nn.Module) -> None:
    """Let the norms of a CosmosTransformer3DModel work by frame, in place.

    It must be called with `hidden_states` (B C T H W) by that name and a time for each frame.
    """
    frames = _Frames()
    module.register_forward_pre_hook(partial(_note, frames), with_kwargs=True)
    ways: dict[type[nn.Module], Any] = {
        CosmosAdaLayerNormZero: _norm_and_gate,
        CosmosAdaLayerNorm: _norm,
    }
    for part in module.modules():
        if type(part) in ways:
            part.forward = partial(ways[type(part)], frames, part)  # type: ignore[method-assign]


def _note(frames: _Frames, module: nn.Module, args: Any, named: dict[str, Any]) -> None:
    frames.count = named["hidden_states"].shape[2]


def _rows(frames: _Frames, part: Any, embedded: Tensor, temb: Tensor) -> Tensor:
    """Shift, scale and, where the norm has one, gate of each frame, side by side: (B T 1 n·D).

    embedded (B T·H·W D), temb (B T·H·W 3·D): the same for all tokens of a frame.
    """
    tokens = embedded.shape[1] // frames.count
    row = part.linear_2(part.linear_1(part.activation(embedded[:, ::tokens])))  # (B T n·D)
    return (row + temb[:, ::tokens, : row.shape[-1]]).unsqueeze(2)


def _modulated(frames: _Frames, part: Any, hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    by_frame = part.norm(hidden).unflatten(1, (frames.count, -1))  # (B T H·W D)
    return (by_frame * (1 + scale) + shift).flatten(1, 2)


def _norm(
    frames: _Frames, part: Any, hidden_states: Tensor, embedded_timestep: Tensor, temb: Tensor
) -> Tensor:
    shift, scale = _rows(frames, part, embedded_timestep, temb).chunk(2, dim=-1)
    return _modulated(frames, part, hidden_states, shift, scale)


def _norm_and_gate(
    frames: _Frames, part: Any, hidden_states: Tensor, embedded_timestep: Tensor, temb: Tensor
) -> tuple[Tensor, Tensor]:
    rows = _rows(frames, part, embedded_timestep, temb)
    shift, scale, gate = rows.chunk(3, dim=-1)
    tokens = hidden_states.shape[1] // frames.count
    return (
        _modulated(frames, part, hidden_states, shift, scale),
        gate.expand(-1, -1, tokens, -1).flatten(1, 2),
    )
