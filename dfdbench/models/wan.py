"""The Wan2.1 text-to-video family over a diffusers folder: 1.3B, 14B and the toy alike.

Behind `load_family`. Follows WanPipeline of diffusers wherever a pixel could depend on it, so that
a student saved here samples the same in the plain pipeline.
"""

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn

from dfdbench.models.conditioning import Conditioning
from dfdbench.models.defaults import Defaults
from dfdbench.models.family import ModelFamily
from dfdbench.models.precision import keep_float32
from dfdbench.models.wan_causal import TIMESTEPS, CausalWan
from dfdbench.models.wan_names import original_name

# Wan2.1's published sampling settings; its negative prompt is the official one, in Chinese.
WAN_DEFAULTS = Defaults(
    negative_prompt=(
        "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
        "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
        "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
    ),
    cfg=5.0,
    steps=50,
    shift=5.0,
    frames=81,
    height=480,
    width=832,
    fps=16,
)


class Wan(ModelFamily):
    """Wan2.1 text-to-video."""

    name = "wan"
    own_defaults = WAN_DEFAULTS
    network = WanTransformer3DModel
    autoencoder = AutoencoderKLWan
    encoder = "UMT5EncoderModel"
    block_list = "blocks"
    first_layer = "patch_embedding.weight"
    text_width_key = "text_dim"
    hub_ids = ("Wan-AI/Wan2.1-T2V",)
    causal = CausalWan()

    def predict(
        self, module: nn.Module, x_t: Tensor, t: Tensor, conditioning: Conditioning
    ) -> Tensor:
        dtype = self.weight_dtype(module)
        with self.own_precision(module, x_t):
            (v,) = module(
                hidden_states=x_t.to(dtype),
                # float32 whatever the weights: bfloat16 cannot tell 999 from 1000.
                timestep=(TIMESTEPS * t).float(),
                encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
                return_dict=False,
            )
        result: Tensor = v.float()
        return result

    def original_name(self, name: str) -> str:
        return original_name(name)

    def keep_precise(self, module: nn.Module) -> None:
        super().keep_precise(module)
        for name in ("time_embedder", "time_proj"):  # as Wan's own code has them
            keep_float32(module.get_submodule(f"condition_embedder.{name}"))

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        tokenizer, encoder = self.text_encoder
        length = self.defaults.max_sequence_length
        texts = [prompt_clean(prompt) for prompt in prompts]
        self._note_cut(prompts, [len(ids) for ids in tokenizer(texts).input_ids])
        tokens = tokenizer(
            texts,
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        self._warn_of_unknown_words(prompts, tokens.input_ids)
        embeds = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        # WanPipeline cuts each prompt to its own tokens and pads with zeros again.
        return Conditioning(embeds * tokens.attention_mask.unsqueeze(-1).to(embeds.dtype))
