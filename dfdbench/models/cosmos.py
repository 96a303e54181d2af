"""The Cosmos-Predict2.5 image-to-video family over a diffusers folder: 2B, 14B and the toy alike.

Behind `load_family`. Follows Cosmos2_5_PredictBasePipeline of diffusers with one given frame:
its latent is pasted into the input under a mask channel, its tokens have a time of their own, and
the velocity there is the one that leads to it. Guidance is on the text alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLWan, CosmosTransformer3DModel
from torch import Tensor, nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.models.cosmos_modulation import modulate_by_frame
from dfdbench.models.cosmos_text import chat_lengths, chat_tokens, joined_states
from dfdbench.models.defaults import Defaults
from dfdbench.models.family import ModelFamily
from dfdbench.utils.errors import UserError

# Negative prompt and steps are the pipeline's; guidance g = 3 and the clip are those of DFD
# (2606.18478, Table 4): the model's native one is 93 frames of 704x1280. The pipeline's own
# guidance_scale 7 is g = 8, and its sigmas are Karras'; ours are a shifted grid.
COSMOS_DEFAULTS = Defaults(
    negative_prompt=(
        "The video captures a series of frames showing ugly scenes, static with no motion, motion "
        "blur, over-saturation, shaky footage, low resolution, grainy texture, pixelated images, "
        "poorly lit areas, underexposed and overexposed scenes, poor color balance, washed out "
        "colors, choppy sequences, jerky movements, low frame rate, artifacting, color banding, "
        "unnatural transitions, outdated special effects, fake elements, unconvincing visuals, "
        "poorly edited content, jump cuts, visual noise, and flickering. Overall, the video is of "
        "poor quality."
    ),
    cfg=3.0,
    steps=36,
    shift=5.0,
    frames=81,
    height=480,
    width=832,
    fps=16,
)
# The time that the transformer is told of the given frame: the pipeline's
# conditional_frame_timestep rather than the papers' 0, so that a student meets in the pipeline what
# it was trained with. To the time embedding both are the same (cosines and sines of at most 0.0001
# radian).
CONDITION_TIME = 1e-4
CONDITIONING_FRAMES = 1


def network_v(
    module: nn.Module, x_t: Tensor, t: Tensor, first: Tensor, prompt_embeds: Tensor
) -> Tensor:
    """The transformer's output (B C T H W); what it says of the first latent frame means nothing.

    Args:
        x_t: (B C T H W); its first frame is replaced by the given one.
        t: (B,) in (0, 1], the time of the other frames and, as it is, the transformer's.
        first: (B C 1 H W), latent of the given frame.
        prompt_embeds: (B L D).
    """
    batch, _, frames, height, width = x_t.shape
    given = x_t.new_zeros(batch, 1, frames, height, width)
    given[:, :, :CONDITIONING_FRAMES] = 1
    # float32 whatever the weights, as the embedding of time wants it.
    times = t.float().view(-1, 1, 1, 1, 1).repeat(1, 1, frames, 1, 1)
    times[:, :, :CONDITIONING_FRAMES] = CONDITION_TIME
    (v,) = module(
        hidden_states=torch.cat([first.to(x_t.dtype), x_t[:, :, CONDITIONING_FRAMES:]], 2),
        timestep=times,
        encoder_hidden_states=prompt_embeds.to(x_t.dtype),
        condition_mask=given,
        padding_mask=x_t.new_zeros(1, 1, height, width),
        return_dict=False,
    )
    result: Tensor = v
    return result


def _time_embedding(
    own: Callable[..., Any], part: nn.Module, hidden_states: Tensor, timestep: Tensor
) -> tuple[Tensor, ...]:
    """The two embeddings of `timestep` (N,), computed in float32, in the hidden states' dtype."""
    kind = hidden_states.new_empty(0, dtype=torch.float32)  # its dtype is all that is looked at
    with torch.autocast(hidden_states.device.type, enabled=False):
        return tuple(x.to(hidden_states.dtype) for x in own(part, kind, timestep))


class Cosmos(ModelFamily):
    """Cosmos-Predict2.5, base model, with one given first frame."""

    name = "cosmos"
    own_defaults = COSMOS_DEFAULTS
    network = CosmosTransformer3DModel
    autoencoder = AutoencoderKLWan
    encoder = "Qwen2_5_VLForConditionalGeneration"
    block_list = "transformer_blocks"
    first_layer = "patch_embed.proj.weight"
    text_width_key = "crossattn_proj_in_channels"
    conditioning_frames = CONDITIONING_FRAMES
    hub_ids = ("nvidia/Cosmos-Predict2.5",)

    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        first = conditioning.image_latents
        if first is None:
            raise UserError(
                f"{self.path.name} continues a first frame, and there is none; use a suite with "
                "first frames, such as --suite toy-i2v for a toy or --suite vbench-i2v"
            )
        dtype = self.weight_dtype(module)
        with self.own_precision(module, x_t):
            v = network_v(module, x_t.to(dtype), t, first, conditioning.prompt_embeds).float()
        to_first = (x_t[:, :, :CONDITIONING_FRAMES] - first) / t.view(-1, 1, 1, 1, 1)
        return torch.cat([to_first.float(), v[:, :, CONDITIONING_FRAMES:]], 2)

    def adapt(self, module: nn.Module) -> nn.Module:
        modulate_by_frame(module)
        return module

    def keep_precise(self, module: nn.Module) -> None:
        super().keep_precise(module)
        embedding = module.get_submodule("time_embed")
        embedding.forward = partial(_time_embedding, type(embedding).forward, embedding)  # type: ignore[method-assign]

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        tokenizer, encoder = self.text_encoder
        self._note_cut(prompts, chat_lengths(tokenizer, prompts))
        tokens = chat_tokens(tokenizer, prompts, self.defaults.max_sequence_length)
        self._warn_of_unknown_words(prompts, tokens)
        return Conditioning(joined_states(encoder, tokens.to(self.device)))
