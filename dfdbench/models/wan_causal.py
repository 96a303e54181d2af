"""The causal variant of Wan's transformer: blocks of latent frames, a cache of keys and values.

Used by wan.py. Self Forcing (2506.08009) and CausVid (2412.07772) on diffusers' own modules: the
frames of a clip are folded into the batch, which gives each its own time embedding, and only
self-attention looks across them. So every weight, and its name, is the bidirectional network's.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    WanRotaryPosEmbed,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from dfdbench.models.causal import Cache, CausalVariant, Layout
from dfdbench.models.conditioning import Conditioning
from dfdbench.utils.errors import UserError

rotate: Any = apply_rotary_emb  # annotated as giving two tensors, where it gives one
TIMESTEPS = 1000.0  # the transformer counts time from 0 to 1000


class Look(NamedTuple):
    """What the frames of one block attend to: positions in the pass and in the cache."""

    queries: range
    own: list[int]
    past: list[int]


@dataclass
class Pass:
    """What self-attention must know of one pass through the network.

    Attributes:
        positions: of its frames in the clip, for the rotary embedding.
        looks: one a block. past: the cache that they look into.
        kept: takes each layer's keys and values where the pass is to be remembered.
        rotary: cosines and sines (F · N, D), filled in by `Rotary`.
    """

    positions: list[int]
    looks: list[Look]
    past: Cache | None = None
    kept: dict[int, tuple[Tensor, Tensor]] | None = None
    rotary: tuple[Tensor, Tensor] = field(default=(torch.empty(0), torch.empty(0)))


def _whole_clip(layout: Layout, frames: int) -> Pass:
    """All blocks of a clip in one pass."""
    blocks = layout.blocks(frames)
    looks = [Look(b, [*layout.seen(b.start, b.stop), *b], []) for b in blocks]
    return Pass([*range(frames)], looks)


def _after_clean(layout: Layout, frames: int) -> Pass:
    """A clean clip and then its noised copy, whose blocks see themselves and clean frames."""
    clean = _whole_clip(layout, frames)
    noised = [
        Look(
            range(frames + b.start, frames + b.stop),
            [*layout.seen(b.start, b.stop), *range(frames + b.start, frames + b.stop)],
            [],
        )
        for b in layout.blocks(frames)
    ]
    return Pass(clean.positions * 2, clean.looks + noised)


def _next_block(layout: Layout, frames: int, past: Cache) -> Pass:
    """One block that follows what the cache holds."""
    begin, end = past.start, past.start + frames
    seen = [past.frames.index(frame) for frame in layout.seen(begin, end)]
    return Pass([*range(begin, end)], [Look(range(frames), [*range(frames)], seen)], past)


class Rotary(WanRotaryPosEmbed):
    """Wan's rotary embedding at any positions; it hands the blocks the pass that is under way.

    The transformer gives what this returns to every block, and gradient checkpointing keeps it, so
    no state outlives a pass.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor
    current: Pass | None = None

    def forward(self, hidden_states: Tensor) -> Any:
        current = self.current
        assert current is not None
        if max(current.positions) >= self.max_seq_len:
            raise UserError(
                f"a clip of {max(current.positions) + 1} latent frames is longer than the rotary "
                f"embedding reaches; set rope_max_seq_len, {self.max_seq_len}, in the "
                "transformer's config.json"
            )
        rows = hidden_states.shape[-2] // self.patch_size[1]
        columns = hidden_states.shape[-1] // self.patch_size[2]
        current.rotary = (
            self._at(self.freqs_cos, current.positions, rows, columns),
            self._at(self.freqs_sin, current.positions, rows, columns),
        )
        return current

    def _at(self, table: Tensor, positions: list[int], rows: int, columns: int) -> Tensor:
        """(F · rows · columns, D) of a table (longest, D)."""
        time, height, width = table.split([self.t_dim, self.h_dim, self.w_dim], dim=1)
        shape = (len(positions), rows, columns, -1)
        parts = (
            time[positions].view(-1, 1, 1, self.t_dim).expand(shape),
            height[:rows].view(1, -1, 1, self.h_dim).expand(shape),
            width[:columns].view(1, 1, -1, self.w_dim).expand(shape),
        )
        return torch.cat(parts, -1).flatten(0, 2)


class BlockAttention:
    """Self-attention of one layer, block by block: no mask, so the fast kernels stay usable."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def __call__(
        self, attn: Any, hidden: Tensor, encoder: None, mask: None, current: Pass
    ) -> Tensor:
        """(B · F, N, D) to the same."""
        frames, tokens = len(current.positions), hidden.shape[1]
        hidden = hidden.unflatten(0, (-1, frames)).flatten(1, 2)  # (B, F · N, D)
        query, key, value = (
            x.unflatten(2, (attn.heads, -1))
            for x in (
                attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden),
            )
        )  # fmt: skip
        query, key = (
            # As attention takes them under autocast, and as little as the cache need hold.
            rotate(x, current.rotary, use_real_unbind_dim=-1, sequence_dim=1).type_as(value)
            for x in (query, key)
        )
        if current.kept is not None:
            current.kept[self.layer] = (key, value)
        q, k, v = (x.unflatten(1, (frames, tokens)) for x in (query, key, value))
        blocks = []
        for look in current.looks:
            seen = [current.past.layers[self.layer][i] for i in look.past] if current.past else []
            keys = torch.cat([*(pair[0] for pair in seen), k[:, look.own].flatten(1, 2)], 1)
            values = torch.cat([*(pair[1] for pair in seen), v[:, look.own].flatten(1, 2)], 1)
            queries = q[:, look.queries.start : look.queries.stop].flatten(1, 2)
            blocks.append(dispatch_attention_fn(queries, keys, values))
        out = torch.cat(blocks, 1).flatten(2, 3)
        out = attn.to_out[1](attn.to_out[0](out))
        return out.unflatten(1, (frames, tokens)).flatten(0, 1)


class FoldedCrossAttention:
    """Wan's cross-attention, for frames that are folded into the batch."""

    def __init__(self) -> None:
        self.unfolded = WanAttnProcessor()

    def __call__(
        self, attn: Any, hidden: Tensor, encoder: Tensor, mask: None, rotary: None
    ) -> Tensor:
        """(B · F, N, D) and text (B L D) to (B · F, N, D)."""
        tokens = hidden.shape[1]
        whole = hidden.unflatten(0, (len(encoder), -1)).flatten(1, 2)
        return self.unfolded(attn, whole, encoder).unflatten(1, (-1, tokens)).flatten(0, 1)


class CausalWanTransformer3DModel(WanTransformer3DModel):
    """A WanTransformer3DModel, with the same weights, whose blocks of frames see no later ones.

    Its config is the bidirectional one's and a `Layout`'s fields.
    """

    rope: Rotary
    layout: Layout

    @register_to_config
    def __init__(
        self,
        *,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        block_frames: int = 3,
        window_frames: int = 0,
        sink_frames: int = 0,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        if patch_size[0] != 1:
            raise UserError(
                f"a causal Wan needs patches of one latent frame, this one's have {patch_size[0]}; "
                "give another model"
            )
        self.layout = Layout(block_frames, window_frames, sink_frames)
        self.rope = Rotary(attention_head_dim, patch_size, rope_max_seq_len)
        block: Any
        for layer, block in enumerate(self.blocks):
            block.attn1.set_processor(BlockAttention(layer))
            block.attn2.set_processor(FoldedCrossAttention())

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        return_dict: bool = True,
        clean: Tensor | None = None,
        past: Cache | None = None,
        kept: dict[int, tuple[Tensor, Tensor]] | None = None,
        **options: Any,
    ) -> Any:
        """v̂ (B C T H W) of a whole clip, or of the one block that follows a cache.

        Args:
            hidden_states: x_t (B C T H W).
            timestep: 1000 t, (B,) or for each frame (B T).
            encoder_hidden_states: (B L D).
            clean: a clip of the same shape; then each block sees its earlier frames in place of
                those of x_t (teacher forcing).
            past: what the block in `hidden_states` follows.
            kept: filled with each layer's keys and values (B, T · N, heads, D).
            options: the bidirectional network's other arguments.

        Raises:
            UserError: the clip does not fill a block, or reaches beyond the rotary embedding.
        """
        batch, frames = hidden_states.shape[0], hidden_states.shape[2]
        times = timestep.view(batch, -1).expand(batch, frames)
        if past is not None:
            current = _next_block(self.layout, frames, past)
        elif clean is not None:
            current = _after_clean(self.layout, frames)
            hidden_states = torch.cat([clean, hidden_states], 2)
            times = torch.cat([torch.zeros_like(times), times], 1)
        else:
            current = _whole_clip(self.layout, frames)
        current.kept = kept
        self.rope.current = current
        try:
            folded = hidden_states.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # (B · F, C 1 H W)
            (v,) = super().forward(
                folded, times.flatten(), encoder_hidden_states, return_dict=False, **options
            )
        finally:
            self.rope.current = None
        v = v.squeeze(2).unflatten(0, (batch, -1)).transpose(1, 2)[:, :, -frames:]
        return Transformer2DModelOutput(sample=v) if return_dict else (v,)

    @torch.no_grad()
    def remember(self, clean: Tensor, encoder_hidden_states: Tensor, past: Cache) -> Cache:
        """The cache after the clean block (B C T H W), which a pass at t = 0 writes."""
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        time = torch.zeros(len(clean), device=clean.device)
        self(clean, time, encoder_hidden_states, return_dict=False, past=past, kept=kept)
        new = [kept[layer] for layer in range(len(self.blocks))]
        return past.followed_by(new, clean.shape[2], self.layout)


class CausalWan(CausalVariant):
    """Of Wan2.1 text-to-video."""

    network = CausalWanTransformer3DModel

    def predict(
        self,
        module: nn.Module,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        after: Tensor | Cache | None,
    ) -> Tensor:
        self.layout(module)  # refuses a bidirectional network
        dtype = module.get_parameter("patch_embedding.weight").dtype
        context = (
            {"clean": after.to(dtype)}
            if isinstance(after, Tensor)
            else {"past": after or _nothing(module)}
        )
        (v,) = module(
            x_t.to(dtype),
            (TIMESTEPS * t).float(),
            conditioning.prompt_embeds.to(dtype),
            return_dict=False,
            **context,
        )
        result: Tensor = v.float()
        return result

    def remember(
        self, module: nn.Module, clean: Tensor, conditioning: Conditioning, past: Cache | None
    ) -> Cache:
        self.layout(module)  # refuses a bidirectional network
        dtype = module.get_parameter("patch_embedding.weight").dtype
        text = conditioning.prompt_embeds.to(dtype)
        cache: Cache = module.remember(  # type: ignore[operator]
            clean.to(dtype), text, past or _nothing(module)
        )
        return cache

    def reach(self, module: nn.Module) -> int:
        self.layout(module)  # refuses a bidirectional network
        config: Any = module.config
        return int(config.rope_max_seq_len)


def _nothing(module: nn.Module) -> Cache:
    return Cache.empty(len(module.get_submodule("blocks")))  # type: ignore[arg-type]
